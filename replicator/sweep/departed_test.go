package sweep

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// mine makes records those of the source, as the journal keeps them.
func (w *world) mine() {
	for key, list := range w.records.all {
		for i := range list {
			list[i].Source = replicator.Place{Registry: "eu", Identity: "oci://eu", Repository: key[len("oci://us "):]}
			list[i].Route = "prod"
		}
	}
}

// departed runs a sweep and shows what it tells: `us app: v1 v2 last`.
func (w *world) departed() []string {
	w.t.Helper()
	var lines []string
	w.request.Departed = func(_ context.Context, d Departed) error {
		line := fmt.Sprintf("%s %s:", d.Destination, d.Place.Repository)
		for _, r := range d.Records {
			line += " " + short(r.Tag)
		}
		if d.Empty {
			line += " empty"
		}
		if d.Last {
			line += " last"
		}
		lines = append(lines, line)
		return nil
	}
	w.sweep()
	return lines
}

func TestDeparted(t *testing.T) {
	failed := errors.New("the page does not come")
	for _, tt := range []struct {
		name  string
		world func(w *world)
		want  []string
	}{
		{"nothing is gone", func(w *world) { w.twins("app", "v1", 1) }, []string{"us app: last"}},
		{"some are gone", func(w *world) {
			for _, tag := range []string{"v0", "v1", "v2", "v3"} {
				w.twins("app", tag, 1)
			}
			w.eu.SetTag("app", "v0", "")
			w.eu.SetTag("app", "v2", "")
		}, []string{"us app: v0 v2 last"}},
		{"all are gone: an empty listing", func(w *world) {
			w.twins("app", "v1", 1)
			w.eu.SetTag("app", "v1", "")
		}, []string{"us app: v1 empty last"}},
		{"the repository is gone", func(w *world) {
			w.request.Rules = rules{literals: []string{"app"}}
			w.twins("app", "v1", 1)
			w.eu.RemoveRepository("app")
		}, []string{"us app: v1 empty last"}},
		{"the listing breaks off", func(w *world) {
			for _, tag := range []string{"v0", "v1", "v2"} {
				w.twins("app", tag, 1)
			}
			w.eu.SetTag("app", "v2", "")
			w.request.Source = altered{w.eu, nil, func(_ string, tags iter.Seq2[oci.Tag, error]) iter.Seq2[oci.Tag, error] {
				return cutAfter(1, failed, tags)
			}}
		}, nil},
		{"the catalog breaks off: what was listed is told", func(w *world) {
			w.twins("app", "v1", 1)
			w.twins("app", "v2", 1)
			w.twins("web", "v1", 1)
			w.eu.SetTag("app", "v2", "")
			w.request.Source = altered{w.eu, func(names iter.Seq2[string, error]) iter.Seq2[string, error] {
				return cutAfter(1, failed, names)
			}, nil}
		}, []string{"us app: v2 last"}},
		{"the filter was narrowed", func(w *world) {
			w.twins("app", "v1", 1)
			w.twins("app", "dev-1", 1)
			w.twins("app", "dev-2", 1)
			w.eu.SetTag("app", "dev-1", "")
			w.request.Rules = rules{excludeTag: "dev"}
		}, []string{"us app: last"}},
		{"the repository is excluded by now", func(w *world) {
			w.twins("app", "v1", 1)
			w.twins("app", "v2", 1)
			w.eu.SetTag("app", "v2", "")
			w.request.Rules = rules{exclude: "app"}
		}, nil},
		{"what falls out of newest is still there", func(w *world) {
			for _, tag := range []string{"v0", "v1", "v2"} {
				w.twins("app", tag, 1)
			}
			w.eu.SetTag("app", "v0", "")
			w.request.Rules = rules{newest: 1}
		}, []string{"us app: v0 last"}},
		{"a listing in an order of its own", func(w *world) {
			for i := range 30 {
				w.twins("app", fmt.Sprintf("v%02d", i), 1)
			}
			w.eu.SetTag("app", "v07", "")
			w.request.Source = altered{w.eu, nil, func(_ string, tags iter.Seq2[oci.Tag, error]) iter.Seq2[oci.Tag, error] { return shuffled(tags) }}
		}, []string{"us app: v07 last"}},
		{"proven while the source was listed", func(w *world) {
			w.twins("app", "v1", 1)
			w.twins("app", "v2", 0)
			w.eu.SetTag("app", "v2", "")
		}, []string{"us app: last"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, ocitest.Options{})
			w.only("us")
			tt.world(w)
			w.mine()
			if diff := cmp.Diff(tt.want, w.departed()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestDepartedOfOthers: records of another source say nothing.
func TestDepartedOfOthers(t *testing.T) {
	w := newWorld(t, ocitest.Options{})
	w.only("us")
	w.twins("app", "v1", 1)
	w.twins("app", "v2", 1)
	w.eu.SetTag("app", "v2", "")
	w.mine()
	for i := range w.records.all["oci://us app"] {
		w.records.all["oci://us app"][i].Source.Identity = "oci://elsewhere"
	}
	if diff := cmp.Diff([]string{"us app: last"}, w.departed()); diff != "" {
		t.Error(diff)
	}
}

// TestDepartedInPortions: a repository that lost much is told of in portions.
func TestDepartedInPortions(t *testing.T) {
	w := newWorld(t, ocitest.Options{})
	w.only("us")
	w.twins("app", "v", 1)
	for i := range 2*recordPage + 10 {
		w.records.add("oci://us", "app", fmt.Sprintf("w%05d", i), image("x").Digest(), now.Add(-time.Hour))
	}
	w.mine()
	n, last := 0, 0
	w.request.Departed = func(_ context.Context, d Departed) error {
		if len(d.Records) > batch {
			t.Errorf("%d at once", len(d.Records))
		}
		n += len(d.Records)
		if d.Last {
			last++
		}
		return nil
	}
	w.sweep()
	if n != 2*recordPage+10 || last != 1 {
		t.Errorf("%d told, %d times last", n, last)
	}
	w.request.Departed = func(context.Context, Departed) error { return errors.New("the journal is closed") }
	if _, err := Sweep(context.Background(), w.request); err == nil {
		t.Error("an error of the callback ends nothing")
	}
}
