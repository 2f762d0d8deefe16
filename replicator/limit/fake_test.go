package limit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

// A transport is a registry that answers as it is told.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader([]byte(body)))}
}

func request(t *testing.T, ctx context.Context, op oci.Operation, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(oci.WithOperation(ctx, op), http.MethodGet, "https://registry.example.com/v2/", body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// do makes one request and closes its answer.
func do(t *testing.T, r *Registry, ctx context.Context, op oci.Operation) (int, error) {
	t.Helper()
	resp, err := r.RoundTrip(request(t, ctx, op, nil))
	if err != nil {
		return 0, err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Error(err)
	}
	return resp.StatusCode, resp.Body.Close()
}

// A crowd counts who is inside a transport at once.
type crowd struct {
	mu        sync.Mutex
	now, most int
}

func (c *crowd) enter() (now int, leave func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now++
	c.most = max(c.most, c.now)
	return c.now, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.now--
	}
}

// slow answers 200 after a while, unless the caller gives up first.
func slow(took time.Duration, c *crowd) transport {
	return func(req *http.Request) (*http.Response, error) {
		_, leave := c.enter()
		defer leave()
		select {
		case <-time.After(took):
			return answer(http.StatusOK, ""), nil
		case <-req.Context().Done():
			return nil, context.Cause(req.Context())
		}
	}
}

var errDial = errors.New("dial tcp 192.0.2.1:443: connection refused")
