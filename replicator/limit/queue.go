package limit

import (
	"container/list"
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/twinport/twinport/replicator/oci"
)

// fairness is how many foreground requests may pass a background one that waits.
const fairness = 7

// A queue hands out the slots of one registry. Who waits longest goes first,
// foreground before background; a quarter of the slots, of each class and of
// all, is closed to background requests, and every eighth slot is theirs while
// they wait, so that neither is starved.
type queue struct {
	connections int
	bucket      *rate.Limiter // nil: no rate
	rates       map[oci.Operation]float64
	resized     func(op oci.Operation, size int)
	whole       whole // of which the three above are our share

	mu         sync.Mutex
	classes    map[oci.Operation]*class
	inFlight   int
	background int
	arrivals   uint64
	passed     int // foreground grants since the last background one, while one waited
	timer      *time.Timer
	wakes      time.Time // when the timer does, where there is one
}

type class struct {
	op         oci.Operation
	bucket     *rate.Limiter // nil: no rate of its own
	window     window
	inFlight   int
	background int
	waiting    [2]list.List // of *waiter: foreground, background
}

type waiter struct {
	class      *class
	background bool
	arrival    uint64
	granted    chan error // one answer
	start      start
	place      *list.Element // nil: no longer waiting
}

// A permit is one slot, held until release.
type permit struct {
	queue      *queue
	class      *class
	background bool
	start      start
	once       sync.Once
}

func newQueue(connections int, perSecond float64, rates map[oci.Operation]float64, resized func(oci.Operation, int)) *queue {
	return &queue{
		connections: connections, bucket: newBucket(perSecond), rates: rates,
		classes: make(map[oci.Operation]*class), resized: resized,
		whole: whole{connections: connections, perSecond: perSecond, rates: rates, shares: 1},
	}
}

// newBucket gives a tenth of a second's worth at once: quotas are told per
// second. No rate is no bucket.
func newBucket(perSecond float64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), int(max(1, math.Ceil(perSecond/10))))
}

// class finds a class of operation, or makes it.
func (q *queue) class(op oci.Operation) *class {
	c := q.classes[op]
	if c == nil {
		c = &class{op: op, bucket: newBucket(q.rates[op]), window: newWindow(begins(op), q.atOnce(op))}
		q.classes[op] = c
		q.resized(op, c.window.whole())
	}
	return c
}

// begins is the first window of a class.
func begins(op oci.Operation) int {
	switch op {
	case oci.OpManifestHead, oci.OpManifestRead, oci.OpBlobHead, oci.OpList, oci.OpReferrers:
		return firstCheap
	}
	return firstWindow
}

// acquire waits for a slot.
func (q *queue) acquire(ctx context.Context, op oci.Operation, background bool) (*permit, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	q.mu.Lock()
	c := q.class(op)
	q.arrivals++
	w := &waiter{class: c, background: background, arrival: q.arrivals, granted: make(chan error, 1)}
	w.place = w.line().PushBack(w)
	q.dispatch()
	q.mu.Unlock()

	select {
	case err := <-w.granted:
		return w.permit(q, err)
	case <-ctx.Done():
	}
	q.mu.Lock()
	if w.place != nil {
		w.line().Remove(w.place)
		w.place = nil
		q.mu.Unlock()
	} else {
		q.mu.Unlock()
		if p, err := w.permit(q, <-w.granted); err == nil {
			p.release()
		}
	}
	return nil, fmt.Errorf("wait for a slot: %w", context.Cause(ctx))
}

func (w *waiter) permit(q *queue, err error) (*permit, error) {
	if err != nil {
		return nil, err
	}
	return &permit{queue: q, class: w.class, background: w.background, start: w.start}, nil
}

func (w *waiter) line() *list.List {
	if w.background {
		return &w.class.waiting[1]
	}
	return &w.class.waiting[0]
}

// dispatch grants what can be granted; q.mu is held.
func (q *queue) dispatch() {
	for {
		w, behind := q.next(false), q.next(true)
		if w == nil || (behind != nil && q.passed >= fairness) {
			w = behind
		}
		if w == nil || !q.allow(w.class) {
			return
		}
		switch {
		case w.background:
			q.passed = 0
		case behind != nil:
			q.passed++
		}
		w.line().Remove(w.place)
		w.place = nil
		w.start = w.class.window.start()
		w.class.inFlight++
		q.inFlight++
		if w.background {
			w.class.background++
			q.background++
		}
		w.granted <- nil
	}
}

// next is who has waited longest of those for whom there is room.
func (q *queue) next(background bool) *waiter {
	if q.inFlight >= q.connections || (background && q.background >= open(q.connections)) {
		return nil
	}
	var first *waiter
	now := time.Now()
	for _, c := range q.classes {
		line := &c.waiting[0]
		if background {
			line = &c.waiting[1]
		}
		size := c.window.whole()
		if line.Len() == 0 || c.inFlight >= size || (background && c.background >= open(size)) {
			continue
		}
		if wait := untilFull(c.bucket, now); wait > 0 {
			q.wake(now.Add(wait))
			continue
		}
		if w := line.Front().Value.(*waiter); first == nil || w.arrival < first.arrival {
			first = w
		}
	}
	return first
}

// open is how many of n slots background requests may hold.
func open(n int) int { return max(1, n-(n+3)/4) }

// allow takes a token of the class's bucket, which next has looked into, and of
// everybody's, or arranges to come back when there is one.
func (q *queue) allow(c *class) bool {
	now := time.Now()
	if wait := untilFull(q.bucket, now); wait > 0 {
		q.wake(now.Add(wait))
		return false
	}
	for _, bucket := range []*rate.Limiter{q.bucket, c.bucket} {
		if bucket != nil {
			bucket.AllowN(now, 1)
		}
	}
	return true
}

// untilFull is how long until a bucket holds a token, 0: it does.
func untilFull(bucket *rate.Limiter, now time.Time) time.Duration {
	if bucket == nil {
		return 0
	}
	lacks := 1 - bucket.TokensAt(now)
	if lacks <= 0 {
		return 0
	}
	return max(50*time.Microsecond, time.Duration(math.Ceil(lacks/float64(bucket.Limit())*1e9)))
}

// wake has dispatch look again at a time, unless it will sooner.
func (q *queue) wake(at time.Time) {
	if q.timer != nil {
		if !at.Before(q.wakes) {
			return
		}
		q.timer.Stop()
	}
	var timer *time.Timer
	timer = time.AfterFunc(time.Until(at), func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.timer == timer {
			q.timer = nil
		}
		q.dispatch()
	})
	q.timer, q.wakes = timer, at
}

// fail turns away all who wait.
func (q *queue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range q.classes {
		for i := range c.waiting {
			for e := c.waiting[i].Front(); e != nil; e = c.waiting[i].Front() {
				w := c.waiting[i].Remove(e).(*waiter)
				w.place = nil
				w.granted <- err
			}
		}
	}
}

// reset opens all windows anew.
func (q *queue) reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range q.classes {
		c.window.reset()
		q.resized(c.op, c.window.whole())
	}
	q.dispatch()
}

// answered lets the window learn; the slot stays held.
func (p *permit) answered(o outcome, latency time.Duration) {
	q, c := p.queue, p.class
	q.mu.Lock()
	defer q.mu.Unlock()
	before := c.window.whole()
	busy := c.inFlight >= before-before/4 || c.waiting[0].Len() > 0
	c.window.answered(p.start, o, busy, latency, time.Now())
	if after := c.window.whole(); after != before {
		q.resized(c.op, after)
		q.dispatch()
	}
}

// release gives the slot back, once.
func (p *permit) release() {
	p.once.Do(func() {
		q := p.queue
		q.mu.Lock()
		defer q.mu.Unlock()
		p.class.inFlight--
		q.inFlight--
		if p.background {
			p.class.background--
			q.background--
		}
		q.dispatch()
	})
}
