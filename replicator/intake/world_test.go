package intake_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twinport/twinport/providers/artifactory"
	"github.com/twinport/twinport/providers/dockerhub"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/ghcr"
	"github.com/twinport/twinport/providers/gitea"
	"github.com/twinport/twinport/providers/harbor"
	"github.com/twinport/twinport/providers/nexus"
	"github.com/twinport/twinport/providers/quay"
	"github.com/twinport/twinport/providers/zot"
	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/intake"
)

// receipt is when the tests' requests come in: after all fixtures.
var receipt = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// A store is what stands behind the door: it keeps what it accepted.
type store struct {
	mu       sync.Mutex
	events   []replicator.Event
	findings []replicator.Finding
	due      []string
	calls    int
	err      error
	none     bool // no event makes a job
}

func (s *store) accept(_ context.Context, events []replicator.Event, findings []replicator.Finding, due []string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.err != nil {
		return 0, s.err
	}
	s.events = append(s.events, events...)
	s.findings = append(s.findings, findings...)
	s.due = append(s.due, due...)
	if s.none {
		return 0, nil
	}
	return len(events), nil
}

func secrets(values ...string) (list []func() (string, error)) {
	for _, v := range values {
		list = append(list, func() (string, error) { return v, nil })
	}
	return list
}

// door opens an intake for registries over a fresh store.
func door(registries ...intake.Registry) (*intake.Intake, *store) {
	s := &store{}
	in := intake.New(intake.Options{Accept: s.accept, Now: func() time.Time { return receipt }})
	in.Swap(registries)
	return in, s
}

var decoders = map[string]intake.Decoder{
	"distribution": generic.Webhook{}, "gitlab": generic.Webhook{}, "zot": zot.Webhook{}, "harbor": harbor.Webhook{},
	"quay": quay.Webhook{}, "ghcr": ghcr.Webhook{}, "github": ghcr.Webhook{}, "dockerhub": dockerhub.Webhook{},
	"gitea": gitea.Webhook{}, "nexus": nexus.Webhook{}, "artifactory": artifactory.Webhook{Host: "acme.jfrog.io"},
}

// send hands a request to the handler.
func send(h http.Handler, req *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func post(path, body string, headers ...string) *http.Request {
	req := httptest.NewRequest(http.MethodPost, path, bytes.NewReader([]byte(body)))
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	return req
}

type counts struct{ Accepted, Ignored int }

func countsOf(t *testing.T, body io.Reader) (c counts) {
	t.Helper()
	if err := json.NewDecoder(body).Decode(&c); err != nil {
		t.Errorf("answer: %v", err)
	}
	return c
}

// raw sends a captured request as it was received, but for its path, and
// gives status and body.
func raw(t testing.TB, address, path string, captured []byte) (int, []byte) {
	t.Helper()
	_, rest, ok := bytes.Cut(captured, []byte("\r\n"))
	if !ok {
		t.Fatal("no request line")
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nConnection: close\r\n%s", path, rest); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// files lists what a pattern below testdata names, at least one.
func files(t testing.TB, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(list) == 0 {
		t.Fatalf("%s: %v, %d files", pattern, err, len(list))
	}
	return list
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
