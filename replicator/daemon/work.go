package daemon

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// stallAfter is the progress deadline of a job: this long without a step
	// ends it. There is no total one.
	stallAfter = 10 * time.Minute
	// closingWrite bounds the journal write that ends a claim.
	closingWrite = 30 * time.Second
	// idlePoll is the longest the claim loop waits without any sign.
	idlePoll = 5 * time.Second
	// firstBusy and lastBusy bound the wait after a claim the journal refused.
	firstBusy, lastBusy = 50 * time.Millisecond, 5 * time.Second
)

// runningJobs counts the claims in flight by lane group.
type runningJobs struct {
	mu                     sync.Mutex
	foreground, background int
}

// add gives how many there are then.
func (r *runningJobs) add(background bool, n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if background {
		r.background += n
	} else {
		r.foreground += n
	}
	return r.foreground + r.background
}

func (r *runningJobs) counts() (foreground, background int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.foreground, r.background
}

// work claims due jobs and runs them side by side until ctx ends; then it
// gives the running ones grace before they are handed back.
func (d *Daemon) work(ctx context.Context, grace time.Duration) error {
	jobs, cancelJobs := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancelJobs(nil)
	var running sync.WaitGroup
	freed := make(chan struct{}, 1)
	busy := firstBusy
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		claims, err := d.claim(ctx)
		switch {
		case ctx.Err() != nil:
			// What was claimed in the same moment is handed back below.
		case err != nil:
			d.log.Warn("claim jobs", zap.Error(err), zap.Duration("again", busy))
			timer.Reset(busy)
			busy = min(2*busy, lastBusy)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			continue
		default:
			busy = firstBusy
		}
		for _, c := range claims {
			if ctx.Err() != nil {
				d.release(ctx, c)
				continue
			}
			background := c.Jobs[0].Lane.Background()
			d.running.add(background, 1)
			running.Add(1)
			go func() {
				defer running.Done()
				d.run(jobs, c)
				if d.running.add(background, -1) < d.jobs/2 {
					return // nobody waits for a slot
				}
				select {
				case freed <- struct{}{}:
				default:
				}
			}()
		}
		if len(claims) > 0 {
			continue // there may be more
		}
		timer.Reset(d.untilDue(ctx))
		select {
		case <-ctx.Done():
		case <-d.journal.Changed():
		case <-freed:
		case <-timer.C:
		}
	}
	stop := time.AfterFunc(grace, func() { cancelJobs(errHandedBack) })
	running.Wait()
	stop.Stop()
	return nil
}

// claim asks for as many claims as there are free slots: background lanes may
// have three quarters of them, the others seven eighths, so that neither
// starves the other for good.
func (d *Daemon) claim(ctx context.Context) ([]journal.Claim, error) {
	foreground, background := d.running.counts()
	o := journal.ClaimOptions{
		Max:           d.jobs - foreground - background,
		MaxForeground: d.jobs - d.jobs/8 - foreground,
		MaxBackground: d.jobs - d.jobs/4 - background,
		Down:          d.down(),
		Elsewhere:     d.rescued.all(),
		Now:           d.now(),
	}
	if o.Max <= 0 || (o.MaxForeground <= 0 && o.MaxBackground <= 0) {
		return nil, nil
	}
	// A claim that commits must be known here, however long that takes and
	// whatever ends meanwhile: nobody else would ever run what it has taken.
	return d.journal.Claim(context.WithoutCancel(ctx), o)
}

// down are the identities of the registries whose breaker is open.
func (d *Daemon) down() []string {
	var down []string
	for _, r := range d.State().Registries {
		if _, open := r.Gate.Down(); open {
			down = append(down, r.Client.Identity())
		}
	}
	slices.Sort(down)
	return down
}

func (d *Daemon) untilDue(ctx context.Context) time.Duration {
	due, err := d.journal.NextDue(ctx)
	if err != nil || due.IsZero() {
		return idlePoll
	}
	// A row that is due but was not claimed (its registry is down, its route
	// paused, no slot free) is not asked for in a busy loop.
	return min(max(due.Sub(d.now()), 20*time.Millisecond), idlePoll)
}

// run works on one claim and writes down what came of it.
func (d *Daemon) run(ctx context.Context, c journal.Claim) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(stallAfter, func() { cancel(errStalled) })
	defer watchdog.Stop()
	defer d.leases.hold(c.Epoch, cancel)()
	if c.Jobs[0].Lane.Background() {
		ctx = oci.WithBackground(ctx)
	}
	first := c.Jobs[0]
	ctx = oci.WithJob(ctx, first.ID)
	log := d.log.With(zap.String("component", "job"), zap.String("job", first.ID),
		zap.String("source", first.Source.String()), zap.String("tag", first.Tag))

	r := &run{
		Daemon: d, state: d.State(), claim: c, log: log,
		step:     func() { watchdog.Reset(stallAfter) },
		outcomes: make(map[string]*journal.Outcome, len(c.Jobs)),
	}
	r.warm()
	r.process(ctx)
	d.finish(ctx, c, r.list(), log)
	for _, end := range r.ended {
		end()
	}
}

// usualBlobs is how many requests at once a claim is expected to begin with at
// each end: an image has some layers, and the referrers are asked for beside them.
const usualBlobs = 6

// warm opens connections while the tag is still being read: after a quiet time
// the blobs would wait for handshakes otherwise.
func (r *run) warm() {
	r.state.Registries[r.claim.Jobs[0].Source.Registry].warm(usualBlobs)
	for _, j := range r.claim.Jobs {
		r.state.Registries[j.Destination.Registry].warm(usualBlobs)
	}
}

// finish writes a claim's outcomes. A journal that cannot take them now, for a
// disk that is full or a database that is away, is asked again for as long as
// that lasts: the jobs are ours, and nobody else would have them run again.
func (d *Daemon) finish(ctx context.Context, c journal.Claim, outcomes []journal.Outcome, log *zap.Logger) {
	jobs := ctx // ends when running jobs have to
	ctx = context.WithoutCancel(jobs)
	began, wait := d.now(), firstBusy
	for {
		fctx, cancel := context.WithTimeout(ctx, closingWrite)
		err := d.journal.Finish(fctx, c, outcomes)
		cancel()
		if jobs.Err() == nil {
			began = d.now() // from when on jobs have to end
		}
		over := d.now().Sub(began) >= closingWrite
		switch {
		case err == nil:
			d.count(c, outcomes)
			d.sweepDoubted(outcomes)
			return
		case errors.Is(err, journal.ErrFenced), errors.Is(err, journal.ErrClosed), over:
			log.Warn("the outcome of a job was not written; it will run again", zap.Error(err))
			return
		}
		log.Warn("write the outcome of a job", zap.Error(err), zap.Duration("again", wait))
		time.Sleep(wait)
		wait = min(2*wait, lastBusy)
	}
}

// sweepDoubted asks for sweeps of the routes to registries that are not
// believed any more.
func (d *Daemon) sweepDoubted(outcomes []journal.Outcome) {
	doubted := make(map[string]bool)
	for _, o := range outcomes {
		for _, identity := range o.Distrust {
			doubted[identity] = true
		}
		for _, p := range o.Void {
			doubted[p.Identity] = true
		}
	}
	if len(doubted) == 0 {
		return
	}
	st := d.State()
	for _, route := range st.Rules.Routes() {
		if slices.ContainsFunc(route.To, func(to string) bool { return doubted[st.Registries[to].Client.Identity()] }) {
			d.askSweep(route.Name)
		}
	}
}

func (d *Daemon) release(ctx context.Context, c journal.Claim) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closingWrite)
	defer cancel()
	if err := d.journal.Release(ctx, c); err != nil {
		d.log.Warn("hand back a claim", zap.Error(err))
	}
}

// beat renews the replica's lease until the last job has ended or is handed
// back, which is after ctx has.
func (d *Daemon) beat(ctx context.Context, drained <-chan struct{}) error {
	ticker := time.NewTicker(d.journal.RenewEvery())
	defer ticker.Stop()
	for {
		select {
		case <-drained:
			return nil
		case <-ticker.C:
			hctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			d.heartbeat(hctx)
			cancel()
		}
	}
}

// probe asks a registry whose breaker is open once in ten seconds; when it
// answers, its jobs are due at once.
func (d *Daemon) probe(ctx context.Context) error {
	const every = 10 * time.Second
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	asked := make(map[string]time.Time)
	var probes sync.WaitGroup
	defer probes.Wait()
	var mu sync.Mutex
	inFlight := make(map[string]bool)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		registries := d.State().Registries
		for _, name := range slices.Sorted(maps.Keys(registries)) {
			r := registries[name]
			since, open := r.Gate.Down()
			if !open {
				if _, was := asked[name]; was {
					// It closed by itself (a job's ping): wake its jobs too.
					delete(asked, name)
					d.wake(ctx, r)
				}
				continue
			}
			last, ok := asked[name]
			if !ok {
				d.log.Warn("registry unreachable, its jobs wait", zap.String("registry", name), zap.Time("since", since))
				last = since
				asked[name] = since
			}
			mu.Lock()
			flying := inFlight[name]
			mu.Unlock()
			if flying || d.now().Sub(last) < every {
				continue
			}
			asked[name] = d.now()
			mu.Lock()
			inFlight[name] = true
			mu.Unlock()
			probes.Add(1)
			go func() {
				defer probes.Done()
				pctx, cancel := context.WithTimeout(ctx, every)
				defer cancel()
				err := r.Client.Ping(pctx)
				d.log.Debug("probe", zap.String("registry", name), zap.Error(err))
				mu.Lock()
				delete(inFlight, name)
				mu.Unlock()
			}()
		}
	}
}

func (d *Daemon) wake(ctx context.Context, r *Registry) {
	d.log.Info("registry reachable again", zap.String("registry", r.Name))
	if err := d.journal.Wake(ctx, r.Client.Identity()); err != nil {
		d.log.Warn("wake the jobs of a registry", zap.String("registry", r.Name), zap.Error(err))
	}
	for _, route := range d.State().Rules.Routes() {
		if route.From == r.Name {
			d.askSweep(route.Name)
			continue
		}
		for _, to := range route.To {
			if to == r.Name {
				d.askSweep(route.Name)
			}
		}
	}
}

// putOff is longer than any wait that a job is given.
const putOff = 4 * longestWait

// mindClock has no job wait for as long as the clock was set back by: times of
// attempts are the wall clock's, and the journal keeps them over restarts.
func (d *Daemon) mindClock(ctx context.Context) error {
	ticker := time.NewTicker(15 * time.Second)
	defer ticker.Stop()
	for {
		n, err := d.journal.PullIn(ctx, d.now().Add(putOff))
		if err != nil && ctx.Err() == nil {
			d.log.Warn("look after the clock", zap.Error(err))
		}
		if n > 0 {
			d.log.Warn("jobs that would have waited for hours are due: the clock has been set back", zap.Int64("jobs", n))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// prune ages what the journal keeps, once an hour.
func (d *Daemon) prune(ctx context.Context) error {
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	for {
		if err := d.journal.Prune(ctx, d.now(), d.history); err != nil && ctx.Err() == nil {
			d.log.Warn("prune the journal", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// count adds a claim's outcomes to the process's totals and tells the log.
func (d *Daemon) count(c journal.Claim, outcomes []journal.Outcome) {
	for _, o := range outcomes {
		for _, j := range c.Jobs {
			if j.ID == o.ID {
				d.tell(j, o)
			}
		}
	}
}

func (d *Daemon) tell(j replicator.Job, o journal.Outcome) {
	fields := []zap.Field{
		zap.String("component", "job"), zap.String("job", j.ID), zap.Int("attempt", j.Attempts+1),
		zap.String("source", j.Source.String()), zap.String("destination", j.Destination.String()),
		zap.String("tag", j.Tag), zap.String("digest", o.Digest.String()),
	}
	if o.Error != nil {
		fields = append(fields, zap.String("kind", o.Error.Kind), zap.String("error", o.Error.Message))
	}
	if o.State != replicator.Waiting {
		d.journey.ended()
	}
	unconfirmed := o.Error != nil && o.Error.Kind == kindUnconfirmed
	switch o.State {
	case replicator.Done:
		if len(o.Records) > 0 {
			d.log.Info("proven", append(fields, zap.Duration("lag", max(d.now().Sub(j.BehindSince), 0)))...)
			d.journey.proven(j, d.now())
		}
	case replicator.Waiting:
		if unconfirmed {
			if len(o.Records) > 0 {
				d.log.Info("moved without the source", fields...)
			}
			break
		}
		level := zap.WarnLevel
		if o.Error != nil && o.Error.Kind == kindUnsettled {
			level = zap.DebugLevel // an event that came before its tag is nothing to worry about
		}
		d.log.Log(level, "will retry", append(fields, zap.Time("next", o.NextAttempt))...)
	case replicator.Failed, replicator.Refused:
		d.log.Error("gave up", fields...)
	default:
		d.log.Info("ended", append(fields, zap.String("state", string(o.State)))...)
	}
	for _, f := range o.Findings {
		d.log.Warn("finding", zap.String("kind", string(f.Kind)), zap.String("registry", f.Registry),
			zap.String("repository", f.Repository), zap.String("tag", f.Tag), zap.String("message", f.Message))
	}
}
