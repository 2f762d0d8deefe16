package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/plan"
)

// sourceGone tells whether a route's source has been silent for so long that what it
// had is read from elsewhere.
func (d *Daemon) sourceGone(src *Registry, route plan.Route) bool {
	return route.SourceGone > 0 && src.Gate.Silent() >= route.SourceGone
}

// A holder is a repository that is on record as holding a digest whole.
type holder struct {
	place replicator.Place
	repo  oci.Repository
}

// holders are the places to read a digest from in place of the job's source:
// on record, trusted, without a finding of damage, and at a registry that
// answers. Whoever reads there hashes what it gets.
func (d *Daemon) holders(ctx context.Context, st *State, j replicator.Job, wanted digest.Digest) ([]holder, error) {
	places, err := d.journal.Holders(ctx, wanted)
	if err != nil {
		return nil, err
	}
	var list []holder
	for _, p := range places {
		reg, ok := st.Registries[p.Registry]
		if !ok || reg.Client.Identity() != p.Identity || p.Identity == j.Source.Identity {
			continue
		}
		if p.Identity == j.Destination.Identity && p.Repository == j.Destination.Repository {
			continue
		}
		if _, down := reg.Gate.Down(); down || d.suspected(ctx, p) {
			continue
		}
		list = append(list, holder{p, reg.Client.Repository(p.Repository)})
	}
	return list, nil
}

// newestPush is the newest state of a source's tag that the journal knows;
// false where it knows none, or knows the tag as deleted.
func (d *Daemon) newestPush(ctx context.Context, source replicator.Place, tag string) (replicator.TagState, bool, error) {
	history, err := d.journal.History(ctx, source.Identity, source.Repository, tag, nil, 1)
	if err != nil || len(history) == 0 || history[0].Digest == "" {
		return replicator.TagState{}, false, err
	}
	return history[0], true, nil
}

// An elsewhere is a repository whose content is read from several places: what
// is asked for by digest is asked of each in turn, the rest of the repository
// it stands for.
type elsewhere struct {
	oci.Repository
	from []oci.Repository

	mu sync.Mutex
	// opened counts how often a blob was begun: one whose bytes turned out wrong
	// is begun at the next place.
	opened map[digest.Digest]int
}

func newElsewhere(repo oci.Repository, from ...oci.Repository) *elsewhere {
	return &elsewhere{Repository: repo, from: from, opened: make(map[digest.Digest]int)}
}

// each asks the places until one answers without an error. What one of them
// could not be asked for may be there all the same: that error goes before
// another's "not found".
func (e *elsewhere) each(ctx context.Context, first int, ask func(oci.Repository) error) error {
	var worst error
	for i := range e.from {
		err := ask(e.from[(first+i)%len(e.from)])
		if err == nil || ctx.Err() != nil {
			return err
		}
		if worst == nil || errors.Is(worst, oci.ErrNotFound) {
			worst = err
		}
	}
	return worst
}

// Resolve implements oci.Resolver.
func (e *elsewhere) Resolve(ctx context.Context, reference string) (desc v1.Descriptor, err error) {
	if !oci.IsDigest(reference) {
		return e.Repository.Resolve(ctx, reference)
	}
	err = e.each(ctx, 0, func(r oci.Repository) (err error) {
		desc, err = r.Resolve(ctx, reference)
		return err
	})
	return desc, err
}

// FetchManifest implements oci.ManifestFetcher.
func (e *elsewhere) FetchManifest(ctx context.Context, reference string) (m oci.Manifest, err error) {
	if !oci.IsDigest(reference) {
		return e.Repository.FetchManifest(ctx, reference)
	}
	err = e.each(ctx, 0, func(r oci.Repository) (err error) {
		m, err = r.FetchManifest(ctx, reference)
		return err
	})
	return m, err
}

// Stat implements oci.Statter.
func (e *elsewhere) Stat(ctx context.Context, d digest.Digest) (size int64, err error) {
	err = e.each(ctx, 0, func(r oci.Repository) (err error) {
		size, err = r.Stat(ctx, d)
		return err
	})
	return size, err
}

// Fetch implements oci.Fetcher.
func (e *elsewhere) Fetch(ctx context.Context, desc v1.Descriptor) (body io.ReadCloser, err error) {
	e.mu.Lock()
	first := e.opened[desc.Digest]
	e.opened[desc.Digest]++
	e.mu.Unlock()
	err = e.each(ctx, first, func(r oci.Repository) (err error) {
		body, err = r.Fetch(ctx, desc)
		return err
	})
	return body, err
}

// FetchRange implements oci.RangeFetcher: a read that broke goes on where it was
// begun last, or wherever else its bytes are to be had.
func (e *elsewhere) FetchRange(ctx context.Context, desc v1.Descriptor, from, n int64) (body io.ReadCloser, err error) {
	e.mu.Lock()
	first := max(e.opened[desc.Digest]-1, 0)
	e.mu.Unlock()
	err = e.each(ctx, first, func(r oci.Repository) (err error) {
		ranged, ok := r.(oci.RangeFetcher)
		if !ok {
			return fmt.Errorf("blob %s from %d on: %w", desc.Digest, from, oci.ErrUnsupported)
		}
		body, err = ranged.FetchRange(ctx, desc, from, n)
		return err
	})
	return body, err
}

// groups are targets that may read from the same places: those that hold the
// digest themselves read from the others.
func (r *run) groups(ctx context.Context, wanted digest.Digest, targets []*target) (map[*target][]holder, [][]*target, error) {
	from := make(map[*target][]holder, len(targets))
	var groups [][]*target
	for _, t := range targets {
		list, err := r.holders(ctx, r.state, t.job, wanted)
		if err != nil {
			return nil, nil, err
		}
		from[t] = list
		same := func(g []*target) bool {
			return slices.EqualFunc(from[g[0]], list, func(a, b holder) bool { return a.place == b.place })
		}
		if i := slices.IndexFunc(groups, same); i >= 0 {
			groups[i] = append(groups[i], t)
			continue
		}
		groups = append(groups, []*target{t})
	}
	return from, groups, nil
}

func repositories(holders []holder) []oci.Repository {
	list := make([]oci.Repository, len(holders))
	for i, h := range holders {
		list[i] = h.repo
	}
	return list
}

// mend brings targets what the source turned out to lack, or to have damaged,
// from places that proved it; those without such a place fail as they did.
func (r *run) mend(ctx context.Context, from delivery, targets []*target, why map[*target]error) (moved []*target) {
	if len(targets) == 0 {
		return nil
	}
	holders, groups, err := r.groups(ctx, from.root.Digest, targets)
	if err != nil {
		for _, t := range targets {
			r.fail(ctx, t.job, err)
		}
		return nil
	}
	for _, group := range groups {
		list := holders[group[0]]
		if len(list) == 0 {
			for _, t := range group {
				r.fail(ctx, t.job, why[t])
			}
			continue
		}
		again := from
		// The source comes last: what the others lack it may have.
		again.repo = newElsewhere(from.repo, append(repositories(list), from.repo)...)
		again.mended = true
		r.log.Info("the source lacks content that other places proved: it is read there")
		moved = append(moved, r.deliver(ctx, again, group)...)
	}
	return moved
}

// sourceAtFault tells whether a copy failed for what the source lacks or has damaged.
func sourceAtFault(findings []replicator.Finding, err error) bool {
	if errors.Is(err, oci.ErrSourceIncomplete) {
		return true
	}
	return errors.Is(err, oci.ErrMismatch) && slices.ContainsFunc(findings, func(f replicator.Finding) bool {
		return f.Kind == replicator.FindingMismatch
	})
}

// rootOf reads the root of a delivery whose tag was only resolved, from another
// place where the source has its tag and no manifest.
func (r *run) rootOf(ctx context.Context, from delivery, targets []*target) (delivery, error) {
	root, err := from.repo.FetchManifest(ctx, from.root.Digest.String())
	if err == nil {
		from.root = root
		return from, nil
	}
	if !errors.Is(err, oci.ErrNotFound) && !errors.Is(err, oci.ErrMismatch) {
		return from, err
	}
	for _, t := range targets {
		list, herr := r.holders(ctx, r.state, t.job, from.root.Digest)
		if herr != nil || len(list) == 0 {
			continue
		}
		other := newElsewhere(from.repo, append(repositories(list), from.repo)...)
		if root, herr := other.FetchManifest(ctx, from.root.Digest.String()); herr == nil {
			r.note(t.job, r.finding(t.job, replicator.FindingSourceIncomplete,
				fmt.Sprintf("%s names %s by tag %s and does not give it: %s", from.place, from.root.Digest, from.tag, err),
				"it is read from a destination that proved it; push the image to the source again, or restore what it lacks"))
			from.root, from.repo, from.mended = root, other, true
			return from, nil
		}
	}
	return from, err
}

// goneByDigest delivers a manifest that is wanted for itself from places that
// proved it, where its source is gone. It gives back the targets that have to
// wait for the source.
func (r *run) goneByDigest(ctx context.Context, src *Registry, targets []*target, why error) (left []*target) {
	var lost []*target
	for _, t := range targets {
		if t.route.Untagged && r.sourceGone(src, t.route) {
			lost = append(lost, t)
		} else {
			left = append(left, t)
		}
	}
	if len(lost) == 0 {
		return left
	}
	wanted, place := lost[0].job.Digest, lost[0].job.Source
	lost = slices.DeleteFunc(lost, func(t *target) bool { return r.barred(ctx, t, wanted) })
	return append(left, r.fromElsewhere(ctx, delivery{src: src, place: place, gone: true}, wanted, lost, why)...)
}
