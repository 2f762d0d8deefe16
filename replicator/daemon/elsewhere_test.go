package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

// fanOut is a route to several destinations whose source counts as gone after 5 minutes.
func fanOut(to ...string) []plan.Route {
	return with(route("prod", "eu", to...), func(r *plan.Route) { r.SourceGone = 5 * time.Minute })
}

// split pushes an image that only some destinations come to have before the
// source dies; the others are out of order until then.
func (w *world) split(tag string, c ocitest.Content, has string, lacks ...string) {
	w.Helper()
	for _, name := range lacks {
		w.sites[name].setDown(true)
	}
	w.push("eu", app, tag, c)
	w.proven(has, app, tag, c)
	w.sites["eu"].setDown(true)
	for _, name := range lacks {
		w.sites[name].setDown(false)
	}
}

// A source dies when one of two destinations has the push: after five minutes
// the other one has it, too, unconfirmed; the source's return confirms it.
func TestASplitFanOutConvergesWithoutItsSource(t *testing.T) {
	in(t, fanOut("us", "ap"), func(w *world) {
		eu, ap := w.sites["eu"], w.sites["ap"]
		first, second := ocitest.MultiArch("first", 2, 2), ocitest.MultiArch("second", 2, 2)
		w.push("eu", app, "v1", first)
		w.proven("ap", app, "v1", first)
		w.split("v1", second, "us", "ap")
		died := time.Now()
		time.Sleep(4 * time.Minute)
		if got := ap.names(app, "v1"); got != first.Digest() {
			t.Fatalf("moved after 4 minutes: %s", got)
		}
		eu.ResetCalls()
		w.proven("ap", app, "v1", second)
		if took := time.Since(died); took < 5*time.Minute || took > 6*time.Minute {
			t.Errorf("it took %s", took)
		}
		for _, c := range eu.Calls() {
			if c.Method != ocitest.Ping && c.Err == nil {
				t.Errorf("the dead source answered %v", c)
			}
		}
		r, _ := w.record("ap", app, "v1")
		j := w.job("ap", app, "v1")
		if !r.Unconfirmed || r.Source.Registry != "eu" || j.State != replicator.Waiting || j.Error.Kind != kindUnconfirmed || j.Attempts > 5 {
			t.Errorf("record %+v\njob %+v %+v", r, j, j.Error)
		}
		if s := w.status("prod", "ap"); s.Unconfirmed != 1 || s.Lag < 5*time.Minute || s.Proven != 1 || !s.SourceGone {
			t.Errorf("status %s, unconfirmed %d", s, s.Unconfirmed)
		}
		if s := w.status("prod", "us"); s.Unconfirmed != 0 || s.Lag != 0 {
			t.Errorf("status %s, unconfirmed %d", s, s.Unconfirmed)
		}
		writes := ap.tagWrites(app, "v1")
		time.Sleep(10 * time.Minute) // it is done, and not done again
		if n := ap.tagWrites(app, "v1"); n != writes {
			t.Errorf("written %d times", n)
		}
		eu.setDown(false)
		w.rest()
		if r, _ := w.record("ap", app, "v1"); r.Unconfirmed || r.Digest != second.Digest() {
			t.Errorf("not confirmed: %+v", r)
		}
		if s := w.status("prod", "ap"); s.Unconfirmed != 0 || s.Lag != 0 {
			t.Errorf("status %s", s)
		}
		if n := ap.tagWrites(app, "v1"); n != writes || len(w.allFindings()) != 0 {
			t.Errorf("%d writes, findings:\n%s", n, w.describe())
		}
	})
}

// The source comes back with something else: its word counts, and a person is
// told; nothing that was a push once is lost.
func TestTheSourceDecidesWhenItIsBack(t *testing.T) {
	cases := map[string]struct {
		back  func(w *world, first ocitest.Content) ocitest.Content
		words string
		kept  bool
	}{
		"a newer push": {func(w *world, _ ocitest.Content) ocitest.Content {
			third := ocitest.Image("third", 1)
			w.sites["eu"].Push(app, "v1", third)
			return third
		}, "a newer push", false},
		"an older state, the push forgotten": {func(w *world, first ocitest.Content) ocitest.Content {
			w.sites["eu"].Push(app, "v1", first)
			w.sites["eu"].Remove(app, ocitest.Image("second", 1).Digest())
			return first
		}, "came back older", true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			in(t, fanOut("us", "ap"), func(w *world) {
				first, second := ocitest.Image("first", 1), ocitest.Image("second", 1)
				w.push("eu", app, "v1", first)
				w.proven("ap", app, "v1", first)
				w.split("v1", second, "us", "ap")
				w.proven("ap", app, "v1", second)
				want := c.back(w, first)
				w.sites["eu"].setDown(false)
				w.proven("ap", app, "v1", want)
				w.rest()
				if r, _ := w.record("ap", app, "v1"); r.Unconfirmed {
					t.Errorf("%+v", r)
				}
				found := w.found(replicator.FindingRegressed)
				if len(found) != 1 || found[0].Registry != "ap" || found[0].Tag != "v1" || found[0].Digest != second.Digest() || !strings.Contains(found[0].Hint, c.words) {
					t.Errorf("findings:\n%s", w.describe())
				}
				kept := w.sites["ap"].names(app, "twinport-lost-"+second.Digest().Encoded()[:12])
				if c.kept && kept != second.Digest() || !c.kept && kept != "" {
					t.Errorf("kept %q", kept)
				}
			})
		})
	}
}

// What can be had elsewhere is found in a backlog that is longer than a page.
func TestABacklogIsLookedThrough(t *testing.T) {
	in(t, fanOut("us", "ap"), func(w *world) {
		image, nowhere := ocitest.Image("app", 1), ocitest.Image("nowhere", 1)
		backlog := func(name string) {
			var events []replicator.Event
			for i := range rescuePage + 10 {
				ev := w.event("eu", app, fmt.Sprintf("%s%04d", name, i), nowhere.Digest())
				ev.Destinations = []string{"ap"}
				events = append(events, ev)
			}
			w.accept(events...)
		}
		w.sites["ap"].setDown(true)
		w.until("ap is down", func() bool {
			w.accept(w.event("eu", app, "first", nowhere.Digest()))
			_, down := w.sites["ap"].gate.Down()
			return down
		})
		backlog("before")
		w.split("v1", image, "us", "ap")
		backlog("after")
		w.proven("ap", app, "v1", image)
		if s := w.status("prod", "ap"); s.Unconfirmed != 1 || s.Waiting < 2*rescuePage {
			t.Errorf("status %s", s)
		}
	})
}

// The source comes back without the tag: what was pushed once stays.
func TestASourceThatComesBackWithoutTheTag(t *testing.T) {
	in(t, fanOut("us", "ap"), func(w *world) {
		image := ocitest.Image("app", 1)
		w.split("v1", image, "us", "ap")
		w.proven("ap", app, "v1", image)
		w.sites["eu"].SetTag(app, "v1", "")
		w.sites["eu"].setDown(false)
		w.rest()
		r, ok := w.record("ap", app, "v1")
		if !ok || r.Unconfirmed || r.Digest != image.Digest() || w.sites["ap"].names(app, "v1") != image.Digest() {
			t.Errorf("record %+v %t", r, ok)
		}
		found := w.found(replicator.FindingRegressed)
		if len(found) != 1 || found[0].Digest != image.Digest() || !strings.Contains(found[0].Message, "no longer has the tag") {
			t.Errorf("findings:\n%s", w.describe())
		}
		if s := w.status("prod", "ap"); s.Unconfirmed != 0 || s.Lag != 0 {
			t.Errorf("status %s", s)
		}
	})
}

// Signatures that the source had and the other destination did not are asked
// for when it is back.
func TestWhatTheHolderDidNotHaveComesWithTheSource(t *testing.T) {
	in(t, fanOut("us", "ap"), func(w *world) {
		image := ocitest.Image("app", 1)
		w.split("v1", image, "us", "ap")
		desc := image.Descriptor()
		sbom := ocitest.Artifact("sbom", "example/sbom", &desc)
		w.sites["eu"].Attach(app, sbom)
		w.proven("ap", app, "v1", image)
		w.sites["eu"].setDown(false)
		w.rest()
		if !w.sites["ap"].Has(app, sbom) {
			t.Error("the SBOM stayed at the source")
		}
	})
}

// What must not be done without the source.
func TestWhatWaitsForTheSource(t *testing.T) {
	first, second := ocitest.Image("first", 1), ocitest.Image("second", 1)
	theirs := ocitest.Image("theirs", 1)
	cases := map[string]struct {
		routes []plan.Route
		ready  func(w *world) // with the source down, ap up, us proven
		want   digest.Digest
	}{
		"sourceGone: never": {routes: with(route("prod", "eu", "us", "ap"), func(r *plan.Route) { r.SourceGone = 0 }), want: first.Digest()},
		"somebody moved the tag meanwhile": {ready: func(w *world) {
			w.sites["ap"].Push(app, "v1", theirs)
		}, want: theirs.Digest()},
		"the only other place lost its trust": {ready: func(w *world) {
			if err := w.journal.Distrust(context.Background(), w.sites["us"].Identity()); err != nil {
				w.Fatal(err)
			}
		}, want: first.Digest()},
		"the only other place is damaged": {ready: func(w *world) {
			w.addFindings(context.Background(), []replicator.Finding{{Kind: replicator.FindingCorrupt, At: w.clock(), Registry: "us", Repository: app}})
		}, want: first.Digest()},
		"the only other place is down": {ready: func(w *world) { w.sites["us"].setDown(true) }, want: first.Digest()},
		"the tag was deleted last": {ready: func(w *world) {
			ev := w.event("eu", app, "v1", "")
			ev.Action = replicator.Delete
			w.accept(ev)
		}, want: first.Digest()},
		"a newer push was told whose content nobody has": {ready: func(w *world) {
			w.accept(w.event("eu", app, "v1", ocitest.Image("third", 1).Digest()))
		}, want: first.Digest()},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if c.routes == nil {
				c.routes = fanOut("us", "ap")
			}
			in(t, c.routes, func(w *world) {
				w.push("eu", app, "v1", first)
				w.proven("ap", app, "v1", first)
				w.split("v1", second, "us", "ap")
				if c.ready != nil {
					c.ready(w)
				}
				time.Sleep(15 * time.Minute)
				if got := w.sites["ap"].names(app, "v1"); got != c.want {
					t.Errorf("it names %.17s\n%s", got, w.describe())
				}
				if j := w.job("ap", app, "v1"); j.State != replicator.Waiting {
					t.Errorf("the job is %s", j.State)
				}
				if s := w.status("prod", "ap"); s.Unconfirmed != 0 || s.Lag < 15*time.Minute {
					t.Errorf("status %s", s)
				}
			})
		})
	}
}

// The last push is known by a sweep alone, which cannot tell when it was: it is
// the newest for all that. And what verify asks for by its record is no push.
func TestTheNewestPushIsTheLastThatWasReadOrTold(t *testing.T) {
	routes := fanOut("us", "ap")
	in(t, routes, func(w *world) {
		first, second := ocitest.Image("first", 1), ocitest.Image("second", 1)
		w.push("eu", app, "v1", first)
		w.proven("us", app, "v1", first)
		w.proven("ap", app, "v1", first)
		time.Sleep(10 * time.Minute)
		w.sites["ap"].setDown(true)
		w.sites["eu"].Push(app, "v1", second) // nobody tells
		ev := w.event("eu", app, "v1", second.Digest())
		ev.PushedAt, ev.SenderTime = w.clock().Add(-time.Hour), false
		ev.Lane, ev.Cause = replicator.LaneSweep, causeSweep+"differs"
		w.accept(ev)
		w.proven("us", app, "v1", second)
		w.sites["eu"].setDown(true)
		w.sites["ap"].setDown(false)
		ev = w.event("eu", app, "v1", first.Digest())
		ev.Cause, ev.Destinations = causeVerify, []string{"ap"}
		w.accept(ev)
		w.proven("ap", app, "v1", second)
		w.sites["eu"].setDown(false)
		w.rest()
	})
}

// 5xx without end is as good as no answer.
func TestASourceThatGivesOnly500IsGone(t *testing.T) {
	in(t, fanOut("us", "ap"), func(w *world) {
		eu, ap := w.sites["eu"], w.sites["ap"]
		first := ocitest.Image("first", 1)
		ap.setDown(true)
		w.push("eu", app, "v1", first)
		w.proven("us", app, "v1", first)
		eu.setStatus(500)
		ap.setDown(false)
		w.proven("ap", app, "v1", first)
		if r, _ := w.record("ap", app, "v1"); !r.Unconfirmed {
			t.Errorf("%+v", r)
		}
		if _, down := eu.gate.Down(); down {
			t.Error("the breaker is open")
		}
		eu.setStatus(0)
		w.rest()
		if r, _ := w.record("ap", app, "v1"); r.Unconfirmed {
			t.Errorf("%+v", r)
		}
	})
}

// A manifest wanted by digest needs no confirmation: a digest cannot change.
func TestADigestIsTakenFromElsewhereForGood(t *testing.T) {
	routes := fanOut("us", "ap")
	routes[0].Untagged = true
	in(t, routes, func(w *world) {
		image := ocitest.Image("app", 1)
		w.sites["ap"].setDown(true)
		w.sites["eu"].Attach(app, image)
		w.accept(w.event("eu", app, "", image.Digest()))
		w.until("us has it", func() bool { _, ok := w.record("us", app, image.Digest().String()); return ok })
		w.sites["eu"].setDown(true)
		w.sites["ap"].setDown(false)
		w.rest()
		r, ok := w.record("ap", app, image.Digest().String())
		if !ok || r.Unconfirmed || !w.sites["ap"].Has(app, image) {
			t.Errorf("record %+v\n%s", r, w.describe())
		}
	})
}

// With names changed on the way, and under another tag: what counts is the digest.
func TestContentComesFromWhereverTheDigestIsProven(t *testing.T) {
	routes := append(fanOut("us"), route("dr", "eu", "ap"))
	routes[1].Rename, routes[1].SourceGone = "dr/{repository}", 5*time.Minute
	in(t, routes, func(w *world) {
		image := ocitest.Image("app", 2)
		w.sites["ap"].setDown(true)
		w.push("eu", app, "v1", image)
		w.push("eu", app, "latest", image)
		w.proven("us", app, "v1", image)
		w.proven("us", app, "latest", image)
		w.sites["eu"].setDown(true)
		w.sites["ap"].setDown(false)
		w.proven("ap", "dr/"+app, "v1", image)
		w.proven("ap", "dr/"+app, "latest", image)
		w.sites["eu"].setDown(false)
		w.rest()
	})
}

// Two registries that feed each other: without one of them nothing can be
// decided, and nothing is moved.
func TestAPairWaitsForBothEnds(t *testing.T) {
	there, back := route("there", "eu", "us", "ap"), route("back", "us", "eu")
	there.SourceGone, back.SourceGone = 5*time.Minute, 5*time.Minute
	in(t, []plan.Route{there, back}, func(w *world) {
		first, second := ocitest.Image("first", 1), ocitest.Image("second", 1)
		w.push("eu", app, "v1", first)
		w.proven("us", app, "v1", first)
		w.proven("ap", app, "v1", first)
		w.rest()
		w.sites["eu"].setDown(true)
		w.push("us", app, "v1", second)
		time.Sleep(15 * time.Minute)
		if got := w.sites["ap"].names(app, "v1"); got != first.Digest() {
			t.Errorf("ap follows eu, and was moved to %.17s", got)
		}
		if got := w.sites["us"].names(app, "v1"); got != second.Digest() {
			t.Errorf("us names %.17s", got)
		}
		w.sites["eu"].setDown(false)
		w.proven("eu", app, "v1", second)
		w.rest()
	})
}

// The source is alive and has lost a part of an image that one destination
// proved: the others have it from there.
func TestWhatTheSourceLostIsReadElsewhere(t *testing.T) {
	image := ocitest.MultiArch("app", 2, 2)
	blob, child := image.Blobs[1].Desc.Digest, image.Manifests[0].Digest
	losses := map[string]struct {
		lose func(w *world)
		kind replicator.FindingKind
	}{
		"a blob":         {func(w *world) { w.sites["eu"].Remove(app, blob) }, replicator.FindingSourceIncomplete},
		"a child":        {func(w *world) { w.sites["eu"].Remove(app, child) }, replicator.FindingSourceIncomplete},
		"a blob's bytes": {func(w *world) { w.sites["eu"].Corrupt(app, blob) }, replicator.FindingMismatch},
	}
	for name, c := range losses {
		t.Run(name, func(t *testing.T) {
			in(t, fanOut("us", "ap"), func(w *world) {
				w.push("eu", app, "v1", image)
				w.proven("us", app, "v1", image)
				w.proven("ap", app, "v1", image)
				w.rest()
				c.lose(w)
				w.sites["ap"].RemoveRepository(app)
				ev := w.event("eu", app, "v1", image.Digest())
				ev.Full = true
				w.accept(ev)
				w.until("ap is whole again", func() bool { return w.sites["ap"].Has(app, image) && w.sites["ap"].names(app, "v1") == image.Digest() })
				w.rest()
				if r, ok := w.record("ap", app, "v1"); !ok || r.Unconfirmed {
					t.Errorf("record %+v %t", r, ok)
				}
				if j := w.job("ap", app, "v1"); j.State != replicator.Done {
					t.Errorf("the job is %s", j.State)
				}
				if len(w.found(c.kind)) == 0 {
					t.Errorf("nobody is told:\n%s", w.describe())
				}
			})
		})
	}
}

// The source lists a tag and has lost its manifest: what one destination lost,
// too, comes from the other, unconfirmed until the source can be asked.
func TestATagTheSourceListsAndCannotGive(t *testing.T) {
	image := ocitest.Image("app", 2)
	in(t, fanOut("us", "ap"), func(w *world) {
		w.push("eu", app, "v1", image)
		w.proven("us", app, "v1", image)
		w.proven("ap", app, "v1", image)
		w.rest()
		w.sites["eu"].Remove(app, image.Digest())
		w.sites["ap"].RemoveRepository(app)
		if err := w.journal.Void(context.Background(), []replicator.Place{{Identity: w.sites["ap"].Identity(), Repository: app}}); err != nil {
			t.Fatal(err)
		}
		ev := w.event("eu", app, "v1", image.Digest())
		ev.Cause, ev.Destinations = causeVerify, []string{"ap"}
		w.accept(ev)
		w.proven("ap", app, "v1", image)
		if r, _ := w.record("ap", app, "v1"); !r.Unconfirmed {
			t.Errorf("record %+v", r)
		}
		if len(w.found(replicator.FindingSourceIncomplete)) == 0 {
			t.Errorf("nobody is told:\n%s", w.describe())
		}
		next := ocitest.Image("next", 1)
		w.push("eu", app, "v1", next)
		w.proven("ap", app, "v1", next)
		w.rest()
	})
}

// An elsewhere asks one place after the other.
func TestElsewhere(t *testing.T) {
	ctx := context.Background()
	image := ocitest.Image("app", 1)
	whole, empty, damaged := ocitest.New("oci://whole", ocitest.Options{}), ocitest.New("oci://empty", ocitest.Options{}), ocitest.New("oci://damaged", ocitest.Options{})
	whole.Push(app, "v1", image)
	damaged.Push(app, "v1", image)
	desc := image.Blobs[1].Desc
	damaged.Corrupt(app, desc.Digest)
	e := newElsewhere(empty.Repository(app), damaged.Repository(app), empty.Repository(app), whole.Repository(app))

	if _, err := e.FetchManifest(ctx, "v1"); !errors.Is(err, oci.ErrNotFound) {
		t.Errorf("a tag was asked for elsewhere: %v", err)
	}
	if m, err := e.FetchManifest(ctx, image.Digest().String()); err != nil || m.Digest != image.Digest() {
		t.Errorf("%v %v", m.Digest, err)
	}
	if got, err := e.Resolve(ctx, image.Digest().String()); err != nil || got.Digest != image.Digest() {
		t.Errorf("%v %v", got, err)
	}
	if _, err := e.Stat(ctx, desc.Digest); err != nil {
		t.Error(err)
	}
	read := func() digest.Digest {
		t.Helper()
		body, err := e.Fetch(ctx, desc)
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		b, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		return digest.FromBytes(b)
	}
	if read() == desc.Digest {
		t.Error("the first place is damaged")
	}
	if read() != desc.Digest {
		t.Error("begun anew, it came from the damaged place again")
	}
	// A read that broke goes on where it was begun, not at the damaged place.
	ranged, err := e.FetchRange(ctx, desc, 1, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer ranged.Close()
	if rest, err := io.ReadAll(ranged); err != nil || !bytes.Equal(rest, image.Blobs[1].Data[1:]) {
		t.Errorf("the rest came from the damaged place: %v", err)
	}
	absent := v1.Descriptor{Digest: digest.FromString("absent"), Size: 6}
	if _, err := e.Fetch(ctx, absent); !errors.Is(err, oci.ErrNotFound) {
		t.Errorf("%v", err)
	}
	// "Not there" of one does not count for another that gave no answer.
	whole.OnCall(func(context.Context, ocitest.Call) error { return oci.ErrUnreachable })
	if _, err := e.Stat(ctx, absent.Digest); errors.Is(err, oci.ErrNotFound) || !errors.Is(err, oci.ErrUnreachable) {
		t.Errorf("%v", err)
	}
}
