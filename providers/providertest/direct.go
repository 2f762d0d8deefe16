package providertest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/opencontainers/go-digest"
)

// Direct answers requests by handlers in the same process, one for each host:
// without a network, so that a test may run on simulated time.
type Direct map[string]http.Handler

// RoundTrip has the host's handler answer.
func (d Direct) RoundTrip(req *http.Request) (*http.Response, error) {
	handler := d[req.URL.Host]
	if handler == nil {
		return nil, fmt.Errorf("no such host %q", req.URL.Host)
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	var body []byte
	if req.Body != nil {
		var err error
		body, err = io.ReadAll(req.Body)
		_ = req.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	served := req.Clone(req.Context())
	served.Host, served.RequestURI = req.URL.Host, req.URL.RequestURI()
	served.Body, served.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, served)
	resp := w.Result()
	if req.Method == http.MethodHead {
		resp.Body = http.NoBody
	}
	return resp, nil
}

// A Storage is where a registry's blob reads are redirected: it serves what a
// fake holds, and says of each request that carries a credential.
type Storage struct {
	Fake *Fake
	// Fail is told of credentials that arrive.
	Fail func(format string, args ...any)
}

func (s Storage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
		s.Fail("credentials reached the storage: %s %s", r.Method, r.URL.Path)
	}
	parts := fakePaths.FindStringSubmatch(r.URL.Path)
	if len(parts) < 4 || parts[2] != "blobs" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.NotFound(w, r)
		return
	}
	if s.Fake.Upstream != nil {
		s.Fake.Upstream.ServeHTTP(w, r)
		return
	}
	data, ok := s.Fake.Blob(parts[1], digest.Digest(parts[3]))
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}
