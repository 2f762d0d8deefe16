package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// serving opens both doors on loopback; stop ends them and gives their error.
func serving(t *testing.T, change func(*Doors)) (public, admin string, stop func() error) {
	t.Helper()
	say := func(what string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, what+" "+r.URL.Path) })
	}
	doors := Doors{Hooks: say("hook"), API: say("api"), Metrics: say("metrics"), Profiles: say("profiles"), Ready: func(context.Context) error { return nil }, Log: zap.NewNop()}
	if change != nil {
		change(&doors)
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	a, b := listen(), listen()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- doors.Serve(ctx, a, b) }()
	stopped := false
	stop = func() error {
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if !stopped {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
	})
	return a.Addr().String(), b.Addr().String(), stop
}

func fetch(t *testing.T, method, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

func TestDoors(t *testing.T) {
	t.Parallel()
	public, admin, stop := serving(t, nil)
	for _, test := range []struct {
		method, url string
		code        int
		body        string
	}{
		{"POST", public + "/hooks/eu", 200, "hook /hooks/eu"},
		{"GET", public + "/healthz", 200, "ok"},
		{"GET", public + "/readyz", 200, "ready"},
		{"GET", public + "/metrics", 404, ""},
		{"GET", public + "/api/v1/status", 404, ""},
		{"GET", public + "/debug/pprof/heap", 404, ""},
		{"GET", admin + "/debug/pprof/heap", 200, "profiles /debug/pprof/heap"},
		{"POST", admin + "/hooks/eu", 404, ""},
		{"GET", admin + "/healthz", 200, "ok"},
		{"GET", admin + "/readyz", 200, "ready"},
		{"GET", admin + "/metrics", 200, "metrics /metrics"},
		{"GET", admin + "/api/v1/status", 200, "api /api/v1/status"},
		{"GET", admin + "/", 404, ""},
	} {
		code, body := fetch(t, test.method, "http://"+test.url)
		if code != test.code || test.body != "" && body != test.body {
			t.Errorf("%s %s: %d %q", test.method, test.url, code, body)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := net.DialTimeout("tcp", public, time.Second); err == nil {
		t.Error("it still listens")
	}
}

func TestNotReady(t *testing.T) {
	t.Parallel()
	public, admin, _ := serving(t, func(d *Doors) {
		d.Ready = func(context.Context) error { return errors.New("the journal: no space") }
	})
	for _, addr := range []string{public, admin} {
		if code, body := fetch(t, "GET", "http://"+addr+"/readyz"); code != 503 || !strings.Contains(body, "no space") {
			t.Errorf("%d %s", code, body)
		}
		if code, _ := fetch(t, "GET", "http://"+addr+"/healthz"); code != 200 {
			t.Errorf("not alive: %d", code)
		}
	}
}

// A webhook in flight at the stop is answered; an operator's long request is
// told to end.
func TestRequestsInFlightAtTheStop(t *testing.T) {
	t.Parallel()
	began := make(chan struct{}, 2)
	release := make(chan struct{})
	public, admin, stop := serving(t, func(d *Doors) {
		d.Hooks = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began <- struct{}{}
			<-release
			if r.Context().Err() == nil {
				w.WriteHeader(http.StatusAccepted)
			}
		})
		d.API = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			began <- struct{}{}
			<-r.Context().Done()
		})
	})
	codes := make(chan int, 1)
	operator := make(chan struct{})
	go func() {
		code, _ := fetch(t, "POST", "http://"+public+"/hooks/eu")
		codes <- code
	}()
	go func() {
		defer close(operator)
		fetch(t, "POST", "http://"+admin+"/api/v1/sync")
	}()
	<-began
	<-began
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	<-operator
	close(release)
	if code := <-codes; code != http.StatusAccepted {
		t.Errorf("the webhook was answered %d", code)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestDoorsSpeakTLS(t *testing.T) {
	t.Parallel()
	lent := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	defer lent.Close()
	public, _, _ := serving(t, func(d *Doors) { d.TLS = &tls.Config{Certificates: lent.TLS.Certificates} })
	resp, err := lent.Client().Get("https://" + public + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.TLS == nil {
		t.Errorf("%d", resp.StatusCode)
	}
}

func TestTheNote(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := ReadNote(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("read without one: %v", err)
	}
	want := Note{Listen: "127.0.0.1:1", Admin: "127.0.0.1:2", PID: 3, TLS: true}
	for range 2 {
		if err := want.Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := ReadNote(dir); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, noteFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadNote(dir); err == nil || !strings.Contains(err.Error(), noteFile) {
		t.Errorf("read a broken one: %v", err)
	}
	RemoveNote(dir)
	if _, err := ReadNote(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("read a removed one: %v", err)
	}
}
