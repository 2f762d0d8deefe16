package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
)

// A registry may tell of a push before its tag shows it, or have us read a
// replica that lags behind: then the tag still names what it did before, or at
// least not what the event told. A job that has ended by the old state is
// followed by a few looks at the tag, a HEAD each, so that no push waits for
// the next sweep. They are kept in memory: after a crash the sweep at start
// sees what they would have.
var (
	lookAfter = []time.Duration{30 * time.Second, 2 * time.Minute}
	// lookAfterSettler is for registries that say how long they take.
	lookAfterSettler = []time.Duration{30 * time.Second, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute}
)

const (
	// maxLooks bounds the tags that are to be looked at again; what is over it
	// is left to the sweep.
	maxLooks = 10_000
	// looksAtOnce and lookTime bound the looks that are under way.
	looksAtOnce = 16
	lookTime    = 30 * time.Second
	lookEvery   = time.Second
	// causeLook is the cause of an event that a look has brought.
	causeLook = "looked again"
)

type looks struct {
	mu      sync.Mutex
	pending map[lookedAt]*look
	next    time.Time // the first that is due; zero: none
	added   chan struct{}
}

type lookedAt struct {
	registry, repository, tag string
	moved                     bool // a destination's, that we have moved
}

// A look is a tag to be looked at again.
type look struct {
	pushedAt   time.Time // of the event
	senderTime bool
	move       pastMove // of a tag that we have moved
	due        []time.Time
}

func (l *looks) init() {
	if l.pending == nil {
		l.pending, l.added = make(map[lookedAt]*look), make(chan struct{}, 1)
	}
}

// add has a tag looked at again, counted from now.
func (l *looks) add(at lookedAt, pushedAt time.Time, senderTime bool, now time.Time, after []time.Duration) {
	l.put(at, look{pushedAt: pushedAt, senderTime: senderTime}, now, after)
}

// addMove has a tag that we have moved looked at again.
func (l *looks) addMove(at lookedAt, m pastMove, now time.Time) {
	l.put(at, look{move: m}, now, lookAfterMove)
}

func (l *looks) put(at lookedAt, k look, now time.Time, after []time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.init()
	if l.pending[at] == nil && len(l.pending) >= maxLooks {
		return
	}
	for _, d := range after {
		k.due = append(k.due, now.Add(d))
	}
	l.pending[at] = &k
	if l.next.IsZero() || k.due[0].Before(l.next) {
		l.next = k.due[0]
		select {
		case l.added <- struct{}{}:
		default:
		}
	}
}

// wait tells how long nothing is due, and what ends the wait early.
func (l *looks) wait(now time.Time) (time.Duration, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.init()
	if l.next.IsZero() {
		return time.Hour, l.added
	}
	return max(l.next.Sub(now), lookEvery), l.added
}

// take gives what is due.
func (l *looks) take(now time.Time) map[lookedAt]look {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := make(map[lookedAt]look)
	if l.next.IsZero() || l.next.After(now) {
		return taken
	}
	l.next = time.Time{}
	for at, k := range l.pending {
		if !k.due[0].After(now) {
			taken[at] = *k
			if k.due = k.due[1:]; len(k.due) == 0 {
				delete(l.pending, at)
				continue
			}
		}
		if l.next.IsZero() || k.due[0].Before(l.next) {
			l.next = k.due[0]
		}
	}
	return taken
}

// lookAgain has the looks that are due made, until ctx ends.
func (d *Daemon) lookAgain(ctx context.Context) error {
	for {
		wait, added := d.looks.wait(d.now())
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-added:
			timer.Stop()
			continue
		case <-timer.C:
		}
		var g errgroup.Group
		g.SetLimit(looksAtOnce)
		for at, k := range d.looks.take(d.now()) {
			g.Go(func() error {
				d.lookOnce(ctx, at, k)
				return nil
			})
		}
		_ = g.Wait() // nobody returns one
	}
}

// lookOnce asks what a tag names by now; what nobody knows is an event.
func (d *Daemon) lookOnce(ctx context.Context, at lookedAt, k look) {
	if at.moved {
		d.lookForLate(ctx, k.move)
		return
	}
	reg, ok := d.State().Registries[at.registry]
	if !ok {
		return
	}
	if _, down := reg.Gate.Down(); down {
		return // it is swept once it is back
	}
	rctx, cancel := context.WithTimeout(oci.WithoutPulls(oci.WithBackground(ctx)), lookTime)
	defer cancel()
	desc, err := reg.Client.Repository(at.repository).Resolve(rctx, at.tag)
	if err != nil {
		return // a hint of a hint; the sweep is for the rest
	}
	known, err := d.journal.TagStates(ctx, reg.Client.Identity(), at.repository, at.tag, 1)
	if err != nil || len(known) == 1 && known[0].Tag == at.tag && known[0].Digest == desc.Digest {
		return
	}
	now := d.now()
	d.log.Debug("found by another look", zap.String("registry", at.registry), zap.String("repository", at.repository),
		zap.String("tag", at.tag), zap.String("digest", desc.Digest.String()))
	if err := d.acceptPatiently(ctx, []replicator.Event{{
		Action: replicator.Push, Registry: at.registry, Repository: at.repository, Tag: at.tag, Digest: desc.Digest,
		PushedAt: k.pushedAt, SenderTime: k.senderTime, ReceivedAt: now, Lane: replicator.LaneWebhook, Cause: causeLook,
	}}); err != nil && ctx.Err() == nil {
		d.log.Warn("tell of what another look found", zap.Error(err))
	}
}

// lookLater has a tag looked at again whose job has ended, though it did not
// name what the event told. Events without a digest have theirs looked at
// whatever comes of them (Accept). Tag history holds what was told; that it was
// read otherwise since is added.
func (r *run) lookLater(j replicator.Job, seen digest.Digest, o *journal.Outcome) {
	if j.Digest == "" {
		return
	}
	r.log.Debug("the tag is looked at again later", zap.String("told", j.Digest.String()), zap.String("seen", seen.String()))
	places := []replicator.Place{j.Source}
	if j.Flow != replicator.OneWay {
		places = append(places, j.Destination) // whichever has told
	}
	for _, p := range places {
		o.History = append(o.History, replicator.TagState{Place: p, Tag: j.Tag, Digest: seen, At: r.now(), Cause: "read"})
		r.looks.add(lookedAt{registry: p.Registry, repository: p.Repository, tag: j.Tag}, j.PushedAt, j.SenderTime, r.now(), looksAt(r.state, p.Registry))
	}
}

// lookForNews has the tags of events looked at again that told no digest: what
// their jobs will find need not be what was pushed.
func (d *Daemon) lookForNews(st *State, events []replicator.Event) {
	for _, ev := range events {
		if ev.Action == replicator.Push && ev.Lane == replicator.LaneWebhook && ev.Tag != "" && ev.Digest == "" {
			d.looks.add(lookedAt{registry: ev.Registry, repository: ev.Repository, tag: ev.Tag}, ev.PushedAt, ev.SenderTime, d.now(), looksAt(st, ev.Registry))
		}
	}
}

// looksAt is when to look again at a registry.
func looksAt(st *State, registry string) []time.Duration {
	if reg, ok := st.Registries[registry]; ok {
		if _, slow := reg.Client.(oci.Settler); slow {
			return lookAfterSettler
		}
	}
	return lookAfter
}
