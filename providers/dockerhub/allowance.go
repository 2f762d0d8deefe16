package dockerhub

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// rest is how long pulls rest at most once the allowance is used up, before one
// is tried again. Meanwhile HEADs, which cost nothing, tell when there is more.
const rest = 15 * time.Minute

// An allowance obeys Docker Hub's ratelimit headers (docs.docker.com, "Docker
// Hub usage and limits"): a GET of a manifest counts as a pull. Once the headers
// say that none remains, GETs of manifests are answered 429 here, without being
// sent, until an answer tells otherwise. Before that, those of sweeps and
// backfills are spread over the window once less than a quarter remains, and
// the last tenth is kept for pushes. Plans without limits send no headers.
type allowance struct {
	rt http.RoundTripper

	mu    sync.Mutex
	until time.Time // no pulls before
	// By whose allowance that is (docker-ratelimit-source: an address or an
	// account): an answer of another source tells nothing of this one's.
	source string
	// background pulls: none before next; that many seconds lie between them.
	next time.Time
	gap  time.Duration
}

func newAllowance(rt http.RoundTripper) *allowance { return &allowance{rt: rt} }

// RoundTrip sends a request, unless it would be a pull that is not allowed.
func (a *allowance) RoundTrip(req *http.Request) (*http.Response, error) {
	pull := req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/manifests/")
	if pull {
		if wait := a.take(oci.IsBackground(req.Context())); wait > 0 {
			return generic.TooMany(req, wait, "Docker Hub's allowance of pulls is used up (ratelimit-remaining: 0)"), nil
		}
	}
	resp, err := a.rt.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	a.note(resp.Header)
	return resp, nil
}

// take says how long a pull has to wait.
func (a *allowance) take(background bool) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	wait := a.until.Sub(now)
	if !background || wait > 0 {
		return wait
	}
	if wait = a.next.Sub(now); wait <= 0 && a.gap > 0 {
		a.next = now.Add(a.gap)
	}
	return wait
}

// note keeps what an answer tells.
func (a *allowance) note(h http.Header) {
	remaining, window, ok := parseAllowance(h.Get("Ratelimit-Remaining"))
	if !ok {
		return
	}
	limit, _, _ := parseAllowance(h.Get("Ratelimit-Limit"))
	source := h.Get("Docker-Ratelimit-Source")
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if source != a.source {
		a.source, a.until, a.next, a.gap = source, time.Time{}, time.Time{}, 0
	}
	a.until = time.Time{}
	switch {
	case remaining == 0:
		a.until = now.Add(min(window, rest))
	case limit > 0 && remaining <= limit/10:
		a.gap, a.next = window/time.Duration(limit), now.Add(min(window, rest))
	case limit > 0 && remaining <= limit/4:
		// The window slides: so much comes back meanwhile.
		if a.gap == 0 {
			a.next = now
		}
		a.gap = window / time.Duration(limit)
		a.next = minTime(a.next, now.Add(a.gap))
	default:
		a.gap, a.next = 0, time.Time{}
	}
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// parseAllowance reads `76;w=21600`: pulls that remain, of a window in seconds.
func parseAllowance(value string) (remaining int, window time.Duration, ok bool) {
	count, params, _ := strings.Cut(value, ";")
	remaining, err := strconv.Atoi(strings.TrimSpace(count))
	if err != nil || remaining < 0 {
		return 0, 0, false
	}
	window = rest
	if w, found := strings.CutPrefix(strings.TrimSpace(params), "w="); found {
		if seconds, err := strconv.ParseInt(w, 10, 32); err == nil && seconds > 0 {
			window = time.Duration(seconds) * time.Second
		}
	}
	return remaining, window, true
}
