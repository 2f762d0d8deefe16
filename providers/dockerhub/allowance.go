package dockerhub

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// rest is how long pulls rest at most once the allowance is used up, before one
// is tried again. Meanwhile HEADs, which cost nothing, tell when there is more.
const rest = 15 * time.Minute

// An allowance obeys Docker Hub's ratelimit headers (docs.docker.com, "Docker
// Hub usage and limits"): a GET of a manifest counts as a pull. Once the headers
// say that none remains, GETs of manifests are answered 429 here, without being
// sent, until an answer tells otherwise. Plans without limits send no headers.
type allowance struct {
	rt http.RoundTripper

	mu    sync.Mutex
	until time.Time // no pulls before
}

func newAllowance(rt http.RoundTripper) *allowance { return &allowance{rt: rt} }

// RoundTrip sends a request, unless it would be a pull that is not allowed.
func (a *allowance) RoundTrip(req *http.Request) (*http.Response, error) {
	pull := req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/manifests/")
	if pull {
		a.mu.Lock()
		wait := time.Until(a.until)
		a.mu.Unlock()
		if wait > 0 {
			return refusal(req, wait), nil
		}
	}
	resp, err := a.rt.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if remaining, window, ok := parseAllowance(resp.Header.Get("Ratelimit-Remaining")); ok {
		a.mu.Lock()
		if remaining > 0 {
			a.until = time.Time{}
		} else {
			a.until = time.Now().Add(min(window, rest))
		}
		a.mu.Unlock()
	}
	return resp, nil
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

func refusal(req *http.Request, wait time.Duration) *http.Response {
	const body = `{"errors":[{"code":"TOOMANYREQUESTS","message":"Docker Hub's allowance of pulls is used up (ratelimit-remaining: 0)"}]}`
	if req.Body != nil {
		_ = req.Body.Close()
	}
	return &http.Response{
		Status: "429 Too Many Requests", StatusCode: http.StatusTooManyRequests, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{
			"Content-Type": {"application/json"},
			"Retry-After":  {strconv.Itoa(int(wait/time.Second) + 1)},
		},
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader([]byte(body))), Request: req,
	}
}
