package generic

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The bounds of a request's own retries. What outlasts them is the job's
// business, which knows of breakers and of other work.
const (
	maxTries     = 4
	refusedTries = 2
	passingTime  = 10 * time.Second
	// maxRetryAfter bounds what a registry may ask for.
	maxRetryAfter = 15 * time.Minute
	// throttleWait is the longest single wait a request makes itself, a longer
	// one is handed up; throttleTime bounds all of them.
	throttleWait  = 2 * time.Minute
	throttleTime  = 5 * time.Minute
	throttleTries = 12
)

// patience decides whether and when one call's request is made again.
type patience struct {
	began     time.Time
	tries     int // bound, 0: maxTries
	failed    int
	throttled int
	waited    time.Duration // for throttling
}

func (p *patience) next(f *failure) (time.Duration, bool) {
	limit := p.tries
	if limit == 0 {
		limit = maxTries
	}
	switch {
	case f.throttled:
		p.throttled++
		wait := f.after
		if wait == 0 {
			wait = backoff(time.Second, p.throttled, 30*time.Second)
		}
		if p.tries == 1 || p.throttled >= throttleTries || wait > throttleWait || p.waited+wait > throttleTime {
			return 0, false
		}
		p.waited += wait
		p.began = p.began.Add(wait) // not the time of other faults
		return wait, true
	case f.passing:
		p.failed++
		if f.quick {
			limit = min(limit, refusedTries)
		}
		wait := max(backoff(300*time.Millisecond, p.failed, 4*time.Second), f.after)
		if p.failed >= limit || time.Since(p.began)+wait > passingTime {
			return 0, false
		}
		return wait, true
	}
	return 0, false
}

// backoff doubles from a base up to a bound, with half of it as jitter.
func backoff(base time.Duration, n int, bound time.Duration) time.Duration {
	d := base << min(max(n-1, 0), 20)
	if d > bound || d <= 0 {
		d = bound
	}
	return d/2 + rand.N(d/2+1)
}

// sleep waits or ends with the context.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// parseRetryAfter reads seconds, a date or (as some registries send) a Go
// duration; what makes no sense is 0, and nothing is over maxRetryAfter.
func parseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" || len(value) > 64 {
		return 0
	}
	var d time.Duration
	if seconds, err := strconv.ParseFloat(value, 64); err == nil {
		switch {
		case seconds != seconds || seconds <= 0:
			return 0
		case seconds > maxRetryAfter.Seconds():
			return maxRetryAfter
		}
		d = time.Duration(seconds * float64(time.Second))
	} else if parsed, err := time.ParseDuration(value); err == nil {
		d = parsed
	} else if at, err := http.ParseTime(value); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
