package sweep

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

func TestDestinationFails(t *testing.T) {
	w := newWorld(t, ocitest.Options{})
	for _, name := range []string{"a", "b"} {
		w.twins(name, "v1", 1)
		w.eu.Push(name, "v2", image(name))
	}
	w.request.Destinations[0].Registry = altered{Registry: w.us, tags: func(name string, tags iter.Seq2[oci.Tag, error]) iter.Seq2[oci.Tag, error] {
		if name == "a" {
			return cutAfter(0, oci.ErrInterrupted, tags)
		}
		return tags
	}}
	result := w.sweep()
	if diff := cmp.Diff([]string{"ap a:v2 missing", "ap b:v2 missing", "us b:v2 missing"}, w.lines()); diff != "" {
		t.Error(diff)
	}
	if !errors.Is(result.Failed["us"], oci.ErrInterrupted) || result.Failed["ap"] != nil || !result.Complete || len(result.Voided) != 0 {
		t.Errorf("got %+v", result)
	}
	if len(w.checkpoints) != 0 {
		t.Errorf("checkpoints past a failure: %v", w.checkpoints)
	}
}

func TestDestinationGivenUp(t *testing.T) {
	w := newWorld(t, ocitest.Options{})
	w.request.Concurrency = 1
	for i := range 20 {
		w.twins(fmt.Sprintf("app%02d", i), "v1", 1)
	}
	w.us.OnCall(func(context.Context, ocitest.Call) error { return oci.ErrUnreachable })
	result := w.sweep()
	if n := w.us.Count(); n != giveUpAfter {
		t.Errorf("%d requests at a destination that does not answer, want %d", n, giveUpAfter)
	}
	if !errors.Is(result.Failed["us"], oci.ErrUnreachable) || !result.Complete || result.InSync != 20 {
		t.Errorf("got %+v", result)
	}
	w.ap.OnCall(func(context.Context, ocitest.Call) error { return oci.ErrUnreachable })
	if result := w.sweep(); result.Complete || len(result.Failed) != 2 || result.Repositories > giveUpAfter+1 {
		t.Errorf("nobody left to compare with: %+v", result)
	}
}

// What a destination that does not answer lacks by its records is told, even
// where no destination answers; nothing is called lost.
func TestDestinationUnreached(t *testing.T) {
	for _, options := range []ocitest.Options{{}, {ListDigests: true}} {
		w := newWorld(t, options)
		w.request.Concurrency, w.request.Unreached = 1, true
		for i := range 10 {
			w.twins(fmt.Sprintf("app%02d", i), "v1", 1)
		}
		for i := range 10 {
			name := fmt.Sprintf("app%02d", i)
			w.eu.Push(name, "v2", image("two"))
			w.ap.Push(name, "v2", image("two"))
			w.records.add("oci://ap", name, "v2", image("two").Digest(), now.Add(-time.Hour))
		}
		w.eu.Push("app09", "v1", image("moved"))
		dead := func(context.Context, ocitest.Call) error { return oci.ErrUnreachable }
		w.us.OnCall(dead)
		result := w.sweep()
		want := []string{"ap app09:v1 differs"}
		for i := range 10 {
			want = append(want, fmt.Sprintf("us app%02d:v2 destination does not answer", i))
		}
		want = append(want, "us app09:v1 destination does not answer")
		slices.Sort(want)
		if diff := cmp.Diff(want, w.lines()); diff != "" {
			t.Error(diff)
		}
		if n := w.us.Count(); n != giveUpAfter || !errors.Is(result.Failed["us"], oci.ErrUnreachable) || !result.Complete || len(result.Voided) > 0 || len(w.checkpoints) > 0 {
			t.Errorf("%d requests, %+v, checkpoints %v", n, result, w.checkpoints)
		}
		w.ap.OnCall(dead)
		w.emitted = nil
		if result := w.sweep(); !result.Complete || len(result.Failed) != 2 || len(w.emitted) != 12 {
			t.Errorf("nobody answers: %d told, %+v", len(w.emitted), result)
		}
		// One that answers, and refuses, is no dead one.
		w.us.OnCall(func(context.Context, ocitest.Call) error { return oci.ErrDenied })
		w.only("us")
		w.emitted = nil
		if result := w.sweep(); len(w.emitted) != 0 || !errors.Is(result.Failed["us"], oci.ErrDenied) {
			t.Errorf("%v, %+v", w.lines(), result)
		}
	}
}

func TestSourceFails(t *testing.T) {
	t.Run("a page of tags", func(t *testing.T) {
		w := newWorld(t, ocitest.Options{})
		w.only("us")
		for _, name := range []string{"a", "b", "c"} {
			w.eu.Push(name, "v1", image("1"))
			w.eu.Push(name, "v2", image("2"))
		}
		w.request.Source = altered{Registry: w.eu, tags: func(name string, tags iter.Seq2[oci.Tag, error]) iter.Seq2[oci.Tag, error] {
			if name == "b" {
				return cutAfter(1, oci.ErrInterrupted, tags)
			}
			return tags
		}}
		w.request.Concurrency = 1
		result := w.sweep()
		if result.Complete || !errors.Is(result.Sources, oci.ErrInterrupted) || result.Emitted != 4 || len(result.Failed) != 0 {
			t.Errorf("got %+v %v", result, w.lines())
		}
		if diff := cmp.Diff([]string{"a"}, w.checkpoints); diff != "" {
			t.Errorf("a cursor past what failed: %s", diff)
		}
	})
	t.Run("a page of the catalog", func(t *testing.T) {
		w := newWorld(t, ocitest.Options{})
		w.only("us")
		w.eu.Push("a", "v1", image("1"))
		w.eu.Push("b", "v1", image("1"))
		w.request.Source = altered{Registry: w.eu, names: func(names iter.Seq2[string, error]) iter.Seq2[string, error] {
			return cutAfter(1, oci.ErrInterrupted, names)
		}}
		result := w.sweep()
		if result.Complete || !errors.Is(result.Sources, oci.ErrInterrupted) || result.Emitted != 1 {
			t.Errorf("got %+v", result)
		}
	})
	t.Run("one HEAD", func(t *testing.T) {
		w := newWorld(t, ocitest.Options{})
		w.only("us")
		for _, tag := range []string{"v1", "v2", "v3"} {
			w.eu.Push("a", tag, image(tag))
		}
		w.eu.OnCall(func(_ context.Context, c ocitest.Call) error {
			if c.Method == ocitest.HeadManifest && c.Reference == "v2" {
				return oci.ErrDenied
			}
			return nil
		})
		result := w.sweep()
		if result.Complete || !errors.Is(result.Sources, oci.ErrDenied) || result.Emitted != 2 || result.Tags != 2 {
			t.Errorf("got %+v", result)
		}
	})
	t.Run("a repository may not be read", func(t *testing.T) {
		const tags, withheld = 1000, refusedAfter - 1
		w := newWorld(t, ocitest.Options{})
		w.only("us")
		w.request.Rules = rules{newest: tags}
		for i := range tags {
			tag := fmt.Sprintf("v%04d", i)
			w.eu.Push("denied", tag, image("1"))
			w.eu.Push("scanned", tag, image("1"))
		}
		var answered atomic.Int64
		w.eu.OnCall(func(_ context.Context, c ocitest.Call) error {
			if c.Method != ocitest.HeadManifest {
				return nil
			}
			if c.Repository == "denied" || c.Reference < fmt.Sprintf("v%04d", withheld) {
				return oci.ErrDenied
			}
			answered.Add(1)
			return nil
		})
		result := w.sweep()
		asked := 0
		for _, c := range w.eu.Calls() {
			if c.Method == ocitest.HeadManifest && c.Repository == "denied" {
				asked++
			}
		}
		if asked < refusedAfter || asked > refusedAfter+heads {
			t.Errorf("%d tags were asked for where all are refused", asked)
		}
		// Images that a registry withholds one by one cost no other.
		if answered.Load() != tags-withheld || result.Emitted != tags-withheld || result.Repositories != 2 {
			t.Errorf("%d answered, %+v", answered.Load(), result)
		}
		if result.Complete || !errors.Is(result.Sources, oci.ErrDenied) || strings.Count(result.Sources.Error(), "eu/denied refuses tag after tag") != 1 {
			t.Errorf("got %v, complete %v", result.Sources, result.Complete)
		}
		if len(w.checkpoints) != 0 {
			t.Errorf("checkpoints past a failure: %v", w.checkpoints)
		}
	})
	t.Run("a tag without its manifest", func(t *testing.T) {
		w := newWorld(t, ocitest.Options{})
		w.only("us")
		w.eu.Push("a", "v1", image("1"))
		w.eu.Push("a", "v2", image("2"))
		w.eu.Remove("a", image("2").Digest())
		result := w.sweep()
		if !result.Complete || result.Emitted != 1 || len(result.Findings) != 1 || result.Findings[0].Kind != replicator.FindingSourceIncomplete || result.Findings[0].Tag != "v2" {
			t.Errorf("got %+v", result)
		}
	})
	t.Run("it stops answering", func(t *testing.T) {
		w := newWorld(t, ocitest.Options{})
		const repositories = 10
		for i := range 3000 {
			w.eu.Push(fmt.Sprintf("app%d", i%repositories), fmt.Sprintf("v%d", i), image("1"))
		}
		var n atomic.Int64
		w.eu.OnCall(func(_ context.Context, c ocitest.Call) error {
			if n.Add(1) > 100 {
				return oci.ErrUnreachable
			}
			return nil
		})
		result := w.sweep()
		if count := w.eu.Count(); count > 100+giveUpAfter+repositories*(heads+1) { // what was under way, and a tag list each
			t.Errorf("%d requests at a source that no longer answers", count)
		}
		if result.Complete || !errors.Is(result.Sources, oci.ErrUnreachable) {
			t.Errorf("got %+v", result)
		}
	})
}

func TestCallbackFails(t *testing.T) {
	broken := errors.New("the journal is closed")
	for _, tt := range []struct {
		name     string
		sabotage func(w *world)
	}{
		{"emit", func(w *world) { w.request.Emit = func(context.Context, []Difference) error { return broken } }},
		{"checkpoint", func(w *world) { w.request.Checkpoint = func(context.Context, string) error { return broken } }},
		{"void", func(w *world) { w.request.Void = func(context.Context, replicator.Place) error { return broken } }},
		{"records", func(w *world) { w.records.err = broken }},
		{"first sight", func(w *world) {
			w.request.Rules = rules{newest: 1}
			w.request.FirstSeen = func(context.Context, replicator.Place, string, digest.Digest) (time.Time, error) {
				return time.Time{}, broken
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, ocitest.Options{})
			for i := range 50 {
				w.twins(fmt.Sprintf("app%d", i), "v1", 1)
			}
			w.us.SetTag("app0", "v1", "")
			tt.sabotage(w)
			result, err := Sweep(context.Background(), w.request)
			if !errors.Is(err, broken) || result.Complete {
				t.Errorf("got %v, complete %v", err, result.Complete)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	for _, method := range []ocitest.Method{ocitest.Catalog, ocitest.ListTags, ocitest.HeadManifest} {
		for _, at := range []string{"eu", "us"} {
			t.Run(at+" "+string(method), func(t *testing.T) {
				w := newWorld(t, ocitest.Options{})
				for i := range 50 {
					w.twins(fmt.Sprintf("app%d", i), "v1", 1)
					w.us.SetTag(fmt.Sprintf("app%d", i), "v1", "")
				}
				ctx, cancel := context.WithCancelCause(context.Background())
				stopped := errors.New("stopped")
				r := map[string]*ocitest.Registry{"eu": w.eu, "us": w.us}[at]
				hit := false
				r.OnCall(func(ctx context.Context, c ocitest.Call) error {
					if c.Method == method {
						hit = true
						cancel(stopped)
						<-ctx.Done()
						return ctx.Err()
					}
					return nil
				})
				w.request.Concurrency = 1
				result, err := Sweep(ctx, w.request)
				if at == "us" && method == ocitest.Catalog {
					if hit || err != nil {
						t.Errorf("a destination's catalog was asked for: %v", err)
					}
					return
				}
				if !hit || !errors.Is(err, stopped) || result.Complete || result.Sources != nil || len(result.Failed) != 0 {
					t.Errorf("hit %v: got %v, %+v", hit, err, result)
				}
			})
		}
	}
}

// A blocked Emit holds the sweep up instead of filling memory.
func TestBackPressure(t *testing.T) {
	w := newWorld(t, ocitest.Options{ListDigests: true})
	for i := range 20 {
		for j := range 300 {
			w.eu.Push(fmt.Sprintf("app%02d", i), fmt.Sprintf("v%d", j), image("1"))
		}
	}
	var inside, most atomic.Int64
	held := make(chan struct{})
	first := true
	w.request.Emit = func(_ context.Context, ds []Difference) error {
		most.Store(max(most.Load(), inside.Add(1)))
		defer inside.Add(-1)
		if len(ds) > batch {
			t.Errorf("%d at a time", len(ds))
		}
		if first {
			first = false
			<-held
		}
		return nil
	}
	done := make(chan Result)
	go func() {
		result, err := Sweep(context.Background(), w.request)
		if err != nil {
			t.Error(err)
		}
		done <- result
	}()
	for w.eu.Count(ocitest.ListTags) < sideBySide {
		select {
		case <-done:
			t.Fatal("the sweep ended beside a blocked Emit")
		default:
			runtime.Gosched()
		}
	}
	if n := w.eu.Count(ocitest.ListTags); n > sideBySide+1 {
		t.Errorf("%d repositories were begun meanwhile", n)
	}
	close(held)
	if result := <-done; result.Emitted != 2*20*300 || most.Load() != 1 {
		t.Errorf("got %+v, %d at once", result, most.Load())
	}
}

func TestCursor(t *testing.T) {
	names := func(order ...string) func(iter.Seq2[string, error]) iter.Seq2[string, error] {
		return func(iter.Seq2[string, error]) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				for _, name := range order {
					if !yield(name, nil) {
						return
					}
				}
			}
		}
	}
	for _, tt := range []struct {
		name        string
		order       []string
		cursor      string
		swept       []string
		checkpoints []string
	}{
		{"from the start", []string{"a", "b", "c", "d"}, "", []string{"a", "b", "c", "d"}, []string{"a", "b", "c", "d"}},
		{"after the cursor", []string{"a", "b", "c", "d"}, "b", []string{"c", "d"}, []string{"c", "d"}},
		{"the cursor's repository is gone", []string{"a", "c", "d"}, "b", []string{"c", "d"}, []string{"c", "d"}},
		{"after the end", []string{"a", "b"}, "z", nil, nil},
		{"a repeated name is one", []string{"a", "a", "b"}, "", []string{"a", "b"}, []string{"a", "b"}},
		{"unsorted, all the same", []string{"b", "c", "a", "d"}, "", []string{"a", "b", "c", "d"}, []string{"b", "c"}},
		{"unsorted, the cursor has no use", []string{"b", "d", "a", "c"}, "b", []string{"a", "b", "c", "d"}, []string{"d"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, ocitest.Options{ListDigests: true})
			w.only("us")
			for _, name := range []string{"a", "b", "c", "d"} {
				w.eu.Push(name, "v1", image("1"))
			}
			w.request.Source = altered{Registry: w.eu, names: names(tt.order...)}
			w.request.Cursor, w.request.Concurrency = tt.cursor, 1
			result := w.sweep()
			var swept []string
			for _, d := range w.emitted {
				swept = append(swept, d.SourceRepository)
			}
			slices.Sort(swept)
			if diff := cmp.Diff(tt.swept, swept); diff != "" {
				t.Error(diff)
			}
			if !result.Complete {
				t.Errorf("got %+v", result)
			}
			// One worker may be on its way when the order breaks.
			if n := len(w.checkpoints); n > len(tt.checkpoints) || !slices.Equal(w.checkpoints, tt.checkpoints[:n]) || slices.IsSorted(tt.order) && n != len(tt.checkpoints) {
				t.Errorf("checkpoints %v, want %v", w.checkpoints, tt.checkpoints)
			}
		})
	}
}

// Repositories end in any order, cursors come in theirs.
func TestCheckpointsInOrder(t *testing.T) {
	w := newWorld(t, ocitest.Options{})
	for i := range 40 {
		w.twins(fmt.Sprintf("app%02d", i), "v1", 1)
	}
	release := make(chan struct{})
	w.eu.OnCall(func(_ context.Context, c ocitest.Call) error {
		if c.Method == ocitest.ListTags && c.Repository == "app00" {
			<-release
		}
		if c.Method == ocitest.ListTags && c.Repository == "app30" {
			close(release)
		}
		return nil
	})
	told := w.request.Checkpoint
	w.request.Checkpoint = func(ctx context.Context, cursor string) error {
		listed := make(map[string]bool)
		for _, c := range w.ap.Calls() {
			listed[c.Repository] = true
		}
		for i := range 40 {
			if name := fmt.Sprintf("app%02d", i); name <= cursor && !listed[name] {
				t.Errorf("the cursor is at %s, and %s is not compared", cursor, name)
			}
		}
		return told(ctx, cursor)
	}
	w.sweep()
	if n := len(w.checkpoints); n == 0 || !slices.IsSorted(w.checkpoints) || w.checkpoints[n-1] != "app39" {
		t.Errorf("got %v", w.checkpoints)
	}
}
