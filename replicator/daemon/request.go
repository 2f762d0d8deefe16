package daemon

import (
	"context"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/limit"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/transfer"
)

// A copyRequest is transfer's request under the context of its routes' caps.
type copyRequest struct {
	transfer.Request
	ctx context.Context
}

// A way is one destination of a copy and the route that leads there.
type way struct {
	route string
	place replicator.Place
	repo  oci.Repository
}

// requestTo gives a request its destinations, with what the journal knows of
// their blobs, and the caps of the routes that lead there.
func (d *Daemon) requestTo(ctx context.Context, st *State, req transfer.Request, ways []way) copyRequest {
	var caps []*limit.Bandwidth
	for _, w := range ways {
		known := newLocator(d.journal, w.place)
		req.Destinations = append(req.Destinations, transfer.Destination{
			Identity: w.place.Identity, Repository: w.repo,
			MountFrom: known.elsewhere, Present: known.here,
		})
		caps = append(caps, st.RouteBandwidth[w.route])
	}
	return copyRequest{Request: req, ctx: limit.WithBandwidth(ctx, caps...)}
}
