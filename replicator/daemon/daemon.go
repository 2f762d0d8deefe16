// Package daemon joins the rooms: it takes jobs from the journal, has transfer
// copy and verify prove, moves tags, retries, sweeps on schedule, probes
// registries that are down, and swaps to a new state on reload. It owns the
// goroutines.
package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/limit"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/plan"
	"github.com/twinport/twinport/replicator/transfer"
	"github.com/twinport/twinport/replicator/verify"
)

// A State is all that a config decides; a reload builds a whole new one and
// swaps last.
type State struct {
	Rules      *plan.Rules
	Registries map[string]*Registry // by the config's name
	// RouteBandwidth are the routes' own caps, shared by their jobs.
	RouteBandwidth map[string]*limit.Bandwidth
	// Fed are the registries that some route brings images to.
	Fed map[string]bool
	// Fingerprint changes with the config and the version: refusals are
	// remembered under it.
	Fingerprint string
}

// A Registry is one registry of the state: its client, and the gate its
// requests go through.
type Registry struct {
	Name   string
	Client oci.Registry
	Gate   *limit.Registry
	// Queue is where its events are fetched from, nil: they come by webhook.
	Queue Queue
	// Poll is how often to look at it, 0: its events are told.
	Poll time.Duration
	// Prefix of its address: what a queue tells of names outside it is ignored.
	Prefix string
	// Print changes with everything the two are made of: a reload that leaves
	// it the same keeps them.
	Print string
}

// warm has n connections open for what is going to be asked in a moment.
func (r *Registry) warm(n int) {
	if r != nil && r.Gate != nil {
		r.Gate.Warm(n)
	}
}

// Options make a Daemon.
type Options struct {
	Journal *journal.Journal
	Copier  *transfer.Copier
	Log     *zap.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Jobs is how many claims run side by side (default 128): the limits of
	// the registries decide how many requests that makes.
	Jobs int
	// History is how long ended jobs, findings and audit entries are kept
	// (default 30 days).
	History time.Duration
	// OneShot switches schedule and pruning off: a command runs what it asks
	// for and ends.
	OneShot bool
}

// A Daemon runs jobs and sweeps. Its methods are safe for concurrent use.
type Daemon struct {
	journal *journal.Journal
	copier  *transfer.Copier
	log     *zap.Logger
	now     func() time.Time
	jobs    int
	history time.Duration
	oneShot bool
	room    int64 // laneFull, but for tests

	state atomic.Pointer[State]
	// swapped is closed and replaced at each reload.
	mu      sync.Mutex
	swapped chan struct{}
	// blobs are to be brought before their manifests come.
	blobs chan replicator.Blob
	// sweepNow asks for a sweep of routes out of turn.
	sweepNow map[string]chan sweepRequest
	// sweeping holds a token for each route: its sweeps never overlap.
	sweeping map[string]chan struct{}
	// seeding guards what is read and written of a sweep's state.
	seeding turn

	absent       absences
	companions   companions
	orphans      orphans
	givenUp      givenUp
	stalledAfter pager
	arrivals     arrivals
	unsettled    unsettled
	looks        looks
	suspects     suspects
	journey      counters
	running      runningJobs
	leases       leases
	shares       atomic.Int64   // replicas the budgets are divided among, as last told
	passing      sync.WaitGroup // requests to the leader under way
	rescued      rescued
	polls        polls
}

// New makes a daemon around a state; nothing runs yet.
func New(o Options, state *State) *Daemon {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Jobs == 0 {
		o.Jobs = 128
	}
	if o.History == 0 {
		o.History = 30 * 24 * time.Hour
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	d := &Daemon{
		journal: o.Journal, copier: o.Copier, log: o.Log, now: o.Now,
		jobs: o.Jobs, history: o.History, oneShot: o.OneShot, room: laneFull,
		swapped: make(chan struct{}), blobs: make(chan replicator.Blob, aheadWaiting), sweepNow: make(map[string]chan sweepRequest), sweeping: make(map[string]chan struct{}),
		seeding: newTurn(), suspects: suspects{reading: newTurn(), seen: verify.Seen{Now: o.Now}},
	}
	d.state.Store(state)
	return d
}

// State is what the current config decided.
func (d *Daemon) State() *State { return d.state.Load() }

// Configure tells the journal of the state: what joins what, and under which
// identities. It is called once before Run, and by Swap.
func (d *Daemon) Configure(ctx context.Context, actor string) error {
	return d.configure(ctx, d.State(), actor)
}

func (d *Daemon) configure(ctx context.Context, st *State, actor string) error {
	var registries []journal.Registry
	for _, name := range slices.Sorted(maps.Keys(st.Registries)) {
		registries = append(registries, journal.Registry{Name: name, Identity: st.Registries[name].Client.Identity()})
	}
	var routes []journal.Route
	for _, r := range st.Rules.Routes() {
		routes = append(routes, journal.Route{Name: r.Name, From: r.From, Destinations: r.To})
	}
	findings, err := d.journal.Configure(ctx, registries, routes, st.Fingerprint, actor)
	if err != nil {
		return fmt.Errorf("tell the journal of the config: %w", err)
	}
	for _, f := range findings {
		d.log.Warn("finding", zap.String("kind", string(f.Kind)), zap.String("registry", f.Registry), zap.String("message", f.Message))
	}
	return d.followRenamed(ctx, st)
}

// Swap changes to a new state: the jobs that run end under the old one.
func (d *Daemon) Swap(ctx context.Context, st *State, actor string) error {
	if err := d.configure(ctx, st, actor); err != nil {
		return err
	}
	d.mu.Lock()
	d.state.Store(st)
	close(d.swapped)
	d.swapped = make(chan struct{})
	d.mu.Unlock()
	d.Share()
	return nil
}

// Relieve closes the connections to registries that no request uses: the
// process has no descriptors left.
func (d *Daemon) Relieve() {
	for _, r := range d.State().Registries {
		r.Gate.CloseIdle()
	}
}

// reloaded is closed at the next reload.
func (d *Daemon) reloaded() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.swapped
}

// Run works until ctx ends, then lets the running jobs finish for at most
// grace and hands back the rest. It returns once nothing of it runs any more;
// the journal must still be running then.
func (d *Daemon) Run(ctx context.Context, grace time.Duration) error {
	d.Share()
	g, gctx := errgroup.WithContext(ctx)
	drained := make(chan struct{})
	g.Go(func() error {
		defer close(drained)
		return d.work(gctx, grace)
	})
	g.Go(func() error { return d.probe(gctx) })
	g.Go(func() error { return d.rescue(gctx) })
	g.Go(func() error { return d.beat(gctx, drained) })
	g.Go(func() error { return d.mindClock(gctx) })
	if !d.oneShot {
		g.Go(func() error { return d.leading(gctx, d.schedule) })
		g.Go(func() error { return d.leading(gctx, d.prune) })
		g.Go(func() error { return d.fetch(gctx) })
		g.Go(func() error { return d.lookAgain(gctx) })
		g.Go(func() error { return d.bringAhead(gctx) })
	}
	defer d.passing.Wait()
	return g.Wait()
}
