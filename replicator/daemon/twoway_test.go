package daemon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

// pair is two registries that feed each other.
func pair(change ...func(*plan.Route)) []plan.Route {
	routes := []plan.Route{route("there", "eu", "us"), route("back", "us", "eu")}
	for i := range routes {
		for _, f := range change {
			f(&routes[i])
		}
	}
	return routes
}

func (w *world) tagPuts(repository, tag string, names ...string) int {
	n := 0
	for _, name := range names {
		n += w.sites[name].tagWrites(repository, tag)
	}
	return n
}

// settle waits until echoes have come and nothing waits or runs.
func (w *world) settle() {
	w.Helper()
	w.until("all echoes are answered", func() bool {
		w.echoes.Wait()
		return w.openJobs() == 0
	})
}

func TestTwoWaysOnePushIsOneCopy(t *testing.T) {
	for _, from := range []string{"eu", "us"} {
		for _, delay := range []time.Duration{0, 50 * time.Millisecond, 5 * time.Second} {
			t.Run(fmt.Sprint(from, " ", delay), func(t *testing.T) {
				in(t, pair(), func(w *world) {
					w.echo(after(delay), "eu", "us")
					to := map[string]string{"eu": "us", "us": "eu"}[from]
					image, all, _ := signed(w.sites[from], app)
					w.push(from, app, "v1", image)
					w.proven(to, app, "v1", image)
					w.settle()
					if n := w.tagPuts(app, "v1", "eu", "us"); n != 1 {
						t.Errorf("%d writes of the tag", n)
					}
					if n := w.sites[from].Count(ocitest.PutManifest, ocitest.StartUpload); n != 0 {
						t.Errorf("%d writes where it was pushed", n)
					}
					if n := w.sites[to].Count(ocitest.PutUpload); n != distinctBlobs(all...) {
						t.Errorf("%d uploads", n)
					}
					if f := w.allFindings(); len(f) != 0 {
						t.Errorf("findings:\n%s", w.describe())
					}
					for _, name := range []string{"eu", "us"} {
						if r, ok := w.record(name, app, "v1"); !ok || r.Digest != image.Digest() || r.Wrote != (name == to) {
							t.Errorf("record at %s: %+v, %t", name, r, ok)
						}
					}
					// And nothing more, however long one waits.
					writes := w.sites["eu"].Count(ocitest.PutManifest) + w.sites["us"].Count(ocitest.PutManifest)
					time.Sleep(time.Minute)
					w.settle()
					if n := w.sites["eu"].Count(ocitest.PutManifest) + w.sites["us"].Count(ocitest.PutManifest); n != writes {
						t.Errorf("%d writes later", n-writes)
					}
				})
			})
		}
	}
}

func distinctBlobs(contents ...ocitest.Content) int {
	seen := make(map[digest.Digest]bool)
	for _, c := range contents {
		for _, b := range c.Blobs {
			seen[b.Desc.Digest] = true
		}
	}
	return len(seen)
}

func TestTwoWaysManyPushesOnOneSide(t *testing.T) {
	in(t, pair(), func(w *world) {
		eu, us := w.sites["eu"], w.sites["us"]
		w.echo(within(300*time.Millisecond), "eu", "us")
		us.on(func(context.Context, ocitest.Call) error {
			time.Sleep(time.Duration(rand.IntN(2)) * time.Millisecond)
			return nil
		})
		seen := us.watchTag(app, "v1")
		var pushes []ocitest.Content
		for i := range 50 {
			c := ocitest.Image(fmt.Sprint("app", i), 1)
			pushes = append(pushes, c)
			eu.Push(app, "v1", c)
			ev := w.event("eu", app, "v1", c.Digest())
			w.echoes.Go(func() {
				time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
				w.accept(ev)
			})
			time.Sleep(time.Duration(rand.IntN(8)) * time.Millisecond)
		}
		w.settle()
		w.proven("us", app, "v1", pushes[49])
		checkForward(t, pushes, seen())
		if n := eu.tagWrites(app, "v1"); n != 0 {
			t.Errorf("%d writes of the tag where it was pushed", n)
		}
		if n := us.tagWrites(app, "v1"); n > 50 {
			t.Errorf("%d writes of the tag", n)
		}
		if f := w.allFindings(); len(f) != 0 {
			t.Errorf("findings:\n%s", w.describe())
		}
		// A rollback.
		w.push("eu", app, "v1", pushes[0])
		w.settle()
		w.proven("us", app, "v1", pushes[0])
	})
}

func TestTwoWaysPushesInterleaved(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			in(t, pair(), func(w *world) {
				random := rand.New(rand.NewPCG(seed, 7))
				w.echo(within(500*time.Millisecond), "eu", "us")
				pushed := make(map[digest.Digest]ocitest.Content)
				for i := range 50 {
					side := []string{"eu", "us"}[random.IntN(2)]
					c := ocitest.Image(fmt.Sprint("app", i), 1)
					pushed[c.Digest()] = c
					w.sites[side].Push(app, "v1", c)
					ev := w.event(side, app, "v1", c.Digest())
					wait := time.Duration(random.IntN(200)) * time.Millisecond
					w.echoes.Go(func() {
						time.Sleep(wait)
						w.accept(ev)
					})
					time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
				}
				w.echoes.Wait()
				time.Sleep(10 * time.Second)
				w.echoes.Wait()
				a, b := w.sites["eu"].names(app, "v1"), w.sites["us"].names(app, "v1")
				conflicts := w.found(replicator.FindingConflict)
				switch {
				case a == b:
					w.settle()
				case len(conflicts) == 0:
					t.Errorf("the ends differ without a conflict:\n%s", w.describe())
				default:
					for _, d := range []digest.Digest{a, b} {
						for _, name := range []string{"eu", "us"} {
							if !w.sites[name].Has(app, pushed[d]) {
								t.Errorf("%s is not whole at %s", d, name)
							}
						}
					}
				}
				if n := w.tagPuts(app, "v1", "eu", "us"); n > 50 {
					t.Errorf("%d writes of the tag", n)
				}
			})
		})
	}
}

// A push to the very tag that is being moved, between our look and our PUT, is
// not lost: neither end is an older state of the other.
func TestTwoWaysAPushDuringTheCopyIsNotOverwritten(t *testing.T) {
	in(t, pair(), func(w *world) {
		us := w.sites["us"]
		first, ours, theirs := ocitest.Image("first", 1), ocitest.Image("ours", 1), ocitest.Image("theirs", 1)
		w.push("eu", app, "v1", first)
		w.proven("us", app, "v1", first)
		w.settle()
		var pushed atomic.Bool
		us.on(func(_ context.Context, c ocitest.Call) error {
			if c.Method == ocitest.HeadBlob && !pushed.Swap(true) {
				w.push("us", app, "v1", theirs)
				time.Sleep(2 * rightBefore)
			}
			return nil
		})
		w.push("eu", app, "v1", ours)
		w.until("a conflict", func() bool { return len(w.found(replicator.FindingConflict)) > 0 })
		if us.names(app, "v1") != theirs.Digest() || w.sites["eu"].names(app, "v1") != ours.Digest() {
			t.Errorf("eu names %s, us names %s", w.sites["eu"].names(app, "v1"), us.names(app, "v1"))
		}
	})
}

// clash makes both ends differ: each was pushed on its own.
func clash(w *world, apart time.Duration) (eu, us ocitest.Content) {
	base := ocitest.Image("base", 1)
	w.push("eu", app, "v1", base)
	w.proven("us", app, "v1", base)
	w.settle()
	eu, us = ocitest.MultiArch("of eu", 2, 1), ocitest.Image("of us", 2)
	first, second := w.event("eu", app, "v1", eu.Digest()), w.event("us", app, "v1", us.Digest())
	second.PushedAt = second.PushedAt.Add(-time.Second)
	first.PushedAt = second.PushedAt.Add(-apart)
	w.sites["eu"].Push(app, "v1", eu)
	w.sites["us"].Push(app, "v1", us)
	w.accept(first, second)
	return eu, us
}

func TestTwoWaysConflict(t *testing.T) {
	for _, prefer := range []string{"eu", "us"} {
		t.Run(prefer, func(t *testing.T) {
			in(t, pair(), func(w *world) {
				w.echo(after(50*time.Millisecond), "eu", "us")
				ofEU, ofUS := clash(w, 0)
				w.until("a conflict", func() bool { return len(w.found(replicator.FindingConflict)) == 1 })
				time.Sleep(time.Minute)
				w.echoes.Wait()
				if n := w.tagPuts(app, "v1", "eu", "us"); n != 1 {
					t.Errorf("%d writes of the tag", n)
				}
				for _, name := range []string{"eu", "us"} {
					for _, c := range []ocitest.Content{ofEU, ofUS} {
						if !w.sites[name].Has(app, c) {
							t.Errorf("%s is not whole at %s", c.Digest(), name)
						}
					}
				}
				f := w.found(replicator.FindingConflict)
				if len(f) != 1 || f[0].Tag != "v1" || f[0].Hint == "" {
					t.Errorf("findings:\n%s", w.describe())
				}
				if s := w.status("there", "us"); s.Lag < time.Minute || s.Remaining != 1 {
					t.Errorf("status %s", s)
				}

				if _, err := w.Resolve(context.Background(), "eu", app, "v1", "nowhere", "test"); !errors.Is(err, ErrNoConflict) {
					t.Errorf("resolved towards nowhere: %v", err)
				}
				chosen := map[string]ocitest.Content{"eu": ofEU, "us": ofUS}[prefer]
				d, err := w.Resolve(context.Background(), "us", app, "v1", prefer, "test")
				if err != nil || d != chosen.Digest() {
					t.Fatalf("resolved as %s, %v", d, err)
				}
				w.settle()
				for _, name := range []string{"eu", "us"} {
					w.proven(name, app, "v1", chosen)
				}
				if s := w.status("there", "us"); s.Lag != 0 || s.Remaining != 0 {
					t.Errorf("status %s", s)
				}
				if _, err := w.Resolve(context.Background(), "us", app, "v1", prefer, "test"); !errors.Is(err, ErrNoConflict) {
					t.Errorf("resolved twice: %v", err)
				}
			})
		})
	}
}

// A later push to one side of a conflict that makes both equal ends it.
func TestTwoWaysAConflictEndsWhenBothAgree(t *testing.T) {
	in(t, pair(), func(w *world) {
		ofEU, _ := clash(w, 0)
		w.until("a conflict", func() bool { return len(w.found(replicator.FindingConflict)) == 1 })
		w.push("us", app, "v1", ofEU)
		w.settle()
		w.proven("us", app, "v1", ofEU)
		w.proven("eu", app, "v1", ofEU)
	})
}

// A move that the other side refused was not made: what a user pushed here has
// moved, and is not given up for what is pushed there meanwhile.
func TestTwoWaysARefusedMoveIsNotBegun(t *testing.T) {
	for name, why := range map[string]error{
		"throttled": &oci.ThrottledError{Err: errors.New("too many requests")},
		"denied":    &oci.RegistryError{Status: 403, Kind: oci.ErrDenied},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, pair(), func(w *world) {
				eu, us := w.sites["eu"], w.sites["us"]
				here, there := ocitest.Image("here", 1), ocitest.Image("there", 1)
				var refused atomic.Bool
				eu.on(func(_ context.Context, c ocitest.Call) error {
					if c.Method != ocitest.PutManifest || c.Reference != "v1" {
						return nil
					}
					refused.Store(true)
					return why
				})
				w.push("us", app, "v1", here)
				w.until("it is refused", refused.Load)
				eu.Push(app, "v1", there)
				eu.off()
				w.accept(w.event("eu", app, "v1", there.Digest()))
				w.until("they are in conflict", func() bool { return len(w.found(replicator.FindingConflict)) == 1 })
				if eu.names(app, "v1") != there.Digest() || us.names(app, "v1") != here.Digest() {
					t.Errorf("eu names %s, us names %s", eu.names(app, "v1"), us.names(app, "v1"))
				}
			})
		})
	}
}

// A move without an answer, refused when it is tried again, may have been made
// the first time: when it comes late it is no push of anybody's.
func TestTwoWaysALateMoveThatWasRefusedAgainIsOurs(t *testing.T) {
	in(t, pair(), func(w *world) {
		eu, us := w.sites["eu"], w.sites["us"]
		first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
		var tries atomic.Int32
		eu.on(func(_ context.Context, c ocitest.Call) error {
			if c.Method != ocitest.PutManifest || c.Reference != "v1" {
				return nil
			}
			if tries.Add(1) == 1 {
				return &oci.RegistryError{Kind: oci.ErrInterrupted}
			}
			return &oci.ThrottledError{Err: errors.New("too many requests")}
		})
		w.push("us", app, "v1", first)
		w.until("it is refused", func() bool { return tries.Load() > 1 })
		eu.Push(app, "v1", first) // the first try's
		us.Push(app, "v1", second)
		eu.off()
		w.accept(w.event("us", app, "v1", second.Digest()))
		w.until("it has gone over", func() bool { return eu.names(app, "v1") == second.Digest() })
		w.rest()
		if f := w.found(replicator.FindingConflict); len(f) != 0 {
			t.Errorf("findings:\n%s", w.describe())
		}
	})
}

func TestTwoWaysConflictPolicies(t *testing.T) {
	newest := func(r *plan.Route) { r.Conflict = "newest" }
	preferring := func(name string) func(*plan.Route) {
		return func(r *plan.Route) { r.Conflict, r.Prefer = "prefer", name }
	}
	one := func(f func(*plan.Route)) []plan.Route {
		routes := pair()
		f(&routes[0])
		return routes
	}
	for _, test := range []struct {
		name   string
		routes []plan.Route
		apart  time.Duration // us was pushed so much later
		wins   string        // empty: a conflict
	}{
		{"newest, us", pair(newest), 11 * time.Second, "us"},
		{"newest, eu", pair(newest), -11 * time.Second, "eu"},
		{"newest, too close", pair(newest), 9 * time.Second, ""},
		{"newest, too close the other way", pair(newest), -9 * time.Second, ""},
		{"prefer eu", pair(preferring("eu")), time.Minute, "eu"},
		{"prefer us", pair(preferring("us")), -time.Minute, "us"},
		{"prefer us by one route", one(preferring("us")), -time.Minute, "us"},
		{"newest by one route", one(newest), time.Minute, "us"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, test.routes, func(w *world) {
				ofEU, ofUS := clash(w, test.apart)
				if test.wins == "" {
					w.until("a conflict", func() bool { return len(w.found(replicator.FindingConflict)) == 1 })
					return
				}
				w.settle()
				chosen := map[string]ocitest.Content{"eu": ofEU, "us": ofUS}[test.wins]
				for _, name := range []string{"eu", "us"} {
					w.proven(name, app, "v1", chosen)
				}
				if f := w.found(replicator.FindingConflict); len(f) != 0 {
					t.Errorf("findings:\n%s", w.describe())
				}
			})
		})
	}
}

func TestTwoWaysNewestNeedsSendersTimes(t *testing.T) {
	in(t, pair(func(r *plan.Route) { r.Conflict = "newest" }), func(w *world) {
		w.sites["eu"].Push(app, "v1", ocitest.Image("of eu", 1))
		w.sites["us"].Push(app, "v1", ocitest.Image("of us", 1))
		first := w.event("eu", app, "v1", w.sites["eu"].names(app, "v1"))
		second := w.event("us", app, "v1", w.sites["us"].names(app, "v1"))
		first.PushedAt, second.SenderTime = first.PushedAt.Add(-time.Hour), false
		w.accept(first, second)
		w.until("a conflict", func() bool { return len(w.found(replicator.FindingConflict)) == 1 })
	})
}

// Cut off between intent and PUT, and between PUT and the end.
func TestTwoWaysConvergeAfterACrash(t *testing.T) {
	for name, arrived := range map[string]bool{"before the PUT": false, "after the PUT": true} {
		for _, meanwhile := range []string{"nothing", "push here", "push there"} {
			t.Run(name+", "+meanwhile, func(t *testing.T) {
				in(t, pair(), func(w *world) {
					eu, us := w.sites["eu"], w.sites["us"]
					first, second, third := ocitest.Image("one", 1), ocitest.Image("two", 1), ocitest.Image("three", 1)
					w.push("eu", app, "v1", first)
					w.proven("us", app, "v1", first)
					w.settle()

					cut := make(chan struct{})
					crashed := make(chan struct{})
					var once sync.Once
					stuck := func() {
						once.Do(func() { close(cut); <-crashed })
					}
					if arrived {
						us.after(func(c ocitest.Call) {
							if c.Method == ocitest.PutManifest && c.Reference == "v1" {
								stuck()
							}
						})
					} else {
						us.on(func(ctx context.Context, c ocitest.Call) error {
							if c.Method == ocitest.PutManifest && c.Reference == "v1" {
								stuck()
								return ctx.Err()
							}
							return nil
						})
					}
					w.push("eu", app, "v1", second)
					<-cut
					// The process is gone: what it does from here on has no journal.
					cancel, ended := w.cancel, w.ended
					if !arrived {
						us.on(func(_ context.Context, c ocitest.Call) error {
							if c.Method == ocitest.PutManifest && c.Reference == "v1" {
								return oci.ErrUnreachable
							}
							return nil
						})
					}
					w.closed()
					cancel()
					close(crashed)
					<-ended
					us.off()
					w.open()
					switch meanwhile {
					case "push here":
						w.push("eu", app, "v1", third)
					case "push there":
						w.push("us", app, "v1", third)
					}
					w.start()
					w.settle()
					want := second
					if meanwhile != "nothing" {
						want = third
					}
					if meanwhile == "push there" && !arrived {
						// eu went to two, us from one to three: both moved by themselves,
						// or eu's two was begun: an intent, which has not moved.
						w.until("equal or in conflict", func() bool {
							return eu.names(app, "v1") == us.names(app, "v1") || len(w.found(replicator.FindingConflict)) > 0
						})
						return
					}
					w.proven(map[bool]string{true: "eu", false: "us"}[meanwhile == "push there"], app, "v1", want)
					if a, b := eu.names(app, "v1"), us.names(app, "v1"); a != b {
						t.Errorf("eu names %s, us names %s", a, b)
					}
				})
			})
		}
	}
}

func TestARingOfThree(t *testing.T) {
	ring := []plan.Route{route("one", "eu", "us"), route("two", "us", "ap"), route("three", "ap", "eu")}
	in(t, ring, func(w *world) {
		w.echo(within(100*time.Millisecond), "eu", "us", "ap")
		names := []string{"eu", "us", "ap"}
		for i := range 6 {
			c := ocitest.Image(fmt.Sprint("app", i), 1)
			w.push(names[i%3], app, "v1", c)
			for _, name := range names {
				w.until("it is everywhere", func() bool { return w.sites[name].names(app, "v1") == c.Digest() })
			}
			w.settle()
			if n := w.tagPuts(app, "v1", names...); n != 2*(i+1) {
				t.Errorf("%d writes of the tag after %d pushes", n, i+1)
			}
		}
		if f := w.allFindings(); len(f) != 0 {
			t.Errorf("findings:\n%s", w.describe())
		}
		time.Sleep(time.Minute)
		if n := w.tagPuts(app, "v1", names...); n != 12 {
			t.Errorf("%d writes of the tag in the end", n)
		}
	})
}

func TestManyPushesIntoARing(t *testing.T) {
	ring := []plan.Route{route("one", "eu", "us"), route("two", "us", "ap"), route("three", "ap", "eu")}
	in(t, ring, func(w *world) {
		w.echo(within(100*time.Millisecond), "eu", "us", "ap")
		var last ocitest.Content
		for i := range 15 {
			last = ocitest.Image(fmt.Sprint("app", i), 1)
			w.push("eu", app, "v1", last)
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		}
		w.settle()
		for _, name := range []string{"eu", "us", "ap"} {
			if d := w.sites[name].names(app, "v1"); d != last.Digest() {
				t.Errorf("%s names %s", name, d)
			}
		}
		if n := w.tagPuts(app, "v1", "eu"); n != 0 {
			t.Errorf("%d writes of the tag where it was pushed", n)
		}
		if n := w.tagPuts(app, "v1", "us", "ap"); n > 30 {
			t.Errorf("%d writes of the tag", n)
		}
	})
}

// Signed at both sides: each ends with the union.
func TestTwoWaysReferrersAreUnited(t *testing.T) {
	for name, options := range map[string][2]ocitest.Options{
		"fallback tags":     {},
		"APIs":              {{ReferrersAPI: true}, {ReferrersAPI: true}},
		"one has the other": {{ReferrersAPI: true}, {}},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, pair(), func(w *world) {
				w.echo(within(100*time.Millisecond), "eu", "us")
				image := ocitest.Image("app", 1)
				w.push("eu", app, "v1", image)
				w.proven("us", app, "v1", image)
				w.settle()
				var all []ocitest.Content
				for i, side := range []string{"eu", "us", "eu"} {
					c := ocitest.Artifact(fmt.Sprint("sbom", i), "application/spdx+json", new(image.Descriptor()))
					all = append(all, c)
					w.sites[side].Attach(app, c)
					fallback := oci.FallbackTag(image.Digest())
					untagged := w.event(side, app, "", c.Digest())
					untagged.MayRefer = true
					w.accept(untagged)
					if d := w.sites[side].names(app, fallback); d != "" {
						w.accept(w.event(side, app, fallback, d))
					}
				}
				w.settle()
				for _, side := range []string{"eu", "us"} {
					listed := make(map[digest.Digest]bool)
					repo := w.sites[side].Repository(app)
					for desc, err := range repo.Referrers(context.Background(), image.Digest()) {
						if err == nil {
							listed[desc.Digest] = true
						}
					}
					if m, ok := w.sites[side].Manifest(app, oci.FallbackTag(image.Digest())); ok {
						refs, err := oci.ParseReferences(m)
						if err != nil {
							t.Fatal(err)
						}
						for _, desc := range refs.Manifests {
							listed[desc.Digest] = true
						}
					}
					for i, c := range all {
						if !w.sites[side].Has(app, c) || !listed[c.Digest()] {
							t.Errorf("referrer %d: at %s %t, listed %t\n%s", i, side, w.sites[side].Has(app, c), listed[c.Digest()], w.describe())
						}
					}
				}
				writes := w.sites["eu"].Count(ocitest.PutManifest) + w.sites["us"].Count(ocitest.PutManifest)
				time.Sleep(time.Minute)
				w.settle()
				if n := w.sites["eu"].Count(ocitest.PutManifest) + w.sites["us"].Count(ocitest.PutManifest); n != writes {
					t.Errorf("%d writes later", n-writes)
				}
			}, having("eu", options[0]), having("us", options[1]))
		})
	}
}

// Both ends name the same, and one has lost something below it.
func TestTwoWaysAHollowEndIsRepaired(t *testing.T) {
	image := ocitest.MultiArch("app", 2, 2)
	for _, at := range []string{"eu", "us"} {
		t.Run(at, func(t *testing.T) {
			in(t, pair(), func(w *world) {
				w.push("eu", app, "v1", image)
				w.proven("us", app, "v1", image)
				w.settle()
				look := func() {
					w.jump(13 * time.Hour) // the proofs are due
					w.accept(w.event("eu", app, "v1", image.Digest()), w.event("us", app, "v1", image.Digest()))
					w.settle()
				}
				look()
				w.proven("eu", app, "v1", image)
				time.Sleep(time.Minute) // what proofs share has aged
				w.sites[at].Remove(app, image.Blobs[1].Desc.Digest)
				look()
				w.proven(at, app, "v1", image)
				if f := w.found(replicator.FindingMissing); len(f) == 0 || f[0].Registry != at {
					t.Errorf("findings:\n%s", w.describe())
				}
			})
		})
	}
}

// A digest that both ends have had before is a push like any other.
func TestTwoWaysARollbackGoesOver(t *testing.T) {
	first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
	in(t, pair(), func(w *world) {
		w.push("eu", app, "v1", first)
		w.proven("us", app, "v1", first)
		w.settle()
		w.push("us", app, "v1", second)
		w.proven("eu", app, "v1", second)
		w.settle()
		w.push("eu", app, "v1", first)
		w.until("us goes back, too", func() bool { return w.sites["us"].names(app, "v1") == first.Digest() })
		w.settle()
		if got := w.sites["eu"].names(app, "v1"); got != first.Digest() || len(w.allFindings()) != 0 {
			t.Errorf("eu names %s\n%s", got, w.describe())
		}
	})
}
