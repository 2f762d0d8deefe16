package simulation

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// stale is how long a tag may have moved on at the source when the
	// destination's is moved: ten seconds for what a sweep found, and the time
	// that slow answers take.
	stale = 20 * time.Second
	// patience is how long after the last fault all may take to come right.
	patience = 20 * time.Minute
)

// wrote is called at the instant a registry has taken a manifest of the daemon:
// here P3 and P4 are held. times counts how often one request was taken.
func (w *world) wrote(s *site, repository, reference string, before, now digest.Digest, times int, tardy bool) {
	w.echo(s, repository, reference, now, times)
	if oci.IsDigest(reference) || strings.HasPrefix(reference, "twinport-lost-") {
		return
	}
	if _, _, companion := oci.CompanionSubject(reference); companion {
		return
	}
	at := tagAt{s.name, repository, reference}
	w.complete(s, at, now)
	switch {
	case tardy: // no registry can be kept from this; it is repaired
	case w.history.Topology.twoWay():
		w.betweenTwo(at, before, now)
	default:
		w.inOrder(at, now)
		w.keptDrift(at, now)
	}
	w.became(at, state{digest: now, tardy: tardy})
}

// inOrder: what a destination's tag names, one after the other, is what its
// source's has named, in that order, and not long ago (P3).
func (w *world) inOrder(at tagAt, now digest.Digest) {
	from := tagAt{w.history.Topology.source(at.registry), at.repository, at.tag}
	w.mu.Lock()
	past, reached := w.states[from], w.reached[at]
	w.mu.Unlock()
	for i := reached; i < len(past); i++ {
		if past[i].digest != now {
			continue
		}
		w.mu.Lock()
		w.reached[at] = i
		w.mu.Unlock()
		w.recent(at, past, now)
		return
	}
	what := "which its source's tag never named"
	for _, s := range past[:min(reached, len(past))] {
		if s.digest == now {
			what = "an older state than it has shown before"
		}
	}
	w.fault("P3: %s was moved to %.19s, %s", at, now, what)
}

// recent: the source's tag was read right before (P3).
func (w *world) recent(at tagAt, past []state, now digest.Digest) {
	until, moves := time.Time{}, 0
	for i, s := range past {
		if s.digest == now && i+1 == len(past) {
			return
		}
		if s.digest == now {
			until = past[i+1].at
		}
		if time.Since(s.at) < 10*time.Minute {
			moves++
		}
	}
	if time.Since(until) > stale && moves < 3 {
		w.fault("P3: %s was moved to %.19s, which its source's tag has not named for %s", at, now, time.Since(until))
	}
}

// betweenTwo: nothing a user pushed to one end is overwritten unseen by what
// the other end had.
func (w *world) betweenTwo(at tagAt, before, now digest.Digest) {
	other := w.other(at)
	w.mu.Lock()
	here, there, resolved := w.states[at], w.states[other], w.resolved[at]
	w.mu.Unlock()
	named := false
	for i, s := range there {
		named = named || s.digest == now && (i+1 == len(there) || time.Since(there[i+1].at) < stale)
	}
	if !named {
		w.fault("P3: %s was moved to %.19s, which %s does not name", at, now, other)
	}
	if len(here) == 0 || before == now || w.history.Conflict != "ask" {
		return
	}
	last := here[len(here)-1]
	if !last.user || last.digest == "" || time.Since(last.at) < stale {
		return // copied, or pushed in the very moment
	}
	if resolved.After(last.at) {
		return // a person has chosen
	}
	for _, s := range there {
		if s.digest == last.digest {
			return // it has been there
		}
	}
	w.fault("P3: %s was moved from %.19s, which a user pushed and %s has never had", at, before, other)
}

func (w *world) other(at tagAt) tagAt {
	for _, name := range w.history.Topology.registries() {
		if name != at.registry {
			return tagAt{name, at.repository, at.tag}
		}
	}
	return at
}

// A closure is all that a manifest names at a registry.
type closure struct {
	manifests []digest.Digest
	blobs     []v1.Descriptor
	missing   []string
}

// graph follows a manifest in one repository.
func (w *world) graph(s *site, repository string, root oci.Manifest) closure {
	var c closure
	seen := make(map[digest.Digest]bool)
	var visit func(m oci.Manifest)
	visit = func(m oci.Manifest) {
		refs, err := oci.ParseReferences(m)
		if err != nil {
			c.missing = append(c.missing, err.Error())
			return
		}
		for _, desc := range refs.Blobs {
			if seen[desc.Digest] {
				continue
			}
			seen[desc.Digest] = true
			c.blobs = append(c.blobs, desc)
			data, ok := s.Blob(repository, desc.Digest)
			if !ok || desc.Digest.Algorithm().FromBytes(data) != desc.Digest {
				c.missing = append(c.missing, desc.Digest.String())
			}
		}
		for _, desc := range refs.Manifests {
			if seen[desc.Digest] {
				continue
			}
			seen[desc.Digest] = true
			c.manifests = append(c.manifests, desc.Digest)
			child, ok := s.Manifest(repository, desc.Digest.String())
			if !ok {
				c.missing = append(c.missing, desc.Digest.String())
				continue
			}
			visit(child)
		}
	}
	visit(root)
	return c
}

// complete: a tag names only what can be pulled whole, and was proven so first;
// what refers to it came before (P4, P6).
func (w *world) complete(s *site, at tagAt, now digest.Digest) {
	root, _ := s.Manifest(at.repository, now.String())
	c := w.graph(s, at.repository, root)
	for _, d := range c.missing {
		proved, lost := s.when(s.proved, at.repository, d), s.when(s.lost, at.repository, d)
		if all := s.when(s.lost, at.repository, ""); all.After(lost) {
			lost = all
		}
		if !lost.After(proved) || time.Since(lost) > 5*time.Minute {
			w.fault("P4: %s was moved to %.19s, which lacks %.19s", at, now, d)
		}
	}
	if len(c.missing) > 0 {
		return
	}
	prove := append([]digest.Digest(nil), c.manifests...)
	for _, b := range c.blobs {
		prove = append(prove, b.Digest)
	}
	for _, d := range prove {
		proved, landed := s.when(s.proved, at.repository, d.String()), s.when(s.landed, at.repository, d.String())
		// Proofs share what they have seen for ten seconds.
		if proved.IsZero() || landed.Sub(proved) > 12*time.Second || time.Since(proved) > 10*time.Minute {
			w.fault("P6: %s was moved to %.19s before %.19s was proven there", at, now, d)
		}
	}
	w.accompanied(s, at, now)
}

// accompanied: the signatures that the source has had for a while are there
// when the tag moves, unless something has gone wrong lately (P4).
func (w *world) accompanied(s *site, at tagAt, now digest.Digest) {
	const lately = 100 * time.Second
	w.mu.Lock()
	attached := append([]attachment(nil), w.attached...)
	w.mu.Unlock()
	for _, a := range attached {
		if a.subject != now || a.repository != at.repository || time.Since(a.at) < stale {
			continue
		}
		if a.registry == at.registry || a.registry != w.history.Topology.source(at.registry) {
			continue
		}
		well := s.well(time.Now().Add(-lately)) && w.sites[a.registry].well(time.Now().Add(-lately))
		if _, ok := s.Manifest(at.repository, a.root.String()); !ok && well {
			w.fault("P4: %s was moved to %.19s before %.19s, which signs it", at, now, a.root)
		}
	}
}

// echo has a registry that others are fed from tell of what the daemon put there.
func (w *world) echo(s *site, repository, reference string, d digest.Digest, times int) {
	if !w.history.Topology.feeds(s.name) {
		return
	}
	tag := ""
	if !oci.IsDigest(reference) {
		tag = reference
	}
	m, _ := s.Manifest(repository, d.String())
	body := fmt.Sprintf(`{"events":[{"timestamp":%q,"action":"push","target":{"mediaType":%q,"digest":%q,"repository":%q,"tag":%q}}]}`,
		w.stamp(), m.MediaType, d, repository, tag)
	name := fmt.Sprintf("echo %s %s %s %s %d", s.name, repository, brief(reference), brief(d.String()), times)
	w.send(s.name, name, body, w.chance.now(name).between(time.Millisecond, 200*time.Millisecond), func() {})
}

// converge waits until everything is as promised, and notes what never came to be.
func (w *world) converge() {
	var open []string
	for began := time.Now(); time.Since(began) < patience; {
		open = w.open()
		if len(open) == 0 {
			time.Sleep(20 * time.Second) // and stays so
			if open = w.open(); len(open) == 0 {
				w.trace("converged")
				return
			}
		}
		wait := min(max(time.Since(began)/8, time.Second), 30*time.Second)
		time.Sleep(wait)
	}
	for _, what := range open {
		w.fault("%s", what)
	}
	if len(open) > 0 {
		w.fault("the daemon believes:%s", w.describe())
	}
}

// open is what is not yet as promised.
func (w *world) open() (all []string) {
	note := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	p := w.process()
	if p == nil {
		return []string{"no daemon runs"}
	}
	jobs, findings := w.believed()
	for _, j := range jobs {
		stays := j.Error != nil && j.Error.Kind == "conflict" // a person settles it
		if j.State == replicator.Held {
			w.letGo() // what ran when it was canceled is held when it ends
		}
		if j.State.Unproven() && !stays && !w.hollow(j) {
			note("P1: job %s → %s %s %.19s is %s", j.Source, j.Destination, j.Tag, j.Digest, j.State)
		}
	}
	w.mu.Lock()
	var places []tagAt
	for at := range w.states {
		places = append(places, at)
	}
	w.mu.Unlock()
	sort.Slice(places, func(i, j int) bool { return places[i].String() < places[j].String() })
	for _, route := range w.history.Topology.Routes {
		for _, at := range places {
			if at.registry == route[0] {
				for _, to := range route[1:] {
					w.arrived(p, at, tagAt{to, at.repository, at.tag}, findings, note)
				}
			}
		}
	}
	return all
}

// hollow tells whether a job is refused for what its source truly lacks, and
// nothing brings there again: an untagged digest, or what nobody has whole.
func (w *world) hollow(j replicator.Job) bool {
	if j.State != replicator.Refused || !w.lacks(j.Source.Registry, j.Source.Repository, j.Digest) {
		return false
	}
	return j.Tag == "" || w.lost(j.Source.Repository, j.Digest)
}

// lost tells whether no registry has a manifest's content whole.
func (w *world) lost(repository string, d digest.Digest) bool {
	for _, name := range w.history.Topology.registries() {
		if !w.lacks(name, repository, d) {
			return false
		}
	}
	return true
}

// lacks tells whether a registry lacks a manifest or something of it.
func (w *world) lacks(registry, repository string, d digest.Digest) bool {
	s := w.sites[registry]
	m, ok := s.Manifest(repository, d.String())
	return !ok || len(w.graph(s, repository, m).missing) > 0
}

// arrived tells what a destination's tag lacks of its source's.
func (w *world) arrived(p *process, from, to tagAt, findings []replicator.Finding, note func(string, ...any)) {
	src, dst := w.sites[from.registry], w.sites[to.registry]
	want, ok := src.Manifest(from.repository, from.tag)
	if !ok {
		return // deleted: what the destination has of it stays
	}
	w.mu.Lock()
	past, there, accepted := w.states[from], w.states[to], w.accepted[from]
	w.mu.Unlock()
	if w.history.Sweep == 0 && len(there) > 0 && there[len(there)-1].digest == "" {
		return // deleted there, and no event of the source has come since
	}
	if w.history.Sweep == 0 && accepted < len(past) && past[len(past)-1].user {
		return // its webhook was not answered: nobody has promised anything
	}
	got, _ := dst.Manifest(to.repository, to.tag)
	if got.Digest != want.Digest {
		if w.history.Topology.twoWay() && found(findings, replicator.FindingConflict, func(f replicator.Finding) bool {
			return f.Repository == to.repository && f.Tag == to.tag
		}) {
			return
		}
		if w.stays(p, from, to, want.Digest, findings) || w.lost(from.repository, want.Digest) {
			return
		}
		note("P1: %s names %.19s, and %s names %.19s", from, want.Digest, to, got.Digest)
		return
	}
	if c := w.graph(dst, to.repository, got); len(c.missing) > 0 {
		note("P6: %s names %.19s, and lacks %.19s", to, got.Digest, c.missing[0])
		return
	}
	record, known, err := p.journal.Record(background, dst.Identity(), to.repository, to.tag)
	if err != nil || !known || record.Digest != got.Digest {
		note("P6: %s names %.19s and is on record as %.19s (%v)", to, got.Digest, record.Digest, err)
	}
	if w.history.options(from.registry).ReferrersAPI {
		return // it tells nobody of what refers to something, and is asked once a day
	}
	for _, a := range w.attached {
		if a.registry != from.registry || a.repository != from.repository || a.subject != want.Digest {
			continue
		}
		if _, ok := dst.Manifest(to.repository, a.root.String()); !ok && w.history.Sweep > 0 {
			note("P4: %s names %.19s, and lacks %.19s, which signs it", to, got.Digest, a.root)
		}
	}
}
