package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/plan"
	"github.com/twinport/twinport/replicator/sweep"
)

// An Action is what a sync would do about one tag.
type Action struct {
	Route, Destination, Repository, DestinationRepository, Tag string
	Digest                                                     digest.Digest
	// Action is copy, move, create, delete, refuse or skip.
	Action string
	Reason string
	// Bytes is the size of the image at the source: an upper bound of what is copied.
	Bytes int64
}

// Plan computes what a sync of the routes would do, and how many requests that
// took to find out. Each action is handed to show as it is found, one at a time;
// its error ends the plan.
func (d *Daemon) Plan(ctx context.Context, names []string, show func(Action) error) (requests int64, err error) {
	st := d.State()
	selected, err := routes(st, names)
	if err != nil {
		return 0, err
	}
	var made atomic.Int64
	ctx = oci.WithTally(ctx, &made)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var unshown error
	tell := func(a Action) {
		mu.Lock()
		defer mu.Unlock()
		if unshown != nil {
			return
		}
		if unshown = show(a); unshown != nil {
			cancel(unshown)
		}
	}
	var g errgroup.Group
	g.SetLimit(4)
	errs := make([]error, len(selected))
	for i, route := range selected {
		g.Go(func() error {
			errs[i] = d.planRoute(ctx, st, route, tell)
			return nil
		})
	}
	_ = g.Wait() // each route's error is kept beside the others'
	if unshown != nil {
		return made.Load(), unshown
	}
	return made.Load(), errors.Join(errs...)
}

func (d *Daemon) planRoute(ctx context.Context, st *State, route plan.Route, tell func(Action)) error {
	req := d.sweepRequestFor(st, route, SweepOptions{Route: route.Name})
	req.Present = true
	req.Skip = func(s sweep.Skipped) {
		tell(Action{Route: route.Name, Repository: s.Repository, Tag: s.Tag, Digest: s.Digest, Action: "skip", Reason: s.Reason})
	}
	var made creations
	req.Emit = func(ctx context.Context, found []sweep.Difference) error {
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(16)
		for _, f := range found {
			g.Go(func() error {
				a, err := d.action(gctx, st, route, f)
				if err != nil || a.Action == "" {
					return err
				}
				if a.Action == "copy" {
					if err := made.tell(gctx, st, a, tell); err != nil {
						return err
					}
				}
				tell(a)
				return nil
			})
		}
		return g.Wait()
	}
	var leaving *plannedDeletions
	if route.Deletes.Mirror {
		leaving = d.plannedDeletions(st, route, tell)
		req.Departed = leaving.note
	}
	result, err := sweep.Sweep(ctx, req)
	for _, name := range slices.Sorted(maps.Keys(result.Failed)) {
		err = errors.Join(err, fmt.Errorf("%s: %w", name, result.Failed[name]))
	}
	if err == nil && !result.Complete {
		err = errors.Join(errIncomplete, result.Sources)
	}
	if leaving != nil && result.Complete {
		err = errors.Join(err, leaving.carry(ctx, result.Failed))
	}
	if err != nil {
		return fmt.Errorf("route %s: %w", route.Name, err)
	}
	return nil
}

// creations are the destination repositories that were looked at.
type creations struct {
	mu   sync.Mutex
	seen map[string]bool
}

// tell shows, once for each, the repositories that a copy would make.
func (c *creations) tell(ctx context.Context, st *State, a Action, tell func(Action)) error {
	repo := st.Registries[a.Destination].Client.Repository(a.DestinationRepository)
	maker, ok := repo.(oci.RepositoryMaker)
	key := a.Destination + "/" + a.DestinationRepository
	c.mu.Lock()
	if c.seen == nil {
		c.seen = make(map[string]bool)
	}
	seen := c.seen[key]
	c.seen[key] = true
	c.mu.Unlock()
	if seen || !ok {
		return nil
	}
	switch would, err := maker.WouldCreate(ctx); {
	case errors.Is(err, oci.ErrRefused):
		tell(Action{
			Route: a.Route, Destination: a.Destination, Repository: a.Repository, DestinationRepository: a.DestinationRepository,
			Action: "refuse", Reason: err.Error(),
		})
	case err != nil:
		return fmt.Errorf("destination repository %s: %w", a.DestinationRepository, err)
	case would:
		tell(Action{
			Route: a.Route, Destination: a.Destination, Repository: a.Repository, DestinationRepository: a.DestinationRepository,
			Action: "create", Reason: "the destination lacks the repository",
		})
	}
	return nil
}

// action says what a difference would lead to; a destination that turns out to
// be right is none.
func (d *Daemon) action(ctx context.Context, st *State, route plan.Route, f sweep.Difference) (Action, error) {
	a := Action{
		Route: route.Name, Destination: f.Destination, Repository: f.SourceRepository,
		DestinationRepository: f.DestinationRepository, Tag: f.Tag, Digest: f.Digest, Reason: string(f.Reason),
	}
	src := st.Registries[route.From].Client.Repository(f.SourceRepository)
	dst := st.Registries[f.Destination].Client
	switch f.Present {
	case f.Digest:
		// The tag is right; a sync would read it back, which changes nothing.
		return Action{}, nil
	case "":
		a.Action = "copy"
	default:
		a.Action = "move"
		action, reason, err := d.plannedBetween(ctx, st, route, f)
		if err != nil {
			return a, err
		}
		if action != "" {
			a.Action, a.Reason = action, reason
			return a, nil
		}
		record, ok, err := d.journal.Record(ctx, dst.Identity(), f.DestinationRepository, f.Tag)
		if err != nil {
			return a, err
		}
		if ok && record.Digest == f.Digest && route.Drift != "overwrite" {
			a.Action, a.Reason = "skip", "the destination's tag was moved by somebody else; `drift: keep`"
			return a, nil
		}
		if ok && record.Unconfirmed && record.Digest == f.Present {
			a.Reason += "; it was moved there while the source did not answer"
		}
	}
	root, err := src.FetchManifest(ctx, f.Digest.String())
	if err != nil {
		if errors.Is(err, oci.ErrNotFound) {
			a.Action, a.Reason = "skip", "the source no longer has it"
			return a, nil
		}
		return a, err
	}
	refs, err := oci.ParseReferences(root)
	if err != nil {
		a.Action, a.Reason = "refuse", err.Error()
		return a, nil
	}
	a.Bytes = int64(len(root.Bytes))
	for _, desc := range refs.Blobs {
		a.Bytes += desc.Size
	}
	for _, desc := range refs.Manifests {
		child, err := src.FetchManifest(ctx, desc.Digest.String())
		if err != nil {
			if errors.Is(err, oci.ErrNotFound) {
				a.Action, a.Reason = "refuse", fmt.Sprintf("the source lacks its child %s", desc.Digest)
				return a, nil
			}
			return a, err
		}
		a.Bytes += int64(len(child.Bytes))
		if crefs, err := oci.ParseReferences(child); err == nil {
			for _, blob := range crefs.Blobs {
				a.Bytes += blob.Size
			}
		}
	}
	return a, nil
}
