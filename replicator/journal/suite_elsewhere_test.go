package journal

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

var _ = holds("a digest is held wherever a trusted record says so, once", func(t *testing.T, h *harness) {
	there := func(registry, repository, tag, content string) replicator.Record {
		r := h.record(tag, content)
		r.Destination = at(registry, repository)
		return r
	}
	h.ok(h.SaveRecords(ctx0, []replicator.Record{
		there("us", "team/app", "v1", "one"), there("us", "team/app", "latest", "one"),
		there("us", "other/app", "v1", "one"), there("ap", "team/app", "", "one"),
		there("sa", "team/app", "v1", "two"),
	}))
	got := must(h.Holders(ctx0, dgst("one")))(t)
	want := []replicator.Place{at("us", "other/app"), at("us", "team/app"), at("ap", "team/app")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	h.ok(h.Distrust(ctx0, usID))
	if got := must(h.Holders(ctx0, dgst("one")))(t); !cmp.Equal(got, want[2:]) {
		t.Errorf("us is not believed any more, and still holds it: %v", got)
	}
	h.ok(h.SaveRecords(ctx0, []replicator.Record{there("us", "team/app", "v1", "one")}))
	if got := must(h.Holders(ctx0, dgst("one")))(t); !cmp.Equal(got, want[1:]) {
		t.Errorf("proven again: %v", got)
	}
	h.ok(h.Void(ctx0, []replicator.Place{at("us", "team/app")}))
	if got := must(h.Holders(ctx0, dgst("one")))(t); !cmp.Equal(got, want[2:]) {
		t.Errorf("void: %v", got)
	}
	for _, none := range []string{"three", ""} {
		d := dgst(none)
		if none == "" {
			d = ""
		}
		if got := must(h.Holders(ctx0, d))(t); len(got) != 0 {
			t.Errorf("%q is held at %v", none, got)
		}
	}
})

var _ = holds("an unconfirmed record is proven, and counted as unconfirmed until it is saved without", func(t *testing.T, h *harness) {
	one, two := h.record("v1", "one"), h.record("v2", "two")
	one.Unconfirmed = true
	h.ok(h.SaveRecords(ctx0, []replicator.Record{one, two}))
	if r, found, err := h.Record(ctx0, usID, "team/app", "v1"); err != nil || !found || !r.Unconfirmed {
		t.Fatalf("%+v %t %v", r, found, err)
	}
	if s := h.standing("prod", "us"); s.Proven != 2 || s.Unconfirmed != 1 {
		t.Errorf("%+v", s)
	}
	h.restart()
	if s := h.standing("prod", "us"); s.Unconfirmed != 1 {
		t.Errorf("after a restart: %+v", s)
	}
	one.Unconfirmed = false
	h.ok(h.SaveRecords(ctx0, []replicator.Record{one}))
	if s := h.standing("prod", "us"); s.Proven != 2 || s.Unconfirmed != 0 {
		t.Errorf("confirmed: %+v", s)
	}
})

var _ = holds("a job whose source is down is claimed where it is asked for, and nothing else is", func(t *testing.T, h *harness) {
	h.accept(h.to("us", "v1", "one"), h.to("ap", "v1", "one"), h.to("us", "v2", "two"))
	options := ClaimOptions{Max: 10, MaxForeground: 10, MaxBackground: 10, Down: []string{"oci:eu.example.com"}, Now: h.clock()}
	claim := func(o ClaimOptions) []Claim {
		t.Helper()
		claims, err := h.Claim(ctx0, o)
		h.ok(err)
		return claims
	}
	if got := claim(options); len(got) != 0 {
		t.Fatalf("claimed of a source that is down: %+v", got)
	}
	us := must(h.job("us", "v1"))(t)
	options.Elsewhere = []string{us.ID}
	both := options
	both.Down = append(both.Down, usID)
	if got := claim(both); len(got) != 0 {
		t.Fatalf("claimed for a destination that is down: %+v", got)
	}
	h.ok(h.Pause(ctx0, "prod", "test"))
	if got := claim(options); len(got) != 0 {
		t.Fatalf("claimed of a paused route: %+v", got)
	}
	h.ok(h.Resume(ctx0, "prod", "test"))
	got := claim(options)
	if len(got) != 1 || len(got[0].Jobs) != 1 || got[0].Jobs[0].ID != us.ID {
		t.Fatalf("%+v", got)
	}
	if again := claim(options); len(again) != 0 {
		t.Errorf("claimed twice: %+v", again)
	}
	h.finish(got[0], nil)
	if again := claim(options); len(again) != 0 {
		t.Errorf("claimed after its end: %+v", again)
	}
	// With the source back all the others come as ever.
	options.Down, options.Elsewhere = nil, nil
	if got := claim(options); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	options.Elsewhere = []string{"nonsense"}
	if _, err := h.Claim(ctx0, options); err == nil {
		t.Error("an ID that is none was taken")
	}
})

// job is the live job of a tag at a destination.
func (h *harness) job(destination, tag string) (replicator.Job, error) {
	jobs, _, err := h.Jobs(ctx0, JobFilter{Destination: destination, Tag: tag, States: []replicator.JobState{replicator.Waiting}})
	if err != nil || len(jobs) != 1 {
		return replicator.Job{}, err
	}
	return jobs[0], nil
}

var _ = holds("what a tag was read to name comes after what was told before the reading", func(t *testing.T, h *harness) {
	minute := func(n int) time.Time { return start.Add(time.Duration(n) * time.Minute) }
	add := func(s replicator.TagState) {
		must(h.Accept(ctx0, Intake{History: []replicator.TagState{s}}))(t)
	}
	add(h.state("v1", "one", minute(5)))
	swept := h.state("v1", "two", minute(0)) // pushed at some time after the last sweep
	swept.SeenAt = minute(15)
	add(swept)
	if diff := cmp.Diff([]digest.Digest{dgst("two"), dgst("one")}, h.history("v1", nil)); diff != "" {
		t.Error(diff)
	}
	when := minute(10)
	if got := h.history("v1", &when); got[0] != dgst("one") {
		t.Errorf("after ten minutes it named %s", got[0])
	}
	add(h.state("v1", "three", minute(16))) // told of a push after the reading
	late := h.state("v1", "two", minute(0))
	late.SeenAt = minute(15)
	add(late)
	if got := h.history("v1", nil); got[0] != dgst("three") {
		t.Errorf("a reading took the place of a later push: %v", got)
	}
})
