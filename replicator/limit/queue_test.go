package limit

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

func TestRequestsPerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		r := New(Spec{Registry: "eu", Requests: 50, Connections: 200}, slow(0, &c), nil)
		began := time.Now()
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				if _, err := do(t, r, t.Context(), oci.OpManifestHead); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		near(t, "500 requests at 50/s", time.Since(began), 10*time.Second)
		if n := r.Stats().Requests[oci.OpManifestHead]; n != 500 {
			t.Errorf("counted %d", n)
		}
	})
}

func TestSlotIsHeldUntilTheBodyEnds(t *testing.T) {
	for name, end := range map[string]func(*http.Response){
		"closed":          func(resp *http.Response) { resp.Body.Close() },
		"closed twice":    func(resp *http.Response) { resp.Body.Close(); resp.Body.Close() },
		"read to its end": func(resp *http.Response) { _, _ = io.Copy(io.Discard, resp.Body) },
		"read and closed": func(resp *http.Response) { _, _ = io.Copy(io.Discard, resp.Body); resp.Body.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := New(Spec{Registry: "eu", Connections: 1}, serve(10), nil)
				first, err := r.RoundTrip(request(t, t.Context(), oci.OpBlobRead, nil))
				if err != nil {
					t.Fatal(err)
				}
				var got atomic.Bool
				var wg sync.WaitGroup
				wg.Go(func() {
					if _, err := do(t, r, t.Context(), oci.OpBlobRead); err != nil {
						t.Error(err)
					}
					got.Store(true)
				})
				synctest.Wait()
				if got.Load() {
					t.Error("the second went while the first body was open")
				}
				end(first)
				wg.Wait()
				if r.requests.inFlight != 0 {
					t.Errorf("%d slots held at the end", r.requests.inFlight)
				}
			})
		})
	}
}

func TestNoBodyHoldsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Spec{Registry: "eu", Connections: 1}, transport(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		}), nil)
		for range 3 {
			if _, err := r.RoundTrip(request(t, t.Context(), oci.OpManifestHead, nil)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestConnectionsHoldOverAllClasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		r := New(Spec{Registry: "eu", Connections: 10}, slow(time.Second, &c), nil)
		var wg sync.WaitGroup
		for i := range 200 {
			op := []oci.Operation{oci.OpBlobRead, oci.OpManifestRead, oci.OpBlobHead, oci.OpList}[i%4]
			wg.Go(func() {
				if _, err := do(t, r, t.Context(), op); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if c.most != 10 {
			t.Errorf("%d at once, want 10", c.most)
		}
	})
}

func TestReadsLeaveRoomForWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Spec{Registry: "eu", Connections: 4}, serve(10), nil)
		var open []*http.Response
		for range 3 {
			resp, err := r.RoundTrip(request(t, t.Context(), oci.OpBlobRead, nil))
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, resp)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := do(t, r, ctx, oci.OpBlobRead); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a fourth read: %v, want it to wait", err)
		}
		if _, err := do(t, r, t.Context(), oci.OpBlobWrite); err != nil {
			t.Errorf("a write beside them: %v", err)
		}
		for _, resp := range open {
			resp.Body.Close()
		}
	})
}

func TestBackgroundHasThreeQuarters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		r := New(Spec{Registry: "eu", Connections: 8}, slow(time.Minute, &c), nil)
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for range 20 {
			wg.Go(func() { _, _ = do(t, r, oci.WithBackground(ctx), oci.OpManifestHead) })
		}
		synctest.Wait()
		if c.now != 6 {
			t.Errorf("%d background requests at once, want 6 of 8", c.now)
		}
		for range 2 {
			wg.Go(func() { _, _ = do(t, r, ctx, oci.OpManifestHead) })
		}
		synctest.Wait()
		if c.now != 8 {
			t.Errorf("%d at once with two in the foreground, want 8", c.now)
		}
		cancel()
		wg.Wait()
		if r.requests.inFlight != 0 || r.requests.background != 0 {
			t.Errorf("%d slots held at the end, %d of them background", r.requests.inFlight, r.requests.background)
		}
	})
}

func TestForegroundFirstAndBackgroundNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var order []string
		r := New(Spec{Registry: "eu", Connections: 1}, transport(func(req *http.Request) (*http.Response, error) {
			mu.Lock()
			order = append(order, map[bool]string{true: "b", false: "f"}[oci.IsBackground(req.Context())])
			mu.Unlock()
			time.Sleep(time.Second)
			return answer(http.StatusOK, ""), nil
		}), nil)
		var wg sync.WaitGroup
		enqueue := func(ctx context.Context, n int) {
			for range n {
				wg.Go(func() { _, _ = do(t, r, ctx, oci.OpManifestHead) })
				synctest.Wait()
			}
		}
		enqueue(t.Context(), 1)
		enqueue(oci.WithBackground(t.Context()), 2)
		enqueue(t.Context(), 20)
		wg.Wait()
		got := ""
		for _, o := range order {
			got += o
		}
		if want := "f" + "fffffffb" + "fffffffb" + "ffffff"; got != want {
			t.Errorf("order %s, want %s", got, want)
		}
	})
}

func TestForegroundIsFirstInFirstOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var order []int
		r := New(Spec{Registry: "eu", Connections: 1}, transport(func(req *http.Request) (*http.Response, error) {
			order = append(order, req.Context().Value(key{}).(int))
			time.Sleep(time.Second)
			return answer(http.StatusOK, ""), nil
		}), nil)
		var wg sync.WaitGroup
		for i := range 10 {
			op := []oci.Operation{oci.OpManifestHead, oci.OpBlobHead, oci.OpList}[i%3]
			wg.Go(func() { _, _ = do(t, r, context.WithValue(t.Context(), key{}, i), op) })
			synctest.Wait()
		}
		wg.Wait()
		for i, o := range order {
			if i != o {
				t.Fatalf("order %v", order)
			}
		}
	})
}

func TestCancelReturnsPermits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		r := New(Spec{Registry: "eu", Connections: 2, Requests: 100}, slow(time.Hour, &c), nil)
		why := errors.New("shutdown")
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := do(t, r, ctx, oci.OpManifestHead); !errors.Is(err, why) {
					t.Errorf("%v, want the cause", err)
				}
			})
		}
		time.Sleep(time.Minute)
		cancel(why)
		wg.Wait()
		line := &r.requests.classes[oci.OpManifestHead].waiting[0]
		if r.requests.inFlight != 0 || line.Len() != 0 {
			t.Errorf("%d slots held, %d waiting at the end", r.requests.inFlight, line.Len())
		}
		if _, down := r.Down(); down {
			t.Error("requests their caller cancelled opened the breaker")
		}
		if _, err := do(t, r, ctx, oci.OpManifestHead); !errors.Is(err, why) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestTokensAndPingsDoNotWaitForSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Spec{Registry: "eu", Connections: 1, Requests: 0.001}, serve(10), nil)
		resp, err := r.RoundTrip(request(t, t.Context(), oci.OpBlobRead, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		began := time.Now()
		for _, op := range []oci.Operation{oci.OpPing, oci.OpToken} {
			if _, err := do(t, r, t.Context(), op); err != nil || time.Since(began) > 0 {
				t.Errorf("%s: %v after %s", op, err, time.Since(began))
			}
		}
	})
}

func TestRandomUseLeavesNothingHeld(t *testing.T) {
	var c crowd
	r := New(Spec{Registry: "eu", Connections: 8}, slow(time.Microsecond, &c), nil)
	ops := []oci.Operation{oci.OpBlobRead, oci.OpManifestRead, oci.OpBlobWrite, oci.OpList, "made up"}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 200 {
				ctx := t.Context()
				if i%2 == 0 {
					ctx = oci.WithBackground(ctx)
				}
				cancel := func() {}
				if j%3 == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(j)*time.Microsecond)
				}
				_, _ = do(t, r, ctx, ops[(i+j)%len(ops)])
				cancel()
			}
		})
	}
	wg.Wait()
	if r.requests.inFlight != 0 || r.requests.background != 0 || c.most > 8 {
		t.Errorf("%d held, %d background, %d at most at once", r.requests.inFlight, r.requests.background, c.most)
	}
	for op, c := range r.requests.classes {
		if c.inFlight != 0 || c.background != 0 || c.waiting[0].Len()+c.waiting[1].Len() != 0 {
			t.Errorf("%s: %d in flight, %d background", op, c.inFlight, c.background)
		}
	}
}

// A warming is a transport that opens connections ahead.
type warming struct {
	transport
	asked []int
}

func (w *warming) Warm(n int) { w.asked = append(w.asked, n) }

// Connections are opened ahead up to what may be in use, and to no registry
// that is down.
func TestWarm(t *testing.T) {
	base := &warming{transport: func(*http.Request) (*http.Response, error) { return nil, errDial }}
	r := New(Spec{Registry: "eu", Connections: 10}, base, nil)
	r.Warm(4)
	r.Warm(40)
	for range 5 {
		_, _ = do(t, r, t.Context(), oci.OpManifestHead)
	}
	if _, down := r.Down(); !down {
		t.Fatal("not down")
	}
	r.Warm(4)
	if !slices.Equal(base.asked, []int{4, 10}) {
		t.Errorf("asked for %v", base.asked)
	}
	New(Spec{Registry: "eu"}, base.transport, nil).Warm(4) // it cannot
}
