package sweep

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

const day = 24 * time.Hour

// aged is an image whose config tells when it was created.
func aged(name, created string) ocitest.Content {
	config := ocitest.NewBlob(v1.MediaTypeImageConfig, fmt.Appendf(nil, `{"created":%q,"os":"linux","x":%q}`, created, name))
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`,
		v1.MediaTypeImageManifest, config.Desc.MediaType, config.Desc.Digest, config.Desc.Size)
	return ocitest.Content{
		Manifests: []oci.Manifest{{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Bytes: manifest}},
		Blobs:     []ocitest.Blob{config},
	}
}

func ago(d time.Duration) string { return now.Add(-d).Format(time.RFC3339Nano) }

func TestAges(t *testing.T) {
	artifact := ocitest.Artifact("sbom", "application/x", nil)
	for _, tt := range []struct {
		name     string
		rules    rules
		seen     map[string]time.Duration
		images   map[string]ocitest.Content
		want     string // the tags that are compared
		findings int
	}{
		{"maxAge by the image", rules{maxAge: 90 * day}, nil,
			map[string]ocitest.Content{"young": aged("a", ago(89*day)), "old": aged("b", ago(91*day))}, "young", 0},
		{"maxAge by an index's first image", rules{maxAge: 90 * day}, nil,
			map[string]ocitest.Content{"young": ocitest.Index(aged("a", ago(89*day)), aged("b", ago(999*day))), "old": ocitest.Index(aged("c", ago(91*day)))}, "young", 0},
		{"first sight before the image", rules{maxAge: 90 * day}, map[string]time.Duration{"a": 1 * day},
			map[string]ocitest.Content{"a": aged("a", ago(999*day))}, "a", 0},
		{"no age is kept and told", rules{maxAge: 90 * day}, nil,
			map[string]ocitest.Content{"none": image("x"), "epoch": aged("e", "1970-01-01T00:00:00Z"), "artifact": artifact, "odd": aged("o", "yesterday"), "old": aged("b", ago(91*day))},
			"artifact epoch none odd", 1},
		{"newest by first sight", rules{newest: 2}, map[string]time.Duration{"a": 3 * day, "b": 1 * day, "c": 2 * day},
			map[string]ocitest.Content{"a": image("a"), "b": image("b"), "c": image("c")}, "b c", 0},
		{"newest by the image", rules{newest: 1}, nil,
			map[string]ocitest.Content{"a": aged("a", ago(1*day)), "b": aged("b", ago(2*day))}, "a", 0},
		{"signatures travel whatever their age", rules{newest: 1, maxAge: 90 * day}, nil,
			map[string]ocitest.Content{"a": aged("a", ago(1*day)), strings.Replace(digest.FromString("x").String(), ":", "-", 1) + ".sig": aged("s", ago(999*day))},
			"a companion.sig", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, ocitest.Options{})
			w.only("us")
			w.request.Rules = tt.rules
			for tag, content := range tt.images {
				w.eu.Push("app", tag, content)
			}
			w.request.FirstSeen = func(_ context.Context, place replicator.Place, tag string, d digest.Digest) (time.Time, error) {
				if place != (replicator.Place{Registry: "eu", Identity: "oci://eu", Repository: "app"}) || d != tt.images[tag].Digest() {
					t.Errorf("asked for %v %s %s", place, tag, d)
				}
				if age, ok := tt.seen[tag]; ok {
					return now.Add(-age), nil
				}
				return time.Time{}, nil
			}
			result := w.sweep()
			var got []string
			for _, d := range w.emitted {
				got = append(got, short(d.Tag))
			}
			slices.Sort(got)
			if diff := cmp.Diff(strings.Fields(tt.want), got); diff != "" {
				t.Error(diff)
			}
			if !result.Complete || len(result.Findings) != tt.findings || len(w.skipped) != len(tt.images)-len(got) {
				t.Errorf("got %+v, skipped %+v", result, w.skipped)
			}
		})
	}
}

func TestListedAgesCostNothing(t *testing.T) {
	at := now.Add(-100 * day)
	w := newWorld(t, ocitest.Options{ListDigests: true, Now: func() time.Time { at = at.Add(time.Hour); return at }})
	w.only("us")
	w.request.Rules = rules{newest: 20}
	for i := range 3 * batch {
		w.eu.Push("app", fmt.Sprintf("v%03d", 999-i), image("x"))
	}
	result := w.sweep()
	if result.Emitted != 20 || result.Skipped != 3*batch-20 {
		t.Errorf("got %+v", result)
	}
	for _, d := range w.emitted {
		if d.Tag > fmt.Sprintf("v%03d", 999-3*batch+20) || d.PushedAt.IsZero() {
			t.Errorf("got %+v", d)
		}
	}
	if n := w.eu.Count(); n != 2 {
		t.Errorf("%d requests, want the catalog and the listing", n)
	}
}

// What a person asks for by name is not left out for its age.
func TestOnlyTagHasNoAge(t *testing.T) {
	w := newWorld(t, ocitest.Options{})
	w.only("us")
	w.request.Rules = rules{maxAge: day}
	w.eu.Push("app", "old", aged("a", ago(9*day)))
	w.request.OnlyRepository, w.request.OnlyTag = "app", "old"
	if result := w.sweep(); result.Emitted != 1 {
		t.Errorf("got %+v", result)
	}
}

// A tag whose age cannot be asked now is neither kept nor called too old.
func TestAgeThatCannotBeAsked(t *testing.T) {
	w := newWorld(t, ocitest.Options{})
	w.only("us")
	w.request.Rules = rules{maxAge: 90 * day}
	w.eu.Push("app", "a", aged("a", ago(1*day)))
	w.eu.Push("app", "b", aged("b", ago(1*day)))
	w.eu.OnCall(func(_ context.Context, c ocitest.Call) error {
		if c.Method == ocitest.GetManifest && c.Reference == aged("b", ago(1*day)).Digest().String() {
			return oci.ErrInterrupted
		}
		return nil
	})
	result := w.sweep()
	if diff := cmp.Diff([]string{"us app:a destination lacks the repository"}, w.lines()); diff != "" {
		t.Error(diff)
	}
	if result.Complete || result.Sources == nil || len(w.skipped) != 0 || len(w.checkpoints) != 0 {
		t.Errorf("got %+v, skipped %+v", result, w.skipped)
	}
}
