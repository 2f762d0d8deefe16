package daemon

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/sweep"
)

const (
	// headEvery is how much of a poll's interval pays for one HEAD: a poll
	// each 5 minutes sends at most 100, but minHeads always.
	headEvery = 3 * time.Second
	minHeads  = 20
	// spreadOver is the share of its interval that a poll takes: half of it.
	// One of fewer than spreadFrom requests is not worth spreading.
	spreadOver = 2
	spreadFrom = 30
	longestGap = time.Second
	// yieldWait is how often a poll looks whether the sweep it waits for is over.
	yieldWait = time.Second
	// longestPollWait bounds how far a poll that fails is put off.
	longestPollWait = time.Hour
	// maxToldFast is how many tags of one poll take the webhooks' lane: what is
	// more than that is no news but something that was missed.
	maxToldFast = 1000
	// causePoll is the cause of an event that a poll has brought.
	causePoll = "poll"
)

// A poller looks at one registry by itself, where nothing tells us of its
// pushes. Its polls never overlap, nor do they run beside a sweep of the same
// source, which sees all that a poll would.
type poller struct {
	*Daemon
	reg    *Registry
	log    *zap.Logger
	memory *sweep.PollMemory
	last   time.Time // when the last look began, ours or a sweep's
	asked  int64     // requests of the last poll
	failed int       // polls in a row
	told   bool      // that it fails for good
}

// poll polls a registry until ctx ends.
func (d *Daemon) poll(ctx context.Context, reg *Registry) {
	p := &poller{
		Daemon: d, reg: reg, memory: sweep.NewPollMemory(), last: d.now(),
		log: d.log.With(zap.String("component", "poll"), zap.String("registry", reg.Name)),
	}
	// Whoever polls no more, since it does not lead any longer, tells of no age.
	defer d.polls.saw(reg.Name, time.Time{})
	wait := time.Duration(0)
	if d.sweptAll(reg.Name) {
		wait = p.jittered(reg.Poll) // the sweep at start sees all there is
	}
	for sleepFor(ctx, wait) {
		if busy, swept := p.sweeping(ctx); busy {
			wait = yieldWait
			continue
		} else if swept.After(p.last) {
			p.last = swept
			p.polls.saw(reg.Name, swept)
			wait = p.jittered(p.last.Add(reg.Poll).Sub(d.now()))
			continue
		}
		if _, down := reg.Gate.Down(); down {
			wait = p.jittered(reg.Poll) // the probe's, and the sweep's once it is back
			continue
		}
		wait = p.once(ctx)
	}
}

// sleepFor tells whether ctx goes on after a while.
func sleepFor(ctx context.Context, wait time.Duration) bool {
	if wait <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}

// jittered keeps the polls of many daemons apart: a tenth more or less.
func (p *poller) jittered(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d - d/10 + rand.N(d/5+1)
}

// polled are the routes that a registry's polls look for.
func (d *Daemon) polled(registry string) (names []string) {
	for _, route := range d.State().Rules.Routes() {
		if route.From == registry {
			names = append(names, route.Name)
		}
	}
	return names
}

// sweptAll tells whether every route from a registry has sweeps.
func (d *Daemon) sweptAll(registry string) bool {
	for _, route := range d.State().Rules.Routes() {
		if route.From == registry && route.Sweep == 0 {
			return false
		}
	}
	return true
}

// sweeping tells whether a sweep of the source runs, and else since when the
// sweeps that have ended make a poll unnecessary.
func (p *poller) sweeping(ctx context.Context) (busy bool, swept time.Time) {
	for i, name := range p.polled(p.reg.Name) {
		if p.turnTaken(name) {
			return true, time.Time{}
		}
		complete := p.sweptSince(ctx, name)
		if i == 0 || complete.Before(swept) {
			swept = complete
		}
	}
	return false, swept
}

// sweptSince is when the last sweep of a route that compared it with every
// destination began, zero: there was none.
func (d *Daemon) sweptSince(ctx context.Context, name string) (since time.Time) {
	route, ok := d.State().Rules.Route(name)
	if !ok {
		return time.Time{}
	}
	for i, to := range route.To {
		s, err := d.journal.SweepState(ctx, name, to)
		if err != nil {
			return time.Time{}
		}
		if i == 0 || s.CompleteStart.Before(since) {
			since = s.CompleteStart
		}
	}
	return since
}

func (d *Daemon) turnTaken(route string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.sweeping[route]) > 0
}

// once polls and says how long to wait for the next poll.
func (p *poller) once(ctx context.Context) time.Duration {
	began := p.now()
	before := p.last
	result, requests, err := p.look(ctx, before)
	p.polls.sent(p.reg.Name, requests)
	if ctx.Err() != nil {
		return 0
	}
	took := p.now().Sub(began)
	fields := []zap.Field{
		zap.Int64("repositories", result.Repositories), zap.Int64("tags", result.Tags), zap.Int64("moved", result.Moved),
		zap.Int64("heads", result.Heads), zap.Int64("requests", requests), zap.Duration("elapsed", took),
	}
	if fault := errors.Join(err, result.Sources); fault != nil {
		p.failed++
		wait := p.putOff(fault)
		p.log.Warn("polled in part", append(fields, zap.Duration("again", wait), zap.Error(fault))...)
		if !p.told && (needsSomebody(fault) || errors.Is(fault, oci.ErrUnlistable)) {
			p.told = p.tellOfEvents(ctx, p.reg, "polled", fault) == nil
		}
		return wait
	}
	p.failed, p.told, p.asked = 0, false, requests
	p.log.Debug("polled", fields...)
	if result.Stopped {
		return yieldWait
	}
	p.last = began
	p.polls.saw(p.reg.Name, began)
	return p.jittered(max(p.reg.Poll-took, p.reg.Poll/10))
}

// putOff is the wait after a poll that failed: twice as long each time, and
// never shorter than what the registry asks for.
func (p *poller) putOff(err error) time.Duration {
	wait := p.reg.Poll
	for range min(p.failed-1, 10) {
		wait = min(2*wait, max(p.reg.Poll, longestPollWait))
	}
	var throttled *oci.ThrottledError
	if errors.As(err, &throttled) {
		wait = max(wait, min(throttled.Wait, longestWait))
	}
	return p.jittered(wait)
}

// look makes one poll: what is new or was moved comes in by the door that
// webhooks use.
func (p *poller) look(ctx context.Context, before time.Time) (sweep.PollResult, int64, error) {
	var requests atomic.Int64
	ctx = oci.WithBackground(oci.WithTally(ctx, &requests))
	st := p.State()
	names := p.polled(p.reg.Name)
	gap := time.Duration(0)
	if p.asked >= spreadFrom {
		gap = min(p.reg.Poll/spreadOver/time.Duration(p.asked), longestGap)
	}
	told := 0
	req := sweep.PollRequest{
		SourceName: p.reg.Name, Source: p.reg.Client, Rules: st.Rules, States: p.journal, Memory: p.memory,
		Heads:   max(int(p.reg.Poll/headEvery), minHeads),
		TempDir: filepath.Dir(p.journal.Path()), Now: p.now,
		Pace: func(ctx context.Context) error {
			if !sleepFor(ctx, gap) {
				return context.Cause(ctx)
			}
			return nil
		},
		Stop: func() bool { return slices.ContainsFunc(names, p.turnTaken) },
	}
	since := make(map[string]time.Time, len(names))
	for _, name := range names {
		since[name] = p.sweptSince(ctx, name)
		req.Routes = append(req.Routes, sweep.PolledRoute{Name: name, Swept: p.isSeeded(ctx, name), Since: since[name]})
	}
	req.Emit = func(ctx context.Context, moved []sweep.Moved) error {
		events := make([]replicator.Event, len(moved))
		for i, m := range moved {
			events[i] = p.event(st, m, before, since)
			if told++; told > maxToldFast {
				events[i].Lane = replicator.LaneSweep
			}
			p.log.Debug("found", zap.String("repository", m.Repository), zap.String("tag", m.Tag.Name), zap.String("digest", m.Tag.Digest.String()))
		}
		return p.acceptPatiently(ctx, events)
	}
	result, err := sweep.Poll(ctx, req)
	return result, requests.Load(), err
}

// isSeeded tells whether all that a route wants was proven once: what is then
// not known is new.
func (d *Daemon) isSeeded(ctx context.Context, name string) bool {
	route, ok := d.State().Rules.Route(name)
	if !ok {
		return false
	}
	for _, to := range route.To {
		if s, err := d.journal.SweepState(ctx, name, to); err != nil || !s.Seeded {
			return false
		}
	}
	return true
}

// event makes an event of what a poll has found. Its time is the listing's, or
// else that of the last look that had not seen it; it lies after what was known
// before, so that the next look knows it.
func (p *poller) event(st *State, m sweep.Moved, before time.Time, since map[string]time.Time) replicator.Event {
	now := p.now()
	at := m.Tag.PushedAt
	if at.IsZero() || m.Known != nil && !at.After(m.Known.At) || at.After(now) {
		at = before
		for _, name := range m.Routes {
			if since[name].After(at) {
				at = since[name]
			}
		}
	}
	if at.IsZero() || at.After(now) {
		at = now
	}
	if m.Known != nil && !at.After(m.Known.At) {
		at = m.Known.At.Add(time.Microsecond)
	}
	ev := replicator.Event{
		Action: replicator.Push, Registry: p.reg.Name, Repository: m.Repository, Tag: m.Tag.Name, Digest: m.Tag.Digest,
		PushedAt: at, ReceivedAt: now, Lane: replicator.LaneWebhook, Cause: causePoll,
	}
	for _, name := range m.Routes {
		if route, ok := st.Rules.Route(name); ok {
			ev.Destinations = append(ev.Destinations, route.To...)
		}
	}
	return ev
}
