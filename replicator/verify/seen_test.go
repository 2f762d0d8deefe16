package verify

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// A shared proof asks once for what several images of a repository have in
// common, and only there.
func TestProofsShareWhatOneHasSeen(t *testing.T) {
	layer := ocitest.Layer("base", 1000)
	one, two := ocitest.ImageOf("one", layer), ocitest.ImageOf("two", layer)
	us := ocitest.New("oci://us", ocitest.Options{})
	for _, repo := range []string{app, "team/other"} {
		us.Push(repo, "one", one)
		us.Push(repo, "two", two)
	}
	seen := &Seen{}
	prove := func(repo string, c ocitest.Content) {
		t.Helper()
		r, err := Content(t.Context(), us.Repository(repo), c.Root(), Options{Seen: seen, Identity: us.Identity()})
		if err != nil || !r.Sound() {
			t.Errorf("%s: %+v %v", repo, r, err)
		}
	}
	asked := func(repo string) (n int) {
		for _, call := range us.Calls() {
			if call.Method == ocitest.HeadBlob && call.Repository == repo && call.Reference == layer.Desc.Digest.String() {
				n++
			}
		}
		return n
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { prove(app, one) })
		all.Go(func() { prove(app, two) })
	}
	all.Wait()
	prove("team/other", one)
	if asked(app) != 1 || asked("team/other") != 1 {
		t.Errorf("asked %d and %d times, want once each", asked(app), asked("team/other"))
	}
	us.Remove(app, layer.Desc.Digest)
	seen.Forget(us.Identity(), app)
	if r, err := Content(t.Context(), us.Repository(app), one.Root(), Options{Seen: seen, Identity: us.Identity()}); err != nil || r.Sound() {
		t.Errorf("after the layer was lost: %+v %v", r, err)
	}
}

func TestWhatWasSeenAgesAndFailuresAreNotShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen, asked := &Seen{}, 0
		key := sight{"oci://us", app, "sha256:00", 1}
		look := func(err error) error {
			return seen.once(t.Context(), key, func() error {
				asked++
				time.Sleep(time.Second)
				return err
			})
		}
		if err := look(oci.ErrNotFound); !errors.Is(err, oci.ErrNotFound) {
			t.Error(err)
		}
		counts := []int{}
		for _, wait := range []time.Duration{0, seenHolds - 2*time.Second, 2 * time.Second} {
			time.Sleep(wait)
			if err := look(nil); err != nil {
				t.Error(err)
			}
			counts = append(counts, asked)
		}
		if want := []int{2, 2, 3}; !slices.Equal(counts, want) {
			t.Errorf("asked %v times, want %v", counts, want)
		}
		// One that waits for another's answer gives up with its context, and asks
		// for itself where the other fails.
		time.Sleep(seenHolds)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { _ = look(oci.ErrInterrupted) })
		synctest.Wait()
		all.Go(func() {
			if err := seen.once(ctx, key, func() error { return nil }); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		all.Go(func() {
			if err := look(nil); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		cancel()
		all.Wait()
		if asked != 5 {
			t.Errorf("asked %d times, want 5", asked)
		}
	})
}

// What is too old to be shared is not kept, and what is kept has a bound.
func TestWhatWasSeenIsNotKept(t *testing.T) {
	now := time.Unix(0, 0)
	seen := &Seen{Now: func() time.Time { return now }}
	see := func(n int) (asked bool) {
		t.Helper()
		key := sight{"oci://us", app, digest.Digest(strconv.Itoa(n)), 1}
		if err := seen.once(t.Context(), key, func() error { asked = true; return nil }); err != nil {
			t.Fatal(err)
		}
		return asked
	}
	kept := func() int { return len(seen.sights) + len(seen.before) }
	for n := range 3 * maxSeen {
		if !see(n) {
			t.Fatalf("%d was never asked for", n)
		}
		if kept() > 2*maxSeen {
			t.Fatalf("%d are kept", kept())
		}
	}
	if see(3*maxSeen-1) || see(2*maxSeen) {
		t.Error("one seen a moment ago is asked for again")
	}
	for range 2 {
		now = now.Add(seenHolds)
		see(-1)
	}
	if kept() > 2 {
		t.Errorf("%d are kept though all but one are too old", kept())
	}
	seen.Forget("oci://us", app)
	if kept() != 0 {
		t.Error("a repository that was forgotten is kept")
	}
}
