package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// leadLook is how often a replica looks whether it leads.
	leadLook = 200 * time.Millisecond
	// leaseLook is how often a job that is about to move a tag looks whether
	// the database is back.
	leaseLook = 100 * time.Millisecond
)

// errFenced ends the jobs of a lease that is lost: they are others' by now.
var errFenced = errors.New("the lease was lost to another replica")

// leases are the running jobs' cancel functions, by the lease they run under.
type leases struct {
	mu   sync.Mutex
	next int
	by   map[int]lessee
}

type lessee struct {
	epoch  int64
	cancel context.CancelCauseFunc
}

// hold notes a job that runs; the function it gives back ends that.
func (h *leases) hold(epoch int64, cancel context.CancelCauseFunc) (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.by == nil {
		h.by = make(map[int]lessee)
	}
	h.next++
	n := h.next
	h.by[n] = lessee{epoch, cancel}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.by, n)
	}
}

// fence ends the jobs of all leases but one, and tells how many those were.
func (h *leases) fence(but int64) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, one := range h.by {
		if one.epoch != but {
			one.cancel(errFenced)
			n++
		}
	}
	return n
}

// heartbeat renews the lease, and divides the registries' budgets among those
// that live now.
func (d *Daemon) heartbeat(ctx context.Context) {
	err := d.journal.Heartbeat(ctx)
	switch {
	case errors.Is(err, journal.ErrFenced):
		n := d.leases.fence(d.journal.Epoch())
		d.log.Warn("the lease was lost: another replica has taken this one's jobs", zap.Int("jobs", n), zap.Error(err))
	case err != nil:
		d.log.Warn("renew the lease", zap.Error(err))
	}
	d.Share()
}

// Share divides what the registries bear among the replicas that work.
func (d *Daemon) Share() {
	if !d.journal.Shared() {
		return
	}
	n := d.journal.Sharers()
	if was := d.shares.Swap(int64(n)); was != int64(n) {
		d.log.Info("the registries' budgets are divided anew", zap.Int("replicas", n))
	}
	st := d.State()
	for _, r := range st.Registries {
		r.Gate.Share(n)
	}
	for _, b := range st.RouteBandwidth {
		b.Share(n)
	}
}

// Stay keeps this process among the replicas until ctx ends, for a command
// that runs no jobs.
func (d *Daemon) Stay(ctx context.Context) {
	d.Share()
	_ = d.beat(ctx, ctx.Done()) // which only ends
}

// leading runs f while this process is the one that sweeps and prunes; alone,
// it is.
func (d *Daemon) leading(ctx context.Context, f func(context.Context) error) error {
	if !d.journal.Shared() {
		return f(ctx)
	}
	for d.awaitLead(ctx, true) {
		lctx, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- f(lctx) }()
		d.awaitLead(ctx, false)
		cancel()
		if err := <-ended; err != nil {
			return err
		}
	}
	return nil
}

// awaitLead waits until it leads, or no longer does; false: ctx has ended.
func (d *Daemon) awaitLead(ctx context.Context, leads bool) bool {
	ticker := time.NewTicker(leadLook)
	defer ticker.Stop()
	for d.journal.Leads() != leads {
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
	return ctx.Err() == nil
}

// passOn has the leader sweep what is asked for here; false: we lead.
func (d *Daemon) passOn(route string) bool {
	if d.journal.Leads() {
		return false
	}
	r, ok := d.State().Rules.Route(route)
	if !ok {
		return true
	}
	d.passing.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closingWrite)
		defer cancel()
		if _, err := d.journal.Accept(ctx, journal.Intake{SweepDue: []string{r.From}}); err != nil {
			d.log.Warn("ask the leader for a sweep", zap.String("route", route), zap.Error(err))
		}
	})
	return true
}

// awaitLease waits while the lease cannot be renewed because the database is
// away: what is copied stays, and its tag is moved when it is back. An error
// says that the claim is somebody else's.
func (r *run) awaitLease(ctx context.Context) error {
	if !r.journal.Shared() {
		return nil
	}
	ticker := time.NewTicker(leaseLook)
	defer ticker.Stop()
	for {
		until := r.journal.ClaimUntil(r.claim)
		switch {
		case until.IsZero():
			return fmt.Errorf("%w: %w", errFenced, oci.ErrInterrupted)
		case r.now().Before(until.Add(-leaseMargin)):
			return nil
		}
		r.step()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// late handles a PUT that ended, one way or another, after its lease: what it
// wrote may have come after another replica's move, or may come yet. Nothing
// can take it back, so the tag is looked at again by whoever has it now.
func (r *run) late(ctx context.Context, from delivery, t *target, until time.Time) {
	if !r.journal.Shared() || !r.journal.ClaimUntil(r.claim).IsZero() && r.now().Before(until) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stallAfter)
	defer cancel()
	job := t.job
	f := r.finding(job, replicator.FindingRegressed,
		fmt.Sprintf("a move of %s:%s to %s ended after its lease: the tag may have shown an older state", t.place, job.Tag, from.root.Digest),
		"the tag is looked at again at once; a replica that was frozen, or starved of CPU, does this")
	f.Registry, f.Repository, f.Digest = t.place.Registry, t.place.Repository, from.root.Digest
	intent := replicator.Intent{At: t.place.Identity, Old: t.present, New: from.root.Digest}
	wait := firstBusy
	for {
		err := r.journal.Late(ctx, job, intent, f)
		if err == nil {
			r.log.Warn("a tag's move ended after its lease; it is looked at again", zap.String("destination", t.place.String()))
			return
		}
		if errors.Is(err, journal.ErrClosed) || ctx.Err() != nil {
			r.log.Error("a tag's move ended after its lease, and nobody knows: the next sweep looks at it", zap.Error(err))
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		wait = min(2*wait, lastBusy)
	}
}
