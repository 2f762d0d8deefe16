package daemon

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// checkForward tells of a tag that went back to an older state of the source:
// seen must be a subsequence of pushed.
func checkForward(t *testing.T, pushed []ocitest.Content, seen []digest.Digest) {
	t.Helper()
	at := 0
	for i, d := range seen {
		for at < len(pushed) && pushed[at].Digest() != d {
			at++
		}
		if at == len(pushed) {
			t.Fatalf("state %d of the destination's tag, %.17s, is older than the one before", i, d)
		}
	}
}

func TestTheLastOfManyPushesWins(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			in(t, star(), func(w *world) {
				random := rand.New(rand.NewPCG(seed, 1))
				shared := ocitest.Layer("base", 3000)
				var pushes []ocitest.Content
				for i := range 50 {
					pushes = append(pushes, ocitest.ImageOf(fmt.Sprintf("app%d", i), shared, ocitest.Layer(fmt.Sprint("top", i), 100)))
				}
				eu, us := w.sites["eu"], w.sites["us"]
				us.on(func(ctx context.Context, c ocitest.Call) error {
					time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
					return nil
				})
				seen := us.watchTag(app, "v1")
				var events []replicator.Event
				var told sync.WaitGroup
				for _, c := range pushes {
					eu.Push(app, "v1", c)
					ev := w.event("eu", app, "v1", c.Digest())
					for range 1 + random.IntN(2) { // doubled
						events = append(events, ev)
					}
					time.Sleep(time.Millisecond)
				}
				random.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
				for _, ev := range events { // late
					told.Go(func() {
						time.Sleep(time.Duration(rand.IntN(2000)) * time.Millisecond)
						w.accept(ev)
					})
				}
				told.Wait()
				w.rest()
				w.proven("us", app, "v1", pushes[49])
				checkForward(t, pushes, seen())

				// A rollback is a push.
				w.push("eu", app, "v1", pushes[0])
				w.proven("us", app, "v1", pushes[0])
				w.rest()
				if s := w.status("prod", "us"); s.Lag != 0 || s.Remaining != 0 {
					t.Errorf("status %s", s)
				}
				if f := w.allFindings(); len(f) != 0 {
					t.Errorf("findings:\n%s", w.describe())
				}
				for _, j := range w.allJobs() {
					if j.State != replicator.Done && j.State != replicator.Superseded {
						t.Errorf("a job ended %s", j.State)
					}
				}
			})
		})
	}
}

// Pushes while the copies run, events in time.
func TestPushesDuringCopies(t *testing.T) {
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		us.on(func(context.Context, ocitest.Call) error { time.Sleep(time.Millisecond); return nil })
		seen := us.watchTag(app, "v1")
		var pushes []ocitest.Content
		for i := range 50 {
			c := ocitest.Image(fmt.Sprint("app", i), 1)
			pushes = append(pushes, c)
			w.push("eu", app, "v1", c)
			time.Sleep(time.Duration(rand.IntN(9)) * time.Millisecond)
		}
		w.rest()
		w.proven("us", app, "v1", pushes[49])
		checkForward(t, pushes, seen())
		if n := us.tagWrites(app, "v1"); n > 50 {
			t.Errorf("%d writes of the tag", n)
		}
	})
}

// A tag that moves while its content is copied is followed, at most so often
// that the destination gets something at last.
func TestATagThatMovesBeforeThePutIsChased(t *testing.T) {
	for name, moves := range map[string]int32{"once": 1, "all the time": 1000} {
		t.Run(name, func(t *testing.T) {
			in(t, star(), func(w *world) {
				eu, us := w.sites["eu"], w.sites["us"]
				pushes := []ocitest.Content{ocitest.Image("app", 1)}
				var mu sync.Mutex
				var moved atomic.Int32
				stopped := false
				seen := us.watchTag(app, "v1")
				us.on(func(_ context.Context, c ocitest.Call) error {
					// The proof reads what was copied: the tag's PUT comes next.
					if c.Method != ocitest.HeadBlob {
						return nil
					}
					mu.Lock()
					move := !stopped && moved.Add(1) <= moves
					if move {
						next := ocitest.Image(fmt.Sprint("app", moved.Load()), 1)
						pushes = append(pushes, next)
						eu.Push(app, "v1", next)
					}
					mu.Unlock()
					if move {
						time.Sleep(2 * rightBefore) // what was read before is too old to count
					}
					return nil
				})
				w.push("eu", app, "v1", pushes[0])
				w.until("the destination has got something", func() bool { return us.names(app, "v1") != "" })
				mu.Lock()
				stopped = true
				mu.Unlock()
				w.rest()
				mu.Lock()
				defer mu.Unlock()
				w.proven("us", app, "v1", pushes[len(pushes)-1])
				checkForward(t, pushes, seen())
				if moves == 1 && us.tagWrites(app, "v1") != 1 {
					t.Errorf("%d writes of the tag: an older state was shown", us.tagWrites(app, "v1"))
				}
			})
		})
	}
}

// No event tells of the second push: the reading after the PUT finds it.
func TestAPushRightAfterThePutGetsASuccessor(t *testing.T) {
	in(t, star(), func(w *world) {
		eu := w.sites["eu"]
		first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
		var once sync.Once
		w.sites["us"].after(func(c ocitest.Call) {
			if c.Method == ocitest.PutManifest && c.Reference == "v1" {
				once.Do(func() { eu.Push(app, "v1", second) })
			}
		})
		w.push("eu", app, "v1", first)
		w.proven("us", app, "v1", second)
		w.rest()
		if w.sites["us"].tagWrites(app, "v1") != 2 {
			t.Errorf("%d writes of the tag", w.sites["us"].tagWrites(app, "v1"))
		}
	})
}

// A push that is accepted while its row runs makes exactly one successor.
func TestPushesToARunningJob(t *testing.T) {
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
		var once sync.Once
		us.on(func(_ context.Context, c ocitest.Call) error {
			if c.Method == ocitest.PutManifest && c.Reference == "v1" {
				once.Do(func() {
					w.push("eu", app, "v1", second)
					w.accept(w.event("eu", app, "v1", second.Digest()), w.event("eu", app, "v1", second.Digest()))
				})
			}
			return nil
		})
		w.push("eu", app, "v1", first)
		w.proven("us", app, "v1", second)
		w.rest()
		if n := us.tagWrites(app, "v1"); n != 2 {
			t.Errorf("%d writes of the tag", n)
		}
		states := make(map[replicator.JobState]int)
		for _, j := range w.allJobs() {
			states[j.State]++
		}
		if states[replicator.Done] != 2 || len(w.allJobs()) != 2 {
			t.Errorf("jobs: %v", states)
		}
	})
}

func TestADaemonThatLostItsLeaseWritesNothing(t *testing.T) {
	in(t, star(), func(w *world) {
		image := ocitest.Image("app", 1)
		w.sites["eu"].Push(app, "v1", image)
		w.accept(w.event("eu", app, "v1", image.Digest()))
		claims, err := w.journal.Claim(context.Background(), journal.ClaimOptions{Max: 1, MaxForeground: 1, Now: w.clock()})
		if err != nil || len(claims) != 1 {
			t.Fatalf("claims %v, %v", claims, err)
		}
		// Another process takes the journal over.
		w.closed()
		w.open()
		before := w.allJobs()
		w.Daemon.run(context.Background(), claims[0])
		if _, ok := w.record("us", app, "v1"); ok {
			t.Error("a record was written without the lease")
		}
		if after := w.allJobs(); !slices.EqualFunc(before, after, func(a, b replicator.Job) bool {
			return a.ID == b.ID && a.State == b.State && a.Generation == b.Generation && a.Attempts == b.Attempts
		}) {
			t.Errorf("the job changed: %+v", after)
		}
		w.start()
		w.rest()
		w.proven("us", app, "v1", image)
	}, idle())
}

// The PUT's deadline lies before the lease's end; without one there is no PUT.
func TestNoTagIsMovedAfterTheLease(t *testing.T) {
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		image := ocitest.Image("app", 1)
		var frozen sync.Once
		us.on(func(ctx context.Context, c ocitest.Call) error {
			switch {
			case c.Method == ocitest.HeadBlob:
				frozen.Do(func() { w.jump(time.Hour) }) // the process was frozen
			case c.Method == ocitest.PutManifest && c.Reference == "v1":
				deadline, ok := ctx.Deadline()
				if !ok || !deadline.Before(w.journal.LeaseUntil()) || w.clock().After(w.journal.LeaseUntil()) {
					t.Errorf("a PUT with deadline %t, lease until %s, now %s", ok, w.journal.LeaseUntil(), w.clock())
				}
			}
			return nil
		})
		w.push("eu", app, "v1", image)
		w.proven("us", app, "v1", image)
		w.rest()
	})
}
