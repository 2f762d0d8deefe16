package sweep

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

func TestDifferences(t *testing.T) {
	other := image("another")
	for _, tt := range []struct {
		name  string
		world func(w *world)
		want  []string
	}{
		{"in sync", func(w *world) { w.twins("app", "v1", 1) }, nil},
		{"missing at one destination", func(w *world) {
			w.twins("app", "v1", 1)
			w.eu.Push("app", "v2", image("2"))
			w.us.Push("app", "v2", image("2"))
			w.records.add("oci://us", "app", "v2", image("2").Digest(), now)
		}, []string{"ap app:v2 missing"}},
		{"a repository nobody has", func(w *world) { w.eu.Push("app", "v1", other) },
			[]string{"ap app:v1 destination lacks the repository", "us app:v1 destination lacks the repository"}},
		{"there, but no record", func(w *world) {
			w.only("us")
			w.eu.Push("app", "v1", other)
			w.us.Push("app", "v1", other)
		}, []string{"us app:v1 no record"}},
		{"there, but never proven", func(w *world) {
			w.only("us")
			w.eu.Push("app", "v1", other)
			w.us.Push("app", "v1", other)
			w.records.add("oci://us", "app", "v1", other.Digest(), time.Time{})
		}, []string{"us app:v1 unproven"}},
		{"the source moved", func(w *world) {
			w.twins("app", "v1", 1)
			w.eu.Push("app", "v1", other)
		}, []string{"ap app:v1 differs", "us app:v1 differs"}},
		{"a proof of a day ago is due", func(w *world) { w.twins("app", "v1", 24) }, []string{"ap app:v1 proof due", "us app:v1 proof due"}},
		{"no proof is due with proof 0", func(w *world) {
			w.twins("app", "v1", 2400)
			w.request.Proof, w.request.ReferrersEvery = 0, 0
		}, nil},
		{"referrers are due after a day", func(w *world) {
			w.twins("app", "v1", 24)
			w.request.Proof = 0
		}, []string{"ap app:v1 referrers due", "us app:v1 referrers due"}},
		{"a full sweep believes nothing", func(w *world) {
			w.twins("app", "v1", 1)
			w.request.Full = true
		}, []string{"ap app:v1 full", "us app:v1 full"}},
		{"renamed", func(w *world) {
			w.only("us")
			w.eu.Push("app", "v1", other)
			w.us.Push("app", "v1", other)
			w.request.Rules = rules{prefix: "dr/"}
		}, []string{"us dr/app:v1 destination lacks the repository"}},
		{"what the source lacks is let be", func(w *world) {
			w.twins("app", "v1", 1)
			w.us.Push("app", "v0", other)
			w.records.add("oci://us", "app", "v0", other.Digest(), now.Add(-time.Hour))
			w.records.add("oci://us", "app", "v00", other.Digest(), now.Add(-time.Hour))
		}, nil},
		{"a signature that is there is not compared", func(w *world) {
			d := w.twins("app", "v1", 1)
			for i, r := range []*ocitest.Registry{w.eu, w.us, w.ap} {
				tag, sig := ocitest.CosignTag(fmt.Sprint(i), d, "sig")
				r.Push("app", tag, sig)
			}
		}, nil},
		{"a signature that is missing is", func(w *world) {
			d := w.twins("app", "v1", 1)
			tag, sig := ocitest.CosignTag("s", d, "sig")
			w.eu.Push("app", tag, sig)
			w.us.Push("app", tag, sig)
		}, []string{"ap app:companion.sig missing"}},
		{"a signature whose own proof is due", func(w *world) {
			w.only("us")
			d := w.twins("app", "v1", 1)
			tag, sig := ocitest.CosignTag("s", d, "sig")
			w.eu.Push("app", tag, sig)
			w.us.Push("app", tag, sig)
			w.records.add("oci://us", "app", tag, sig.Digest(), now.Add(-24*time.Hour))
		}, []string{"us app:companion.sig proof due"}},
		{"a fallback tag that is missing is", func(w *world) {
			w.only("us")
			d := w.twins("app", "v1", 1)
			w.eu.Push("app", oci.FallbackTag(d), ocitest.Index(image("x")))
		}, []string{"us app:companion missing"}},
		{"a fallback tag may differ", func(w *world) {
			d := w.twins("app", "v1", 1)
			w.eu.Push("app", oci.FallbackTag(d), ocitest.Index(image("x")))
			w.us.Push("app", oci.FallbackTag(d), ocitest.Index(image("x"), image("y")))
			w.ap.Push("app", oci.FallbackTag(d), ocitest.Index(image("z")))
		}, nil},
		{"a fallback tag that was brought where none is kept", func(w *world) {
			w.only("us")
			d := w.twins("app", "v1", 1)
			w.eu.Push("app", oci.FallbackTag(d), ocitest.Index(image("x")))
			w.records.add("oci://us", "app", oci.FallbackTag(d), image("x").Digest(), now.Add(-time.Hour))
		}, nil},
		{"a fallback tag that was brought where none is kept, long ago", func(w *world) {
			w.only("us")
			d := w.twins("app", "v1", 1)
			w.eu.Push("app", oci.FallbackTag(d), ocitest.Index(image("x")))
			w.records.add("oci://us", "app", oci.FallbackTag(d), image("x").Digest(), now.Add(-24*time.Hour))
		}, []string{"us app:companion proof due"}},
		{"full asks for signatures too", func(w *world) {
			w.only("us")
			w.request.Full = true
			tag, sig := ocitest.CosignTag("s", digest.FromString("x"), "att")
			w.eu.Push("app", tag, sig)
			w.us.Push("app", tag, sig)
		}, []string{"us app:companion.att full"}},
		{"no signatures without referrers", func(w *world) {
			d := w.twins("app", "v1", 1)
			tag, sig := ocitest.CosignTag("s", d, "sig")
			w.eu.Push("app", tag, sig)
			w.request.Rules = rules{noReferrers: true}
		}, nil},
		{"a proof made while we listed", func(w *world) {
			w.only("us")
			w.eu.Push("app", "v1", other)
			w.records.add("oci://us", "app", "v1", other.Digest(), now)
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, ocitest.Options{})
			tt.world(w)
			result := w.sweep()
			if tt.want == nil {
				tt.want = []string{}
			}
			if diff := cmp.Diff(tt.want, w.lines()); diff != "" {
				t.Error(diff)
			}
			if !result.Complete || result.Sources != nil || len(result.Failed) != 0 || len(result.Voided) != 0 || len(result.Findings) != 0 {
				t.Errorf("got %+v", result)
			}
			if result.Emitted != int64(len(tt.want)) || result.InSync+result.Emitted != result.Tags*int64(len(w.request.Destinations)) {
				t.Errorf("counts: %+v", result)
			}
		})
	}
}

func TestDifferenceTellsAll(t *testing.T) {
	w := newWorld(t, ocitest.Options{ListDigests: true, Now: func() time.Time { return now.Add(-time.Hour) }})
	w.only("us")
	w.request.Rules = rules{prefix: "dr/"}
	w.eu.Push("app", "v1", image("new"))
	w.us.Push("dr/app", "v1", image("old"))
	w.request.Present = true
	w.sweep()
	want := []Difference{{
		Destination: "us", SourceRepository: "app", DestinationRepository: "dr/app", Tag: "v1",
		Digest: image("new").Digest(), Present: image("old").Digest(), PushedAt: now.Add(-time.Hour), Reason: Differs,
	}}
	if diff := cmp.Diff(want, w.emitted); diff != "" {
		t.Error(diff)
	}
	if n := w.eu.Count(ocitest.HeadManifest); n != 0 {
		t.Errorf("%d HEADs beside a listing that tells digests", n)
	}
}

func TestPresent(t *testing.T) {
	w := newWorld(t, ocitest.Options{})
	w.only("us")
	w.request.Present = true
	same, moved := w.twins("app", "same", 100), w.twins("app", "moved", 100)
	w.twins("app", "young", 1)
	w.twins("app", "gone", 100)
	w.us.SetTag("app", "moved", same)
	dangling := image("app:gone").Digest()
	w.us.Remove("app", dangling)
	w.sweep()
	present := map[string]string{}
	for _, d := range w.emitted {
		present[d.Tag] = string(d.Reason)
		if d.Tag != "gone" && d.Present != same {
			t.Errorf("%s: present is %q", d.Tag, d.Present)
		}
	}
	if diff := cmp.Diff(map[string]string{"same": "proof due", "moved": "differs", "gone": "missing"}, present); diff != "" {
		t.Error(diff)
	}
	if n := w.us.Count(ocitest.HeadManifest); n != 3 {
		t.Errorf("%d HEADs at the destination, want one per tag that is not in sync", n)
	}
	_ = moved
}

// An unchanged route costs its listings, and one HEAD per tag where the source's
// listing tells no digests.
func TestRequestsOfAnUnchangedRoute(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options ocitest.Options
		heads   int
	}{
		{"names alone", ocitest.Options{}, 1000},
		{"digests in the listing", ocitest.Options{ListDigests: true}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.options)
			content := image("x")
			for i := range 1000 {
				repository, tag := fmt.Sprintf("team/app%d", i%4), fmt.Sprintf("v%d", i)
				w.eu.Push(repository, tag, content)
				for _, r := range []*ocitest.Registry{w.us, w.ap} {
					r.Push(repository, tag, content)
					w.records.add(r.Identity(), repository, tag, content.Digest(), now.Add(-time.Hour))
				}
			}
			result := w.sweep()
			want := Result{Repositories: 4, Tags: 1000, InSync: 2000, Complete: true, Failed: map[string]error{}}
			if diff := cmp.Diff(want, result); diff != "" {
				t.Error(diff)
			}
			for what, count := range map[string][2]int{
				"source's catalog":     {w.eu.Count(ocitest.Catalog), 1},
				"source's listings":    {w.eu.Count(ocitest.ListTags), 4},
				"source's HEADs":       {w.eu.Count(ocitest.HeadManifest), tt.heads},
				"source":               {w.eu.Count(), 5 + tt.heads},
				"a destination":        {w.us.Count(), 4},
				"the other":            {w.ap.Count(), 4},
				"pages of the journal": {w.records.pages, 8},
			} {
				if count[0] != count[1] {
					t.Errorf("%s: %d requests, want %d", what, count[0], count[1])
				}
			}
			if diff := cmp.Diff([]string{"team/app0", "team/app1", "team/app2", "team/app3"}, w.checkpoints[len(w.checkpoints)-1:]); len(w.checkpoints) == 0 || w.checkpoints[len(w.checkpoints)-1] != "team/app3" {
				t.Error(diff)
			}
		})
	}
}

// Records of many pages are walked beside the tags.
func TestRecordsOfManyPages(t *testing.T) {
	w := newWorld(t, ocitest.Options{ListDigests: true})
	w.only("us")
	content := image("x")
	for i := range 2*recordPage + 1 {
		tag := fmt.Sprintf("v%d", i)
		w.us.Push("app", tag, content)
		w.records.add("oci://us", "app", tag, content.Digest(), now)
		if i%3 == 0 {
			w.eu.Push("app", tag, content)
		}
	}
	if result := w.sweep(); result.Emitted != 0 || result.InSync != 667 || w.records.pages != 3 {
		t.Errorf("got %+v after %d pages", result, w.records.pages)
	}
	w.request.Records = stuck{}
	if _, err := Sweep(context.Background(), w.request); err == nil || !strings.Contains(err.Error(), "do not go on") {
		t.Errorf("a journal that gives one page forever: %v", err)
	}
}

type stuck struct{}

func (stuck) Records(_ context.Context, _, _, _ string, limit int) ([]replicator.Record, error) {
	return make([]replicator.Record, limit), nil
}

func TestProofsComeDueInShares(t *testing.T) {
	due := func(hours int) (n int) {
		for i := range 1000 {
			if isDue(now.Add(-time.Duration(hours)*time.Hour), 24*time.Hour, now, "proof", "app", fmt.Sprintf("v%d", i)) {
				n++
			}
		}
		return n
	}
	if n := due(11); n != 0 {
		t.Errorf("%d are due before half the time", n)
	}
	if n := due(18); n < 400 || n > 600 {
		t.Errorf("%d are due at three quarters, want about half", n)
	}
	if n := due(24); n != 1000 {
		t.Errorf("%d are due at the whole", n)
	}
	if isDue(time.Time{}, 0, now, "", "", "") || !isDue(time.Time{}, 1, now, "", "", "") {
		t.Error("0 is never, and what was never done is due")
	}
}

func TestVoid(t *testing.T) {
	place := func(repository string) replicator.Place {
		return replicator.Place{Registry: "us", Identity: "oci://us", Repository: repository}
	}
	t.Run("a destination rebuilt empty", func(t *testing.T) {
		w := newWorld(t, ocitest.Options{})
		w.twins("a", "v1", 1)
		w.twins("a", "v2", 1)
		w.twins("b", "v1", 1)
		w.request.Destinations[0].Registry = ocitest.New("oci://us", ocitest.Options{})
		w.request.Concurrency = 1
		result := w.sweep()
		if diff := cmp.Diff([]replicator.Place{place("a"), place("b")}, result.Voided); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(result.Voided, w.voided); diff != "" {
			t.Error(diff)
		}
		want := []string{"us a:v1 destination lacks the repository", "us a:v2 destination lacks the repository", "us b:v1 destination lacks the repository"}
		if diff := cmp.Diff(want, w.lines()); diff != "" {
			t.Error(diff)
		}
		if !result.Complete {
			t.Error("the source was seen whole")
		}
	})
	t.Run("one tag removed", func(t *testing.T) {
		w := newWorld(t, ocitest.Options{})
		for _, tag := range []string{"v1", "v2", "v3", "v4"} {
			w.twins("a", tag, 1)
		}
		w.us.SetTag("a", "v2", "")
		w.us.SetTag("a", "v4", "")
		result := w.sweep()
		if diff := cmp.Diff([]replicator.Place{place("a")}, result.Voided); diff != "" {
			t.Error(diff)
		}
		// What follows in the repository is believed no more.
		if diff := cmp.Diff([]string{"us a:v2 missing", "us a:v3 no record", "us a:v4 missing"}, w.lines()); diff != "" {
			t.Error(diff)
		}
		if n := w.us.Count(ocitest.HeadManifest); n != 1 {
			t.Errorf("%d HEADs, want one to be sure", n)
		}
	})
	t.Run("a listing that forgets a tag", func(t *testing.T) {
		w := newWorld(t, ocitest.Options{})
		w.twins("a", "v1", 1)
		w.request.Destinations[0].Registry = altered{Registry: w.us, tags: func(string, iter.Seq2[oci.Tag, error]) iter.Seq2[oci.Tag, error] {
			return func(func(oci.Tag, error) bool) {}
		}}
		if result := w.sweep(); len(result.Voided) != 0 || result.Emitted != 0 {
			t.Errorf("got %+v %v", result, w.lines())
		}
	})
	t.Run("no answer when asked", func(t *testing.T) {
		w := newWorld(t, ocitest.Options{})
		w.twins("a", "v1", 1)
		w.us.SetTag("a", "v1", "")
		w.us.OnCall(func(_ context.Context, c ocitest.Call) error {
			if c.Method == ocitest.HeadManifest {
				return oci.ErrUnreachable
			}
			return nil
		})
		result := w.sweep()
		if len(result.Voided) != 0 || result.Emitted != 0 || !errors.Is(result.Failed["us"], oci.ErrUnreachable) || len(w.checkpoints) != 0 {
			t.Errorf("got %+v %v %v", result, w.lines(), w.checkpoints)
		}
	})
	t.Run("of many, the first thousand", func(t *testing.T) {
		w := newWorld(t, ocitest.Options{ListDigests: true})
		content := image("x")
		for i := range maxVoided + 5 {
			name := fmt.Sprintf("app%d", i)
			w.eu.Push(name, "v1", content)
			w.records.add("oci://us", name, "v1", content.Digest(), now.Add(-time.Hour))
		}
		if result := w.sweep(); len(result.Voided) != maxVoided || result.Emitted != 2*(maxVoided+5) {
			t.Errorf("got %d voided, %d emitted", len(result.Voided), result.Emitted)
		}
	})
}

func TestSkipped(t *testing.T) {
	w := newWorld(t, ocitest.Options{})
	w.request.Rules = rules{exclude: "scratch/", excludeTag: "dev"}
	w.eu.Push("scratch/a", "v1", image("1"))
	w.twins("app", "v1", 1)
	w.eu.Push("app", "dev-1", image("2"))
	result := w.sweep()
	want := []Skipped{{Repository: "app", Tag: "dev-1", Reason: "dev-1 is excluded"}, {Repository: "scratch/a", Reason: "scratch/a is excluded"}}
	slices.SortFunc(w.skipped, func(a, b Skipped) int { return strings.Compare(a.Repository, b.Repository) })
	if diff := cmp.Diff(want, w.skipped); diff != "" {
		t.Error(diff)
	}
	if result.Skipped != 2 || result.Repositories != 1 || result.Tags != 1 || !result.Complete {
		t.Errorf("got %+v", result)
	}
	w.request.Skip = nil
	if again := w.sweep(); again.Skipped != 2 {
		t.Errorf("without a callback: %+v", again)
	}
}

func TestRenameToNoName(t *testing.T) {
	w := newWorld(t, ocitest.Options{})
	w.request.Rules = rules{noDestinations: true}
	w.twins("app", "v1", 1)
	result := w.sweep()
	if len(result.Findings) != 1 || result.Findings[0].Kind != replicator.FindingConfig || result.Findings[0].Repository != "app" || result.Skipped != 1 {
		t.Errorf("got %+v", result)
	}
}

func TestLiteralRepositories(t *testing.T) {
	w := newWorld(t, ocitest.Options{Unlistable: true})
	w.only("us")
	w.request.Rules = rules{literals: []string{"app", "lost"}}
	w.eu.Push("app", "v1", image("1"))
	w.eu.Push("other", "v1", image("1"))
	result := w.sweep()
	if diff := cmp.Diff([]string{"us app:v1 destination lacks the repository"}, w.lines()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Skipped{{Repository: "lost", Reason: "eu has no repository lost"}}, w.skipped); diff != "" {
		t.Error(diff)
	}
	if n := w.eu.Count(ocitest.Catalog); n != 0 || !result.Complete {
		t.Errorf("%d catalogs asked, %+v", n, result)
	}
	w.emitted, w.request.Cursor = nil, "app"
	if w.sweep(); len(w.emitted) != 0 {
		t.Errorf("what is before the cursor is swept again: %v", w.lines())
	}
}

func TestUnlistable(t *testing.T) {
	for _, kind := range []error{oci.ErrUnlistable, oci.ErrDenied, oci.ErrNotFound} {
		w := newWorld(t, ocitest.Options{})
		w.eu.OnCall(func(context.Context, ocitest.Call) error { return kind })
		result := w.sweep()
		if result.Complete || !errors.Is(result.Sources, kind) {
			t.Errorf("%v: got %+v", kind, result)
		}
		if len(result.Findings) != 1 || result.Findings[0].Kind != replicator.FindingUnlistable || result.Findings[0].Registry != "eu" ||
			result.Findings[0].Route != "prod" || !result.Findings[0].At.Equal(now) {
			t.Errorf("%v: findings %+v", kind, result.Findings)
		}
	}
	w := newWorld(t, ocitest.Options{})
	w.eu.OnCall(func(context.Context, ocitest.Call) error { return oci.ErrUnreachable })
	if result := w.sweep(); result.Complete || len(result.Findings) != 0 || !errors.Is(result.Sources, oci.ErrUnreachable) {
		t.Errorf("a source that is down has a catalog: got %+v", result)
	}
}

func TestOnly(t *testing.T) {
	w := newWorld(t, ocitest.Options{Unlistable: true})
	w.request.Rules = rules{exclude: "scratch/", excludeTag: "dev"}
	w.twins("app", "v1", 1)
	w.twins("app", "v2", 1)
	w.eu.Push("app", "v2", image("moved"))
	w.twins("other", "v1", 1)
	w.ap.SetTag("app", "v2", "")
	for _, tt := range []struct {
		name, repository, tag string
		want                  []string
		eu, us                int
	}{
		{"a repository", "app", "", []string{"ap app:v2 missing", "us app:v2 differs"}, 3, 1},
		{"a tag", "app", "v2", []string{"ap app:v2 missing", "us app:v2 differs"}, 1, 1},
		{"a tag in sync", "app", "v1", []string{}, 1, 1},
		{"a tag the source lacks", "app", "v9", []string{}, 1, 1},
		{"a repository left out", "scratch/a", "v1", []string{}, 0, 0},
		{"a tag left out", "app", "dev", []string{}, 0, 0},
		{"a repository the source lacks", "lost", "", []string{}, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.emitted, w.skipped = nil, nil
			w.eu.ResetCalls()
			w.us.ResetCalls()
			w.request.OnlyRepository, w.request.OnlyTag = tt.repository, tt.tag
			result := w.sweep()
			if diff := cmp.Diff(tt.want, w.lines()); diff != "" {
				t.Error(diff)
			}
			if result.Complete || result.Sources != nil || len(result.Findings) != 0 {
				t.Errorf("got %+v", result)
			}
			if eu, us := w.eu.Count(), w.us.Count(); eu != tt.eu || us != tt.us {
				t.Errorf("%d requests at the source, %d at a destination, want %d and %d", eu, us, tt.eu, tt.us)
			}
			if len(tt.want) == 0 && tt.name != "a tag in sync" && len(w.skipped) != 1 {
				t.Errorf("no reason: %+v", w.skipped)
			}
		})
	}
}

func TestUnsortedListings(t *testing.T) {
	shuffle := func(_ string, tags iter.Seq2[oci.Tag, error]) iter.Seq2[oci.Tag, error] { return shuffled(tags) }
	for _, n := range []int{100, 2*bufferedTags + 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t, ocitest.Options{ListDigests: true})
			w.only("us")
			content := image("x")
			for i := range n {
				tag := fmt.Sprintf("v%d", i)
				w.eu.Push("app", tag, content)
				if i%10 != 0 {
					w.us.Push("app", tag, content)
					w.records.add("oci://us", "app", tag, content.Digest(), now)
				}
			}
			w.request.Source = altered{Registry: w.eu, tags: shuffle}
			w.request.Destinations[0].Registry = altered{Registry: w.us, tags: shuffle}
			result := w.sweep()
			if result.Tags != int64(n) || result.Emitted != int64((n+9)/10) || result.InSync != int64(n-(n+9)/10) {
				t.Errorf("got %+v", result)
			}
			for _, d := range w.emitted {
				if d.Reason != Missing || d.Digest != content.Digest() || !strings.HasSuffix(d.Tag, "0") {
					t.Errorf("got %+v", d)
				}
			}
		})
	}
}

// TestWithheld: what a destination gives to nobody is as good as absent, and is
// pushed again; what a source does not give is still its tag.
func TestWithheld(t *testing.T) {
	w := newWorld(t, ocitest.Options{ListDigests: true})
	w.only("us")
	content := image("x")
	for _, tag := range []string{"v1", "v2", "v3"} {
		w.eu.Push("app", tag, content)
		w.us.Push("app", tag, content)
	}
	withheld := func(name string) func(string, iter.Seq2[oci.Tag, error]) iter.Seq2[oci.Tag, error] {
		return func(_ string, tags iter.Seq2[oci.Tag, error]) iter.Seq2[oci.Tag, error] {
			return func(yield func(oci.Tag, error) bool) {
				for tag, err := range tags {
					tag.Withheld = tag.Name == name
					if !yield(tag, err) {
						return
					}
				}
			}
		}
	}
	w.records.add("oci://us", "app", "v2", content.Digest(), now)
	w.records.add("oci://us", "app", "v3", content.Digest(), now)
	w.request.Source = altered{Registry: w.eu, tags: withheld("v2")}
	w.request.Destinations[0].Registry = altered{Registry: w.us, tags: withheld("v1")}
	result := w.sweep()
	if len(w.emitted) != 1 || w.emitted[0].Tag != "v1" || w.emitted[0].Reason != Missing || result.InSync != 2 || result.Tags != 3 || !result.Complete {
		t.Errorf("%+v, emitted %+v", result, w.emitted)
	}
}

func TestOddListings(t *testing.T) {
	w := newWorld(t, ocitest.Options{})
	w.only("us")
	w.eu.Push("app", "v1", image("1"))
	odd := func(_ string, _ iter.Seq2[oci.Tag, error]) iter.Seq2[oci.Tag, error] {
		return func(yield func(oci.Tag, error) bool) {
			_ = yield(oci.Tag{Name: "../v0"}, nil) && yield(oci.Tag{Name: "v1", Digest: "sha256:1"}, nil) && yield(oci.Tag{Name: ""}, nil)
		}
	}
	w.request.Source = altered{Registry: w.eu, tags: odd}
	w.request.Destinations[0].Registry = altered{Registry: w.us, tags: odd}
	w.sweep()
	if diff := cmp.Diff([]string{"us app:v1 no record"}, w.lines()); diff != "" {
		t.Error(diff)
	}
	if d := w.emitted[0]; d.Digest != image("1").Digest() || d.Present != "" {
		t.Errorf("a digest that is none was believed: %+v", d)
	}
	w.request.Source = altered{Registry: w.eu, names: func(iter.Seq2[string, error]) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) { _ = yield("../x", nil) && yield("app", nil) }
	}}
	if result := w.sweep(); result.Complete || !errors.Is(result.Sources, oci.ErrInvalid) || result.Repositories != 0 {
		t.Errorf("a catalog that lists no names: %+v", result)
	}
}

func TestUnresolvedLeavesAbsentTagsToTheWorker(t *testing.T) {
	w := newWorld(t, ocitest.Options{})
	w.eu.Push("app", "v1", image("one"))
	w.twins("app", "v2", 1)
	w.request.Unresolved = true
	w.eu.ResetCalls()
	w.sweep()
	if n := w.eu.Count(ocitest.HeadManifest); n != 1 {
		t.Errorf("%d HEADs at the source, want one, for the tag that both have", n)
	}
	for _, d := range w.emitted {
		if (d.Digest == "") != (d.Tag == "v1") {
			t.Errorf("tag %s was emitted with digest %q", d.Tag, d.Digest)
		}
	}
}

func TestCompanionsAreTold(t *testing.T) {
	w := newWorld(t, ocitest.Options{})
	subject := strings.Repeat("a", 64)
	w.eu.Push("app", "v1", image("one"))
	w.eu.Push("app", "sha256-"+subject+".sig", image("signature"))
	told := make(map[string][]string)
	w.request.Companions = func(repository string, tags []string) { told[repository] = tags }
	w.sweep()
	if diff := cmp.Diff(map[string][]string{"app": {"sha256-" + subject + ".sig"}}, told); diff != "" {
		t.Error(diff)
	}
}

// What belongs to a subject comes with it: where the subject is not, a companion
// is no difference, unless something else is on its way there.
func TestCompanionsWithoutASubject(t *testing.T) {
	there, gone := image("app:v1"), image("gone")
	for _, tt := range []struct {
		name  string
		world func(*world)
		want  []string
		heads int // at the destination
	}{
		{"nothing else is brought", func(*world) {}, nil, 1},
		{"an image is brought", func(w *world) { w.eu.Push("app", "v2", image("v2")) },
			[]string{"us app:v2 missing", "us app:companion missing", "us app:companion.sig missing"}, 0},
		{"an image is brought, and its subject did not come before", func(w *world) {
			w.eu.Push("app", "v2", image("v2"))
			w.request.GivenUp = func(p replicator.Place, subject digest.Digest) bool {
				return p.Registry == "us" && p.Repository == "app" && subject == gone.Digest()
			}
		}, []string{"us app:v2 missing"}, 1},
		{"its subject is there", func(w *world) { w.us.Push("app", "", gone) }, []string{"us app:companion missing", "us app:companion.sig missing"}, 1},
		{"the destination has nothing", func(w *world) { w.us.RemoveRepository("app"); w.records.all = nil },
			[]string{"us app:v1 destination lacks the repository", "us app:companion destination lacks the repository", "us app:companion.sig destination lacks the repository"}, 0},
		{"the destination does not say", func(w *world) {
			w.us.OnCall(func(_ context.Context, c ocitest.Call) error {
				if c.Method == ocitest.HeadManifest {
					return &oci.RegistryError{Registry: "us", Kind: oci.ErrInterrupted}
				}
				return nil
			})
		}, []string{"us app:companion missing", "us app:companion.sig missing"}, 1},
		{"it is asked for by name", func(w *world) {
			tag, _ := ocitest.CosignTag("s", gone.Digest(), "sig")
			w.request.OnlyRepository, w.request.OnlyTag = "app", tag
		}, []string{"us app:companion.sig missing"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, ocitest.Options{})
			w.only("us")
			w.twins("app", "v1", 1)
			w.eu.Push("app", oci.FallbackTag(gone.Digest()), ocitest.Index(there))
			tag, sig := ocitest.CosignTag("s", gone.Digest(), "sig")
			w.eu.Push("app", tag, sig)
			var skipped []string
			w.request.Skip = func(s Skipped) { skipped = append(skipped, s.Reason) }
			tt.world(w)
			result := w.sweep()
			tt.want = slices.Sorted(slices.Values(append([]string{}, tt.want...)))
			if diff := cmp.Diff(tt.want, slices.Sorted(slices.Values(w.lines()))); diff != "" {
				t.Error(diff)
			}
			if result.Emitted != int64(len(tt.want)) || result.Emitted+result.InSync+result.Skipped != result.Tags {
				t.Errorf("counts: %+v", result)
			}
			if n := w.us.Count(ocitest.HeadManifest); n != tt.heads {
				t.Errorf("%d HEADs at the destination, want %d", n, tt.heads)
			}
			for _, reason := range skipped {
				if !strings.Contains(reason, "us has no "+gone.Digest().String()) {
					t.Errorf("left out: %s", reason)
				}
			}
		})
	}
}

// TestWhatIsListedAndInSync: whoever waits for a tag is told that the source has
// it, and where it is as it is to be.
func TestWhatIsListedAndInSync(t *testing.T) {
	w := newWorld(t, ocitest.Options{})
	w.only("us")
	w.twins("app", "v1", 1)
	w.eu.Push("app", "v2", image("v2"))
	w.eu.Push("app", "old", image("old"))
	w.request.Rules = rules{excludeTag: "old"}
	var listed, inSync []string
	var mu sync.Mutex
	w.request.Listed = func(repository, tag string) {
		mu.Lock()
		defer mu.Unlock()
		listed = append(listed, repository+":"+tag)
	}
	w.request.InSync = func(destination, repository, tag string) {
		mu.Lock()
		defer mu.Unlock()
		inSync = append(inSync, destination+" "+repository+":"+tag)
	}
	w.sweep()
	slices.Sort(listed)
	if diff := cmp.Diff([][]string{{"app:v1", "app:v2"}, {"us app:v1"}}, [][]string{listed, inSync}); diff != "" {
		t.Error(diff)
	}
}
