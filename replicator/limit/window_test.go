package limit

import (
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

// drive keeps n callers busy for a while and gives the window at the end.
func drive(t *testing.T, r *Registry, n int, long time.Duration) int {
	t.Helper()
	var wg sync.WaitGroup
	end := time.Now().Add(long)
	for range n {
		wg.Go(func() {
			for time.Now().Before(end) {
				_, _ = do(t, r, t.Context(), oci.OpManifestHead)
			}
		})
	}
	wg.Wait()
	return r.requests.classes[oci.OpManifestHead].window.whole()
}

func TestWindowGrowsToTheConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		r := New(Spec{Registry: "eu", Connections: 64}, slow(100*time.Millisecond, &c), nil)
		if w := drive(t, r, 100, 2*time.Second); w != 64 || c.most != 64 {
			t.Errorf("window %d, %d at once, want 64", w, c.most)
		}
	})
}

func TestUnusedWindowDoesNotGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		r := New(Spec{Registry: "eu", Connections: 64}, slow(100*time.Millisecond, &c), nil)
		if w := drive(t, r, 1, 10*time.Second); w != firstCheap {
			t.Errorf("window %d, want %d", w, firstCheap)
		}
	})
}

// A registry that refuses what is over ten at once is met at about ten.
func TestRefusalsThatGrowWithTheWindowShrinkIt(t *testing.T) {
	for _, most := range []int{3, 10, 20} {
		synctest.Test(t, func(t *testing.T) {
			var c crowd
			sent, refusals := 0, 0
			r := New(Spec{Registry: "eu", Connections: 32}, transport(func(*http.Request) (*http.Response, error) {
				now, leave := c.enter()
				c.mu.Lock()
				sent++
				if now > most {
					refusals++
				}
				c.mu.Unlock()
				if now > most {
					leave() // a refused request does not crowd the registry
					time.Sleep(100 * time.Millisecond)
					return answer(http.StatusTooManyRequests, ""), nil
				}
				time.Sleep(100 * time.Millisecond)
				leave()
				return answer(http.StatusOK, ""), nil
			}), nil)
			drive(t, r, 100, time.Minute)
			c.mu.Lock()
			sent, refusals = 0, 0
			c.mu.Unlock()
			w := drive(t, r, 100, time.Minute)
			if w > 2*most || refusals*5 > sent {
				t.Errorf("%d bearable: window %d, %d of %d refused", most, w, refusals, sent)
			}
			if sent < 600*most/2 {
				t.Errorf("%d bearable: only %d requests in a minute", most, sent)
			}
			if _, down := r.Down(); down {
				t.Error("429 opened the breaker")
			}
		})
	}
}

// A quota refuses by time, whatever the window: shrinking would only slow what
// it lets through.
func TestRefusalsByQuotaLeaveTheWindow(t *testing.T) {
	for _, share := range []float64{1, 0.5} {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			var mu sync.Mutex
			r := New(Spec{Registry: "eu", Connections: 32}, transport(func(*http.Request) (*http.Response, error) {
				time.Sleep(100 * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				if random.Float64() < share {
					return answer(http.StatusTooManyRequests, ""), nil
				}
				return answer(http.StatusOK, ""), nil
			}), nil)
			if w := drive(t, r, 100, time.Minute); w < firstWindow {
				t.Errorf("share %v: window %d, want at least %d", share, w, firstWindow)
			}
			if _, down := r.Down(); down {
				t.Error("429 opened the breaker")
			}
		})
	}
}

func TestShrinksOncePerEpoch(t *testing.T) {
	w := newWindow(firstWindow, 32)
	now := time.Now()
	before := w.start()
	for range 5 {
		w.answered(before, overloaded, true, 0, now)
	}
	if w.whole() != firstWindow/2 {
		t.Errorf("five failures of one epoch: window %d, want %d", w.whole(), firstWindow/2)
	}
	w.answered(w.start(), overloaded, true, 0, now)
	if w.whole() != firstWindow/4 {
		t.Errorf("a failure of the next: window %d, want %d", w.whole(), firstWindow/4)
	}
	for range 10 {
		w.answered(w.start(), overloaded, true, 0, now)
	}
	if w.whole() != 1 {
		t.Errorf("window %d, want never below 1", w.whole())
	}
}

// A registry that works off a hundred requests a second: more than ten at once
// only wait, and their wait shows.
func TestRisingLatencyShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		r := New(Spec{Registry: "eu", Connections: 200}, transport(func(*http.Request) (*http.Response, error) {
			now, leave := c.enter()
			defer leave()
			time.Sleep(max(100*time.Millisecond, time.Duration(now)*10*time.Millisecond))
			return answer(http.StatusOK, ""), nil
		}), nil)
		if w := drive(t, r, 300, 20*time.Second); w > 80 || w < 10 {
			t.Errorf("window %d, want about 50", w)
		}
	})
}
