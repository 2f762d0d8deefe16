package limit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/twinport/twinport/replicator/oci"
)

// script answers with what it holds at the moment.
type script struct {
	status int
	err    error
	calls  int
}

func (s *script) RoundTrip(*http.Request) (*http.Response, error) {
	s.calls++
	if s.err != nil {
		return nil, s.err
	}
	return answer(s.status, ""), nil
}

func TestBreakerOpensAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{err: errDial}
		m := NewMetrics(prometheus.NewRegistry())
		r := New(Spec{Registry: "eu"}, s, m)
		began := time.Now()
		for i := range breakAfter {
			if _, down := r.Down(); down {
				t.Fatalf("open after %d failures", i)
			}
			if _, err := do(t, r, t.Context(), oci.OpManifestRead); !errors.Is(err, errDial) {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		since, down := r.Down()
		if !down || !since.Equal(began) {
			t.Fatalf("down %v since %s, want since the first failure %s", down, since, began)
		}
		if got := testutil.ToFloat64(m.up.WithLabelValues("eu")); got != 0 {
			t.Errorf("twinport_registry_up %v while open", got)
		}
		_, err := do(t, r, t.Context(), oci.OpManifestRead)
		if !errors.Is(err, oci.ErrUnreachable) || !strings.Contains(err.Error(), "eu has not answered since 2000-01-01T00:00:00Z") || s.calls != breakAfter {
			t.Errorf("while open: %v after %d calls", err, s.calls)
		}
		if _, err := do(t, r, t.Context(), oci.OpToken); !errors.Is(err, oci.ErrUnreachable) {
			t.Errorf("a token while open: %v", err)
		}
		for _, still := range []script{{err: errDial}, {status: 503}, {status: 500}} {
			s.status, s.err = still.status, still.err
			_, _ = do(t, r, t.Context(), oci.OpPing)
			if _, down := r.Down(); !down {
				t.Errorf("a ping answered %d %v closed it", still.status, still.err)
			}
		}
		s.status, s.err = http.StatusUnauthorized, nil
		if _, err := do(t, r, t.Context(), oci.OpPing); err != nil {
			t.Fatal(err)
		}
		if _, down := r.Down(); down {
			t.Error("a ping answered 401 did not close it")
		}
		if got := testutil.ToFloat64(m.up.WithLabelValues("eu")); got != 1 {
			t.Errorf("twinport_registry_up %v when closed", got)
		}
		if w := r.requests.classes[oci.OpManifestRead].window.whole(); w != firstCheap {
			t.Errorf("window %d after the outage, want %d", w, firstCheap)
		}
		if _, err := do(t, r, t.Context(), oci.OpManifestRead); err != nil {
			t.Error(err)
		}
	})
}

type timeout struct{}

func (timeout) Error() string { return "i/o timeout" }
func (timeout) Timeout() bool { return true }

func TestWhatIsUnreachable(t *testing.T) {
	get := func(r *Registry) { _, _ = do(&testing.T{}, r, context.Background(), oci.OpManifestRead) }
	put := func(body io.Reader) func(*Registry) {
		return func(r *Registry) {
			req := request(&testing.T{}, context.Background(), oci.OpBlobWrite, body)
			_, _ = r.RoundTrip(req)
		}
	}
	reading := func(err error) transport {
		return func(req *http.Request) (*http.Response, error) {
			if req.Body != nil {
				if _, readErr := io.Copy(io.Discard, req.Body); readErr != nil {
					return nil, readErr
				}
			}
			return nil, err
		}
	}
	for name, c := range map[string]struct {
		base http.RoundTripper
		send func(*Registry)
		want bool
	}{
		"no connection":                {&script{err: errDial}, get, true},
		"timeout":                      {&script{err: timeout{}}, get, true},
		"502":                          {&script{status: 502}, get, true},
		"503":                          {&script{status: 503}, get, true},
		"504":                          {&script{status: 504}, get, true},
		"500":                          {&script{status: 500}, get, false},
		"429":                          {&script{status: 429}, get, false},
		"401":                          {&script{status: 401}, get, false},
		"refused by our own transport": {&script{err: fmt.Errorf("dial: %w", oci.ErrDenied)}, get, false},
		"no descriptor left":           {&script{err: &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}}, get, false},
		"the body to send failed":      {reading(errDial), put(failing{}), false},
		"cut in the middle of a body":  {reading(errDial), put(bytes.NewReader([]byte("x"))), false},
		"no answer to a whole body":    {reading(timeout{}), put(bytes.NewReader([]byte("x"))), true},
	} {
		t.Run(name, func(t *testing.T) {
			r := New(Spec{Registry: "eu"}, c.base, nil)
			for range breakAfter {
				c.send(r)
			}
			if _, down := r.Down(); down != c.want {
				t.Errorf("down %v, want %v", down, c.want)
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the source was cut") }

func TestDeadlineOpensCancelDoesNot(t *testing.T) {
	for name, c := range map[string]struct {
		ctx  func(context.Context) (context.Context, context.CancelFunc)
		want bool
	}{
		"no answer before the deadline": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 10*time.Second)
		}, true},
		"a deadline too near to judge": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 10*time.Millisecond)
		}, false},
		"given up after a minute without an answer": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Minute, func() { cancel(errors.New("no byte within the idle time")) })
			return ctx, func() { cancel(nil) }
		}, true},
		"cancelled by the caller": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(10*time.Second, cancel)
			return ctx, cancel
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var crowd crowd
				r := New(Spec{Registry: "eu"}, slow(time.Hour, &crowd), nil)
				for range breakAfter {
					ctx, cancel := c.ctx(t.Context())
					_, _ = do(t, r, ctx, oci.OpManifestRead)
					cancel()
				}
				if _, down := r.Down(); down != c.want {
					t.Errorf("down %v, want %v", down, c.want)
				}
			})
		})
	}
}

func TestAnAnswerBetweenKeepsItClosed(t *testing.T) {
	s := &script{}
	r := New(Spec{Registry: "eu"}, s, nil)
	for i := range 40 {
		s.status = 503
		if i%breakAfter == breakAfter-1 {
			s.status = 404
		}
		_, _ = do(t, r, t.Context(), oci.OpManifestRead)
	}
	if _, down := r.Down(); down {
		t.Error("open though every fifth request was answered")
	}
	// Tokens from another server prove nothing about this one.
	for range breakAfter {
		s.status = 503
		_, _ = do(t, r, t.Context(), oci.OpManifestRead)
		s.status = 200
		_, _ = do(t, r, t.Context(), oci.OpToken)
	}
	if _, down := r.Down(); !down {
		t.Error("answers of a token server kept it closed")
	}
}

func TestOpeningTurnsTheWaitingAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Spec{Registry: "eu", Connections: 5}, transport(func(*http.Request) (*http.Response, error) {
			time.Sleep(time.Minute)
			return nil, errDial
		}), nil)
		began := time.Now()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, err := do(t, r, t.Context(), oci.OpManifestRead); err == nil {
					t.Error("answered")
				}
			})
		}
		wg.Wait()
		// The window shrinks at the first failure, so the five end together.
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("the last gave up after %s", took)
		}
		if r.requests.inFlight != 0 {
			t.Errorf("%d slots held", r.requests.inFlight)
		}
	})
}
