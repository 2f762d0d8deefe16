package journal

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/replicator"
)

// departed is a tag of route prod that eu no longer has and us does.
func (h *harness) departed(tag, content string) replicator.Departure {
	return replicator.Departure{Route: "prod", Destination: at("us", "team/app"), Tag: tag, Source: at("eu", "team/app"), Digest: dgst(content)}
}

// recorded proves a tag at us and says that it is gone at eu.
func (h *harness) recorded(tag, content string) (replicator.Departure, replicator.Record) {
	h.Helper()
	d := h.departed(tag, content)
	rec := replicator.Record{Destination: d.Destination, Tag: tag, Digest: d.Digest, Source: d.Source, Route: "prod",
		ProvenAt: h.clock(), PushedAt: h.clock(), Wrote: true, Bytes: 7}
	h.ok(h.SaveRecords(ctx0, []replicator.Record{rec}))
	h.ok(h.Depart(ctx0, []replicator.Departure{d}, h.clock(), time.Hour))
	return d, rec
}

func (h *harness) departure(tag string) (replicator.Departure, bool) {
	h.Helper()
	d, known, err := h.Departure(ctx0, "prod", at("us", "team/app"), tag)
	h.ok(err)
	return d, known
}

func (h *harness) recordOf(tag string) (replicator.Record, bool) {
	h.Helper()
	r, known, err := h.Record(ctx0, at("us", "").Identity, "team/app", tag)
	h.ok(err)
	return r, known
}

var _ = holds("a tag is missing for what lies between listings, of which a part counts at most", func(t *testing.T, h *harness) {
	d := h.departed("v1", "one")
	see := func(after time.Duration) {
		h.pass(after)
		h.ok(h.Depart(ctx0, []replicator.Departure{d}, h.clock(), time.Hour))
	}
	want := func(since, absent time.Duration) {
		t.Helper()
		got, known := h.departure("v1")
		if !known || !got.Since.Equal(start.Add(since)) || got.Absent != absent || !got.SeenAt.Equal(h.clock()) {
			t.Fatalf("%+v, want missing since %s for %s", got, since, absent)
		}
	}
	see(0)
	want(0, 0)
	see(10 * time.Minute)
	want(0, 10*time.Minute)
	h.restart()
	see(20 * time.Minute)
	want(0, 30*time.Minute)
	see(240 * time.Hour) // nobody looked, or the clock was stepped
	want(0, 90*time.Minute)
	h.pass(-500 * time.Hour)
	h.ok(h.Depart(ctx0, []replicator.Departure{d}, h.clock(), time.Hour))
	want(0, 90*time.Minute)
	h.pass(500 * time.Hour)
	see(0)
	want(0, 150*time.Minute)
	d.Digest = dgst("two") // it had come back, and has gone again
	see(time.Minute)
	want(270*time.Hour-29*time.Hour-29*time.Minute, 0)
})

var _ = holds("a tag that comes back is forgotten", func(t *testing.T, h *harness) {
	for _, tag := range []string{"v1", "v2", "v3"} {
		h.recorded(tag, tag)
	}
	h.pass(time.Minute)
	began := h.clock()
	h.ok(h.Depart(ctx0, []replicator.Departure{h.departed("v2", "v2")}, h.clock(), time.Hour))
	h.ok(h.Return(ctx0, "prod", at("us", "team/app"), began)) // a listing that missed v2 alone
	for tag, want := range map[string]bool{"v1": false, "v2": true, "v3": false} {
		if _, known := h.departure(tag); known != want {
			t.Errorf("%s known to be missing: %v, want %v", tag, known, want)
		}
	}
	h.accept(h.pushed("v2", "")) // told by a webhook
	if _, known := h.departure("v2"); known {
		t.Error("a push leaves the tag missing")
	}
	h.recorded("v4", "v4")
	h.restart()
	h.accept(h.pushed("v4", "v4"))
	if _, known := h.departure("v4"); known {
		t.Error("a push leaves the tag missing after a restart")
	}
})

var _ = holds("what is due is counted apart from what is held", func(t *testing.T, h *harness) {
	var list []replicator.Departure
	for _, tag := range []string{"v1", "v2", "v3"} {
		d, _ := h.recorded(tag, tag)
		list = append(list, d)
	}
	h.pass(30 * time.Minute)
	h.ok(h.Depart(ctx0, list[:2], h.clock(), time.Hour))
	h.ok(h.HoldDeparture(ctx0, list[0], "drift"))
	identity := at("us", "").Identity
	count := func(since time.Time, grace time.Duration) int64 {
		return must(h.DueDepartures(ctx0, "prod", identity, since, grace))(t)
	}
	if n := count(h.clock(), 30*time.Minute); n != 1 {
		t.Errorf("%d due of those just missed, want v2", n)
	}
	if n := count(start, 0); n != 2 {
		t.Errorf("%d due of all, want v2 and v3", n)
	}
	if n := count(h.clock(), 31*time.Minute); n != 0 {
		t.Errorf("%d due before their grace has passed", n)
	}
	all, held, err := h.DepartureCounts(ctx0, "prod", identity)
	if h.ok(err); all != 3 || held != 1 {
		t.Errorf("%d missing, %d held", all, held)
	}
	if n := must(h.ProvenTags(ctx0, "prod", identity))(t); n != 3 {
		t.Errorf("%d proven tags", n)
	}
	h.ok(h.Depart(ctx0, list[:1], h.clock(), time.Hour))
	if d, _ := h.departure("v1"); d.Held != "drift" {
		t.Errorf("another listing forgets what holds it: %+v", d)
	}
	var seen []string
	for repository, tag := "", ""; ; {
		page := must(h.Departures(ctx0, "prod", identity, repository, tag, 2))(t)
		if len(page) == 0 {
			break
		}
		for _, d := range page {
			seen, repository, tag = append(seen, d.Tag), d.Destination.Repository, d.Tag
		}
	}
	if diff := cmp.Diff([]string{"v1", "v2", "v3"}, seen); diff != "" {
		t.Error(diff)
	}
})

var _ = holds("a removal that has begun is believed by nobody, and ends in one of three ways", func(t *testing.T, h *harness) {
	d, rec := h.recorded("v1", "one")
	begin := func() replicator.Record {
		t.Helper()
		given := must(h.BeginDeletion(ctx0, d))(t)
		if _, known := h.recordOf("v1"); known {
			t.Fatal("the record is believed while its tag is being removed")
		}
		if got, _ := h.departure("v1"); !got.Begun {
			t.Fatalf("%+v has not begun", got)
		}
		return given
	}
	given := begin()
	if diff := cmp.Diff(rec, given); diff != "" {
		t.Fatal(diff)
	}
	h.ok(h.AbandonDeletion(ctx0, d, given, "denied"))
	if back, known := h.recordOf("v1"); !known || cmp.Diff(rec, back) != "" {
		t.Fatalf("given back: %v %+v", known, back)
	}
	if got, _ := h.departure("v1"); got.Begun || got.Held != "denied" {
		t.Fatalf("%+v", got)
	}
	begin()
	h.ok(h.LeaveDeletion(ctx0, d)) // nobody knows; the next run tries again
	if again := begin(); again.Tag != "" {
		t.Fatalf("a record out of nowhere: %+v", again)
	}
	h.ok(h.AbandonDeletion(ctx0, d, replicator.Record{}, "unsupported"))
	if got, _ := h.departure("v1"); !got.Begun || got.Held != "unsupported" {
		t.Fatalf("%+v: what it is known by is that it was begun", got)
	}
	begin()
	h.ok(h.FinishDeletion(ctx0, d, h.clock(), "deleted", AuditEntry{Actor: "route prod", Action: "tag.delete", Target: "us/team/app:v1"}))
	if _, known := h.departure("v1"); known {
		t.Error("it is still missing")
	}
	states := must(h.History(ctx0, d.Destination.Identity, "team/app", "v1", nil, 10))(t)
	if len(states) == 0 || states[0].Digest != "" || states[0].Cause != "deleted" {
		t.Errorf("history %+v", states)
	}
	if audits := must(h.Audits(ctx0, 1))(t); len(audits) != 1 || audits[0].Action != "tag.delete" {
		t.Errorf("audit %+v", audits)
	}
	h.ok(h.FinishDeletion(ctx0, d, h.clock(), "deleted", AuditEntry{Action: "twice"}))
	if audits := must(h.Audits(ctx0, 1))(t); audits[0].Action == "twice" {
		t.Error("ended twice")
	}
})

var _ = holds("a removal and a move of one tag exclude each other", func(t *testing.T, h *harness) {
	d, _ := h.recorded("v1", "one")
	h.ok(h.SaveRecords(ctx0, []replicator.Record{{Destination: d.Destination, Tag: "v1", Digest: dgst("moved"), Source: d.Source, Route: "prod"}}))
	if _, err := h.BeginDeletion(ctx0, d); !errors.Is(err, ErrInUse) {
		t.Fatalf("the record names another digest: %v", err)
	}
	d, _ = h.recorded("v1", "one")
	other := d
	other.Route = "other"
	if _, err := h.BeginDeletion(ctx0, other); !errors.Is(err, ErrInUse) {
		t.Fatalf("a route that noted nothing: %v", err)
	}
	must(h.BeginDeletion(ctx0, d))(t)
	h.accept(h.pushed("v1", "two"), h.pushed("v2", "two"))
	if c := h.claim(); c.Jobs[0].Tag != "v2" {
		t.Fatalf("%s is claimed while it is being removed", c.Jobs[0].Tag)
	}
	if _, err := h.BeginDeletion(ctx0, d); !errors.Is(err, ErrInUse) {
		t.Fatalf("begun while a push waits: %v", err)
	}
	h.ok(h.FinishDeletion(ctx0, d, h.clock(), "deleted", AuditEntry{}))
	if c := h.claim(); c.Jobs[0].Tag != "v1" {
		t.Fatalf("%s is claimed, v1 is free", c.Jobs[0].Tag)
	}
	h.ok(h.Depart(ctx0, []replicator.Departure{d}, h.clock(), time.Hour))
	h.ok(h.SaveRecords(ctx0, []replicator.Record{{Destination: d.Destination, Tag: "v1", Digest: d.Digest, Source: d.Source, Route: "prod"}}))
	if _, err := h.BeginDeletion(ctx0, d); !errors.Is(err, ErrInUse) {
		t.Fatalf("begun while a job moves the tag: %v", err)
	}
})

var _ = holds("a removal that a dead process began bars nobody", func(t *testing.T, h *harness) {
	d, _ := h.recorded("v1", "one")
	must(h.BeginDeletion(ctx0, d))(t)
	h.restart()
	if got, _ := h.departure("v1"); !got.Begun {
		t.Fatalf("%+v: what was begun is forgotten", got)
	}
	h.ok(h.Return(ctx0, "prod", d.Destination, h.clock().Add(time.Hour)))
	if _, known := h.departure("v1"); !known {
		t.Fatal("a listing forgets what was begun: who looks after it has yet to find out")
	}
	h.accept(h.pushed("v1", "two"))
	if _, known := h.departure("v1"); known {
		t.Fatal("a push leaves what a dead process began")
	}
	if c := h.claim(); c.Jobs[0].Tag != "v1" {
		t.Fatalf("%s is claimed", c.Jobs[0].Tag)
	}
})

var _ = holds("departures that nobody sees any more are pruned", func(t *testing.T, h *harness) {
	h.recorded("old", "old")
	h.pass(31 * 24 * time.Hour)
	h.recorded("new", "new")
	h.ok(h.Prune(ctx0, h.clock(), 30*24*time.Hour))
	if _, known := h.departure("old"); known {
		t.Error("old is still there")
	}
	if _, known := h.departure("new"); !known {
		t.Error("new is gone")
	}
})

var _ = holds("the tags that name a digest", func(t *testing.T, h *harness) {
	h.recorded("v1", "one")
	h.recorded("latest", "one")
	h.recorded("v2", "two")
	got := must(h.TagsOf(ctx0, at("us", "team/app"), dgst("one"), "", 10))(t)
	if diff := cmp.Diff([]string{"latest", "v1"}, got); diff != "" {
		t.Error(diff)
	}
	if got := must(h.TagsOf(ctx0, at("us", "team/other"), dgst("one"), "", 10))(t); len(got) != 0 {
		t.Errorf("of another repository: %v", got)
	}
	h.ok(h.Distrust(ctx0, at("us", "").Identity))
	if got := must(h.TagsOf(ctx0, at("us", "team/app"), dgst("one"), "", 10))(t); len(got) != 0 {
		t.Errorf("not believed any more: %v", got)
	}
})
