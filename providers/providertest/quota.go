package providertest

import (
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// quotas are rates per second that a fake enforces: each refills evenly and
// holds a second's worth.
type quotas struct {
	mu        sync.Mutex
	buckets   map[string]*bucket
	throttled int
}

// take takes one of a rate, 0: without bound; wait tells how long until there is
// one again.
func (q *quotas) take(name string, rate float64) (wait time.Duration) {
	if rate <= 0 {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	b := q.buckets[name]
	if b == nil {
		if q.buckets == nil {
			q.buckets = make(map[string]*bucket)
		}
		b = &bucket{tokens: max(rate, 1), at: now}
		q.buckets[name] = b
	}
	b.tokens = min(max(rate, 1), b.tokens+now.Sub(b.at).Seconds()*rate)
	b.at = now
	if b.tokens < 1 {
		q.throttled++
		return time.Duration((1 - b.tokens) / rate * float64(time.Second))
	}
	b.tokens--
	return 0
}

// Throttled is how many requests were over a rate.
func (q *quotas) Throttled() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.throttled
}

// tooMany refuses a request over a rate, with the seconds to wait where told.
func tooMany(w http.ResponseWriter, wait time.Duration, told bool, message string) {
	if told {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	Fail(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", message)
}
