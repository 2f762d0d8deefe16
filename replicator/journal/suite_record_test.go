package journal

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

func (h *harness) record(tag, content string) replicator.Record {
	return replicator.Record{Destination: at("us", "team/app"), Tag: tag, Digest: dgst(content), Source: at("eu", "team/app"),
		Route: "prod", PushedAt: h.clock(), ProvenAt: h.clock(), ReferrersAt: h.clock(), Wrote: true, Bytes: 1 << 40}
}

func (h *harness) tags(identity string) []string {
	h.Helper()
	var tags []string
	for _, r := range must(h.Records(ctx0, identity, "team/app", "", 0))(h) {
		tags = append(tags, r.Tag)
	}
	return tags
}

const usID = "oci:us.example.com"

var _ = holds("a job's end and its record are one commit", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "one"))
	want := h.record("v1", "one")
	h.finish(h.claim(), func(o *Outcome) { o.Records = []replicator.Record{want} })
	got, found, err := h.Record(ctx0, usID, "team/app", "v1")
	if err != nil || !found {
		t.Fatal(found, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	s := h.standing("prod", "us")
	if s.Proven != 1 || !s.LastProof.Equal(start) || !s.OldestProof.Equal(start) || !s.BehindSince.IsZero() {
		t.Errorf("%+v", s)
	}
	if _, found, _ := h.Record(ctx0, "oci:ap.example.com", "team/app", "v1"); found {
		t.Error("a record of a registry nobody knows")
	}
})

var _ = holds("records are pages sorted bytewise by tag, digests apart", func(t *testing.T, h *harness) {
	var list []replicator.Record
	for _, tag := range []string{"b", "a", "B", "_x", "1", "a-1", "a.1"} {
		list = append(list, h.record(tag, tag))
	}
	untagged := h.record("", "alone")
	h.ok(h.SaveRecords(ctx0, append(list, untagged)))
	if diff := cmp.Diff([]string{"1", "B", "_x", "a", "a-1", "a.1", "b"}, h.tags(usID)); diff != "" {
		t.Error(diff)
	}
	page := must(h.Records(ctx0, usID, "team/app", "_x", 2))(t)
	if len(page) != 2 || page[0].Tag != "a" || page[1].Tag != "a-1" {
		t.Errorf("%+v", page)
	}
	alone := must(h.UntaggedRecords(ctx0, usID, "team/app", "", 0))(t)
	if len(alone) != 1 || alone[0].Digest != dgst("alone") {
		t.Errorf("%+v", alone)
	}
	if _, found, _ := h.Record(ctx0, usID, "team/app", dgst("alone").String()); !found {
		t.Error("no record by digest")
	}
	if got := must(h.RecordRepositories(ctx0, usID, "", 10))(t); !cmp.Equal(got, []string{"team/app"}) {
		t.Errorf("repositories %v", got)
	}
})

var _ = holds("a void repository has neither records nor locations", func(t *testing.T, h *harness) {
	other := h.record("v1", "one")
	other.Destination.Repository = "team/other"
	h.ok(h.SaveRecords(ctx0, []replicator.Record{h.record("v1", "one"), other}))
	h.accept(h.pushed("v2", "two"))
	h.finish(h.claim(), func(o *Outcome) {
		o.Locations = []replicator.Location{{Place: at("us", "team/app"), Digest: dgst("layer")}, {Place: at("us", "team/other"), Digest: dgst("layer")}}
		o.Records = []replicator.Record{h.record("v2", "two")}
	})
	h.accept(h.pushed("v3", "three"))
	h.finish(h.claim(), func(o *Outcome) {
		o.State, o.NextAttempt = replicator.Waiting, h.clock().Add(time.Hour)
		o.Void = []replicator.Place{at("us", "team/app")}
	})
	if got := h.tags(usID); len(got) != 0 {
		t.Errorf("records left: %v", got)
	}
	if got := must(h.Locations(ctx0, usID, dgst("layer").String()))(t); !cmp.Equal(got, []string{"team/other"}) {
		t.Errorf("locations %v", got)
	}
	if got := h.standing("prod", "us"); got.Proven != 1 {
		t.Errorf("the other repository's: %+v", got)
	}
	h.ok(h.Void(ctx0, []replicator.Place{at("us", "team/other"), at("nowhere", "x")}))
	if got := h.standing("prod", "us"); got.Proven != 0 {
		t.Errorf("%+v", got)
	}
})

var _ = holds("a distrusted registry's records count once proven again", func(t *testing.T, h *harness) {
	h.ok(h.SaveRecords(ctx0, []replicator.Record{h.record("v1", "one"), h.record("v2", "two")}))
	h.accept(h.pushed("v3", "three"))
	h.finish(h.claim(), func(o *Outcome) {
		o.Distrust = []string{usID}
		o.Records = []replicator.Record{h.record("v3", "three")}
	})
	if got := h.tags(usID); !cmp.Equal(got, []string{"v3"}) {
		t.Errorf("trusted: %v", got)
	}
	h.ok(h.SaveRecords(ctx0, []replicator.Record{h.record("v1", "one")}))
	if got := h.standing("prod", "us"); got.Proven != 2 {
		t.Errorf("%+v", got)
	}
	h.ok(h.Distrust(ctx0, usID))
	h.restart()
	if got := h.tags(usID); len(got) != 0 {
		t.Errorf("trusted after all: %v", got)
	}
	if _, found, _ := h.Record(ctx0, usID, "team/app", "v1"); found {
		t.Error("a distrusted record was given")
	}
})

var _ = holds("locations are the newest four repositories", func(t *testing.T, h *harness) {
	save := func(repository string) {
		h.accept(h.pushed(repository, "x"))
		h.finish(h.claim(), func(o *Outcome) {
			o.Locations = []replicator.Location{{Place: at("us", repository), Digest: dgst("layer")}}
		})
		h.pass(time.Second)
	}
	for i := range 6 {
		save(fmt.Sprintf("r%d", i))
	}
	want := []string{"r5", "r4", "r3", "r2"}
	if diff := cmp.Diff(want, must(h.Locations(ctx0, usID, dgst("layer").String()))(t)); diff != "" {
		t.Error(diff)
	}
	h.ok(h.ForgetLocation(ctx0, replicator.Location{Place: at("us", "r4"), Digest: dgst("layer")}))
	save("r4")
	if got := must(h.Locations(ctx0, usID, dgst("layer").String()))(t); !cmp.Equal(got, []string{"r4", "r5", "r3", "r2"}) {
		t.Errorf("%v", got)
	}
})

func (h *harness) state(tag, content string, at time.Time) replicator.TagState {
	s := replicator.TagState{Place: replicator.Place{Registry: "eu", Identity: "oci:eu.example.com", Repository: "team/app"},
		Tag: tag, At: at, Cause: "webhook"}
	if content != "" {
		s.Digest = dgst(content)
	}
	return s
}

func (h *harness) history(tag string, at *time.Time) []digest.Digest {
	h.Helper()
	var list []digest.Digest
	for _, s := range must(h.History(ctx0, "oci:eu.example.com", "team/app", tag, at, 0))(h) {
		list = append(list, s.Digest)
	}
	return list
}

var _ = holds("tag history collapses equal neighbours and answers for any time", func(t *testing.T, h *harness) {
	minute := func(n int) time.Time { return start.Add(time.Duration(n) * time.Minute) }
	add := func(content string, n int) {
		must(h.Accept(ctx0, Intake{History: []replicator.TagState{h.state("v1", content, minute(n))}}))(t)
	}
	add("one", 0)
	add("one", 5)
	add("two", 10)
	add("", 20)
	add("two", 30)
	add("two", 25) // late: the line of 30 begins earlier
	add("two", 12) // late, and known
	add("three", 2)
	want := []digest.Digest{dgst("two"), "", dgst("two"), dgst("three"), dgst("one")}
	if diff := cmp.Diff(want, h.history("v1", nil)); diff != "" {
		t.Error(diff)
	}
	list := must(h.History(ctx0, "oci:eu.example.com", "team/app", "v1", nil, 1))(t)
	if len(list) != 1 || !list[0].At.Equal(minute(25)) || list[0].Cause != "webhook" {
		t.Errorf("%+v", list)
	}
	for n, want := range map[int]digest.Digest{0: dgst("one"), 1: dgst("one"), 9: dgst("three"), 15: dgst("two"), 22: "", 40: dgst("two")} {
		when := minute(n)
		if got := h.history("v1", &when); got[0] != want {
			t.Errorf("after %d minutes it named %s, want %s", n, got[0], want)
		}
	}
	before := minute(-1)
	if got := h.history("v1", &before); len(got) != 0 {
		t.Errorf("before it existed: %v", got)
	}
})

var _ = holds("a route's records go to another name, at one registry", func(t *testing.T, h *harness) {
	record := func(registry, identity, tag, route string) replicator.Record {
		return replicator.Record{Destination: replicator.Place{Registry: registry, Identity: identity, Repository: "team/app"}, Tag: tag,
			Digest: dgst(tag), Source: replicator.Place{Registry: "eu", Identity: "oci:eu.example.com", Repository: "team/app"},
			Route: route, ProvenAt: h.clock()}
	}
	var list []replicator.Record
	for i := range 2*renamePage + 10 {
		list = append(list, record("us", usID, fmt.Sprintf("v%d", i), "old"))
	}
	list = append(list, record("us", usID, "other", "kept"), record("ap", "oci:ap.example.com", "v1", "old"))
	h.ok(h.SaveRecords(ctx0, list))
	if n := must(h.RenameRoute(ctx0, "old", "new", usID))(t); n != 2*renamePage+10 {
		t.Errorf("%d renamed", n)
	}
	for route, want := range map[string]int{"old": 0, "new": 1000, "kept": 1} {
		got := must(h.RouteRecords(ctx0, route, usID, 1000))(t)
		if len(got) != want || want > 0 && got[0].Route != route {
			t.Errorf("%s has %d records, want %d", route, len(got), want)
		}
	}
	if got := must(h.RouteRecords(ctx0, "old", "oci:ap.example.com", 10))(t); len(got) != 1 {
		t.Errorf("another registry's: %v", got)
	}
})

var _ = holds("each tag's present state, by tag from a tag on", func(t *testing.T, h *harness) {
	second := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }
	must(h.Accept(ctx0, Intake{History: []replicator.TagState{
		h.state("b", "one", second(1)), h.state("a", "one", second(2)), h.state("b", "two", second(9)),
		h.state("B", "", second(4)), h.state("c", "three", second(5)), h.state("b", "three", second(3)),
	}}))(t)
	eu := "oci:eu.example.com"
	shown := func(list []replicator.TagState) (lines []string) {
		for _, s := range list {
			if s.Place.Identity != eu || s.Place.Repository != "team/app" || s.Cause != "webhook" {
				t.Errorf("%+v", s)
			}
			lines = append(lines, fmt.Sprintf("%s %s %d", s.Tag, s.Digest, s.At.Sub(start)/time.Second))
		}
		return lines
	}
	want := []string{"B  4", "a " + dgst("one").String() + " 2", "b " + dgst("two").String() + " 9", "c " + dgst("three").String() + " 5"}
	if diff := cmp.Diff(want, shown(must(h.TagStates(ctx0, eu, "team/app", "", 10))(t))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want[2:3], shown(must(h.TagStates(ctx0, eu, "team/app", "b", 1))(t))); diff != "" {
		t.Error(diff)
	}
	if list := must(h.TagStates(ctx0, usID, "team/app", "", 10))(t); len(list) != 0 {
		t.Errorf("another registry's: %v", shown(list))
	}
})

var _ = holds("tag history is bounded by tag and age, but keeps the last", func(t *testing.T, h *harness) {
	for i := range 25 {
		var list []replicator.TagState
		for n := range 50 {
			list = append(list, h.state("busy", fmt.Sprint(i*50+n), h.clock()))
			h.pass(time.Second)
		}
		list = append(list, h.state("old", fmt.Sprint(i), h.clock()))
		must(h.Accept(ctx0, Intake{History: list}))(t)
	}
	var n int
	if _, err := one(ctx0, h.readDB, "SELECT COUNT(*) FROM tag_states WHERE tag = 'busy'", nil, &n); err != nil || n > 1000 || n < 900 {
		t.Errorf("%d rows of a busy tag, %v", n, err)
	}
	if got := h.history("busy", nil); got[0] != dgst("1249") {
		t.Error("the current line is gone")
	}
	h.pass(401 * 24 * time.Hour)
	must(h.Accept(ctx0, Intake{History: []replicator.TagState{h.state("busy", "new", h.clock())}}))(t)
	h.ok(h.Prune(ctx0, h.clock(), 30*24*time.Hour))
	if got := len(h.history("old", nil)); got != 11 {
		t.Errorf("%d lines of an old tag, want the current one and 10", got)
	}
	if got := len(h.history("busy", nil)); got != 11 {
		t.Errorf("%d lines of the busy tag", got)
	}
})
