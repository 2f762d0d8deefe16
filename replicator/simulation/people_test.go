package simulation

import (
	"errors"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/api"
	"github.com/twinport/twinport/replicator/daemon"
	"github.com/twinport/twinport/replicator/journal"
)

// meddle has somebody else move a destination's tag.
func (w *world) meddle(s step) {
	c := foreign(s.Content)
	at := tagAt{s.Registry, s.Repository, s.Tag}
	kept := w.history.Drift == "keep" && w.isProven(at)
	w.sites[s.Registry].Push(s.Repository, s.Tag, c)
	n := w.became(at, state{digest: c.Digest(), user: true, foreign: true, kept: kept})
	if w.history.Topology.feeds(s.Registry) {
		w.tell(s, n, `{"timestamp":%q,"action":"push","target":{"mediaType":%q,"digest":%q,"repository":%q,"tag":%q}}`,
			w.stamp(), c.Root().MediaType, c.Digest(), s.Repository, s.Tag)
	}
}

// operate has an operator do something; where no daemon runs, nothing.
func (w *world) operate(s step) {
	p := w.process()
	if p == nil {
		return
	}
	operator := daemon.Operator{Daemon: p.daemon}
	var err error
	switch s.Kind {
	case pause, resume:
		for _, route := range w.history.routes() {
			if route.From == s.Registry {
				_, err = operator.SetPaused(background, route.Name, s.Kind == pause, "operator")
			}
		}
	case cancel:
		_, err = operator.Cancel(background, journal.JobFilter{Repository: s.Repository, Tag: s.Tag}, "operator")
	case retry:
		_, err = operator.Retry(background, journal.JobFilter{Repository: s.Repository}, "operator")
	case resolve:
		at := tagAt{s.Registry, s.Repository, s.Tag}
		w.mu.Lock() // from now on: it is begun before its answer
		w.resolved[at], w.resolved[w.other(at)] = time.Now(), time.Now()
		w.mu.Unlock()
		_, _ = operator.Resolve(background, api.ResolveRequest{Reference: at.String(), Prefer: s.Registry}, "operator") // there may be no conflict, or no answer: the operator is told
	}
	var usage *api.UsageError // the config may leave the route out
	if err != nil && !errors.As(err, &usage) && !p.dead.Load() {
		w.fault("%s: %v", s, err)
	}
}

// letGo has operators undo what they did.
func (w *world) letGo() {
	p := w.process()
	if p == nil {
		return
	}
	operator := daemon.Operator{Daemon: p.daemon}
	for _, s := range w.history.Steps {
		var err error
		switch s.Kind {
		case pause:
			for _, route := range w.history.routes() {
				if route.From == s.Registry {
					_, err = operator.SetPaused(background, route.Name, false, "operator")
				}
			}
		case cancel:
			_, err = operator.Retry(background, journal.JobFilter{States: []replicator.JobState{replicator.Held}}, "operator")
		}
		if err != nil {
			w.fault("let go: %v", err)
		}
	}
}

// lateFor is how long after a move of the daemon's an older state of the source's
// tag is taken for a move of its own that came late.
const lateFor = 2 * time.Minute

// keptDrift: with `drift: keep` what somebody else put under a tag that was
// proven stays while its source does not change (P7), unless the source's tag
// has named it before and it came right after a move of the daemon's.
func (w *world) keptDrift(at tagAt, now digest.Digest) {
	from := tagAt{w.history.Topology.source(at.registry), at.repository, at.tag}
	w.mu.Lock()
	there, past := w.states[at], w.states[from]
	w.mu.Unlock()
	if len(there) == 0 || len(past) == 0 {
		return
	}
	last := there[len(there)-1]
	older := slices.ContainsFunc(past, func(s state) bool { return s.digest == last.digest })
	moved := slices.ContainsFunc(there, func(s state) bool { return !s.user && last.at.Sub(s.at) < lateFor })
	if older && moved {
		return
	}
	if last.kept && past[len(past)-1].at.Before(last.at) {
		w.fault("P7: %s was moved to %.19s from %.19s, which somebody else had put there", at, now, last.digest)
	}
}

// isProven tells whether a destination's tag is on record as what it and its
// source name, by a daemon that nothing can make doubt that.
func (w *world) isProven(at tagAt) bool {
	p := w.process()
	from := w.history.Topology.source(at.registry)
	if p == nil || slices.ContainsFunc(w.history.Steps, func(s step) bool { return s.Kind == forget }) {
		return false
	}
	want, ok := w.sites[from].Manifest(at.repository, at.tag)
	got, _ := w.sites[at.registry].Manifest(at.repository, at.tag)
	record, known, err := p.journal.Record(background, w.sites[at.registry].Identity(), at.repository, at.tag)
	return ok && err == nil && known && record.Digest == want.Digest && got.Digest == want.Digest
}

// stays tells whether a destination's tag may differ from its source's: what
// somebody put there is kept and told of while the source names what was proven
// there last, and so is a move of our own that came so late that nobody can tell
// it from a person's rollback any more.
func (w *world) stays(p *process, from, to tagAt, want digest.Digest, findings []replicator.Finding) bool {
	w.mu.Lock()
	past, there := w.states[from], w.states[to]
	w.mu.Unlock()
	if len(there) == 0 {
		return false
	}
	last := there[len(there)-1]
	record, known, err := p.journal.Record(background, w.sites[to.registry].Identity(), to.repository, to.tag)
	kept := w.history.Drift == "keep" && err == nil && known && record.Digest == want &&
		found(findings, replicator.FindingDrift, func(f replicator.Finding) bool { return f.Repository == to.repository && f.Tag == to.tag })
	switch {
	case last.tardy:
		return kept && !w.history.calmly()
	case !last.foreign:
		return false
	}
	return kept || w.history.Sweep == 0 && past[len(past)-1].at.Before(last.at) // nobody has looked there since
}
