package daemon

import (
	"context"
	"slices"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/plan"
	"github.com/twinport/twinport/replicator/transfer"
)

const (
	// aheadWaiting bounds the blobs that wait to be brought ahead; those told
	// of beyond it come with their manifest. aheadAtOnce are under way.
	aheadWaiting = 64
	aheadAtOnce  = 8
)

// Ahead takes hints of blobs that a source was given just now: their manifest
// comes in a moment, at the end of the push, and finds them at the destinations
// already, or on their way. It never waits: a hint that finds no room is
// dropped. Nothing is promised and nothing written down: whether a manifest has
// all its blobs is for its own job to see to. Replicas leave it be: the job may
// be another's, which would not know of what is under way.
func (d *Daemon) Ahead(blobs []replicator.Blob) {
	if d.journal.Shared() {
		return
	}
	for _, b := range blobs {
		select {
		case d.blobs <- b:
		default:
			return
		}
	}
}

// bringAhead brings the blobs of hints to where they are going to be wanted.
func (d *Daemon) bringAhead(ctx context.Context) error {
	var group errgroup.Group
	group.SetLimit(aheadAtOnce)
	defer func() { _ = group.Wait() }() // nobody returns one
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-d.blobs:
			group.Go(func() error {
				d.bringBlob(ctx, b)
				return nil
			})
		}
	}
}

func (d *Daemon) bringBlob(ctx context.Context, b replicator.Blob) {
	st := d.State()
	src, ways := st.Registries[b.Registry], d.waysAhead(ctx, st, b)
	if src == nil || len(ways) == 0 {
		return
	}
	src.warm(usualBlobs)
	to := make([]way, len(ways))
	for i, w := range ways {
		dst := st.Registries[w.Destination.Registry]
		dst.warm(usualBlobs)
		to[i] = way{route: w.Route, place: w.Destination, repo: dst.Client.Repository(w.Destination.Repository)}
	}
	request := d.requestTo(ctx, st, transfer.Request{
		SourceIdentity: ways[0].Source.Identity, Source: src.Client.Repository(b.Repository),
		Progress: d.journey.progress,
	}, to)
	results := d.copier.CopyBlob(request.ctx, request.Request, v1.Descriptor{Digest: b.Digest, Size: b.Size})
	for i, r := range results {
		d.journey.copied(ways[i].Route, ways[i].Destination.Registry, r.UploadedBytes)
		if r.Err != nil {
			d.log.Debug("a blob was not brought ahead of its manifest",
				zap.String("destination", ways[i].Destination.String()), zap.String("digest", b.Digest.String()), zap.Error(r.Err))
		}
	}
}

// waysAhead are those of the plan that nothing stands against now.
func (d *Daemon) waysAhead(ctx context.Context, st *State, b replicator.Blob) []plan.Ahead {
	ways := st.Rules.Ahead(b)
	if len(ways) == 0 {
		return nil
	}
	paused, err := d.journal.Paused(ctx)
	if err != nil {
		return nil
	}
	down := d.down()
	return slices.DeleteFunc(ways, func(way plan.Ahead) bool {
		return paused[way.Route] || slices.Contains(down, way.Source.Identity) || slices.Contains(down, way.Destination.Identity)
	})
}
