package generic

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// quotaRest is the longest that background requests rest for a quota at
	// once; a longer wait is handed up, as a registry's own 429 is.
	quotaRest = 20 * time.Second
	// maxQuotaWindow is the longest window that is believed.
	maxQuotaWindow = time.Hour
	maxQuotaHosts  = 64
)

// A quota obeys what a registry, or an API beside it, tells of its own limits:
// RateLimit-Limit, -Remaining and -Reset (draft-ietf-httpapi-ratelimit-headers;
// GitLab), with or without X- before them (GitHub, Docker Hub's API). The
// requests of sweeps, polls and backfills are spread over what remains once
// that is less than a quarter, so that those of pushes find some left.
type quota struct {
	rt  http.RoundTripper
	now func() time.Time

	mu    sync.Mutex
	hosts map[string]window
}

// A window is what a host has told last.
type window struct {
	limit, remaining int
	reset            time.Time
}

func newQuota(rt http.RoundTripper) *quota {
	return &quota{rt: rt, now: time.Now, hosts: make(map[string]window)}
}

// RoundTrip sends a request, a background one when its turn has come.
func (q *quota) RoundTrip(req *http.Request) (*http.Response, error) {
	if oci.IsBackground(req.Context()) {
		wait := q.take(req.URL.Host)
		if wait > quotaRest {
			return TooMany(req, wait, "what the registry allows is nearly used up; the rest is kept for pushes"), nil
		}
		if wait > 0 && sleep(req.Context(), wait) != nil {
			if req.Body != nil {
				_ = req.Body.Close()
			}
			return nil, req.Context().Err()
		}
	}
	resp, err := q.rt.RoundTrip(req)
	if err == nil {
		q.note(req.URL.Host, resp.Header)
	}
	return resp, err
}

// take says how long one background request has to wait.
func (q *quota) take(host string) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	w, ok := q.hosts[host]
	now := q.now()
	left := w.reset.Sub(now)
	if !ok || left <= 0 {
		return 0
	}
	low := max(w.limit/4, 10)
	if w.remaining > low {
		return 0
	}
	// The last few are for pushes.
	spare := w.remaining - max(w.limit/50, 1)
	if spare <= 0 {
		return left
	}
	w.remaining--
	q.hosts[host] = w
	return left / time.Duration(spare)
}

// note keeps what an answer tells.
func (q *quota) note(host string, h http.Header) {
	w, ok := parseQuota(h, q.now())
	if !ok {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.hosts) >= maxQuotaHosts {
		clear(q.hosts)
	}
	q.hosts[host] = w
}

// parseQuota reads the headers; counts of pulls (`76;w=21600`) are not of
// requests and are left to who knows them.
func parseQuota(h http.Header, now time.Time) (window, bool) {
	for _, prefix := range []string{"Ratelimit-", "X-Ratelimit-"} {
		remaining, err := strconv.Atoi(strings.TrimSpace(h.Get(prefix + "Remaining")))
		if err != nil || remaining < 0 {
			continue
		}
		reset, err := strconv.ParseInt(strings.TrimSpace(h.Get(prefix+"Reset")), 10, 64)
		if err != nil || reset < 0 {
			continue
		}
		limit, err := strconv.Atoi(strings.TrimSpace(h.Get(prefix + "Limit")))
		if err != nil || limit < 0 {
			limit = 0
		}
		left := time.Duration(min(reset, int64(maxQuotaWindow/time.Second))) * time.Second
		if reset > 1_000_000_000 { // a time of day, by the sender's own clock
			sent, err := http.ParseTime(h.Get("Date"))
			if err != nil {
				sent = now
			}
			left = min(time.Unix(reset, 0).Sub(sent), maxQuotaWindow)
		}
		return window{limit, remaining, now.Add(left)}, true
	}
	return window{}, false
}
