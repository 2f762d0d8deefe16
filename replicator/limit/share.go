package limit

import (
	"maps"

	"golang.org/x/time/rate"

	"github.com/twinport/twinport/replicator/oci"
)

// Share divides what the registry bears among n processes that ask it at the
// same time: this one takes an n-th of requests per second, of requests at once
// (one at least) and of bytes per second. It may be called at any time.
func (r *Registry) Share(n int) {
	for _, b := range r.bandwidth {
		b.Share(n)
	}
	r.requests.share(n)
	r.tokens.share(n)
}

// Share divides a cap among n processes.
func (b *Bandwidth) Share(n int) { b.shares.Store(int64(max(n, 1))) }

// share is a rate's part that is ours.
func (b *Bandwidth) share(bytesPerSecond float64) float64 {
	return bytesPerSecond / float64(max(b.shares.Load(), 1))
}

// A whole is what a queue gives out where nobody shares it.
type whole struct {
	connections int
	perSecond   float64
	rates       map[oci.Operation]float64
	shares      int
}

// share gives the queue an n-th of the whole. Slots that are held beyond it
// are not taken back: they are not given out again.
func (q *queue) share(n int) {
	n = max(n, 1)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.whole.shares == n {
		return
	}
	q.whole.shares = n
	q.connections = max(1, q.whole.connections/n)
	refill(q.bucket, q.whole.perSecond/float64(n))
	q.rates = maps.Clone(q.whole.rates)
	for op := range q.rates {
		q.rates[op] /= float64(n)
	}
	for op, c := range q.classes {
		refill(c.bucket, q.rates[op])
		before := c.window.whole()
		c.window.bound(q.atOnce(op))
		if after := c.window.whole(); after != before {
			q.resized(op, after)
		}
	}
	q.dispatch()
}

// refill changes a bucket's rate; a queue without one has none to share.
func refill(bucket *rate.Limiter, perSecond float64) {
	if bucket == nil {
		return
	}
	fresh := newBucket(perSecond)
	bucket.SetLimit(fresh.Limit())
	bucket.SetBurst(fresh.Burst())
}

// atOnce is how many requests of a class may be under way.
func (q *queue) atOnce(op oci.Operation) int {
	if op == oci.OpBlobRead || op == oci.OpBlobWrite {
		// Where one registry is read and written, a copy holds a slot of
		// both kinds: neither may take all.
		return max(1, q.connections-max(1, q.connections/4))
	}
	return q.connections
}

// bound changes the most that the window may grow to.
func (w *window) bound(limit int) {
	w.limit = float64(limit)
	w.size = max(1, min(w.size, w.limit))
}
