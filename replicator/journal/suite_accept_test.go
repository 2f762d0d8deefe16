package journal

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

var _ = holds("a push makes a waiting job, due at once", func(t *testing.T, h *harness) {
	if got := h.accept(h.pushed("v1", "one")); got != (Accepted{Made: 1}) {
		t.Errorf("accepted %+v", got)
	}
	job := h.live("v1")
	want := replicator.Job{ID: job.ID, Source: at("eu", "team/app"), Destination: at("us", "team/app"), Tag: "v1",
		Digest: dgst("one"), Wants: []replicator.Want{{Route: "prod", Destination: "us"}}, PushedAt: start,
		BehindSince: start, State: replicator.Waiting, NextAttempt: start, Generation: 1, CreatedAt: start, UpdatedAt: start}
	if diff := cmp.Diff(want, job); diff != "" {
		t.Error(diff)
	}
	select {
	case <-h.Changed():
	default:
		t.Error("nobody was told that a job is due")
	}
})

var _ = holds("a second push to a waiting tag coalesces", func(t *testing.T, h *harness) {
	first := h.pushed("v1", "one")
	first.Lane = replicator.LaneBackfill
	h.accept(first)
	c := h.claim()
	h.finish(c, func(o *Outcome) {
		o.State, o.NextAttempt = replicator.Waiting, h.clock().Add(time.Hour)
		o.Error = &replicator.JobError{Kind: "unreachable", Message: "no"}
	})
	if job := h.live("v1"); job.Attempts != 1 || !job.FirstAttempt.Equal(start) || job.Error == nil {
		t.Fatalf("after an attempt: %+v", job)
	}
	h.pass(time.Minute)
	second := h.pushed("v1", "two")
	second.Full = true
	second.Wants = []replicator.Want{{Route: "all", Destination: "us"}}
	if got := h.accept(second); got != (Accepted{Renewed: 1}) {
		t.Errorf("accepted %+v", got)
	}
	job := h.live("v1")
	want := job
	want.ID, want.Digest, want.Lane, want.Generation = c.Jobs[0].ID, dgst("two"), replicator.LaneWebhook, 2
	want.Wants = []replicator.Want{{Route: "all", Destination: "us"}, {Route: "prod", Destination: "us"}}
	want.BehindSince, want.PushedAt, want.NextAttempt = start, h.clock(), h.clock()
	want.Attempts, want.FirstAttempt, want.Error, want.Full, want.State = 0, time.Time{}, nil, true, replicator.Waiting
	if diff := cmp.Diff(want, job); diff != "" {
		t.Error(diff)
	}
	if got := h.endedWith("v1", replicator.Superseded); !cmp.Equal(got, []digest.Digest{dgst("one")}) {
		t.Errorf("superseded: %v", got)
	}
})

var _ = holds("the same push again keeps attempts and supersedes nothing", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "one"))
	h.finish(h.claim(), func(o *Outcome) { o.State, o.NextAttempt = replicator.Waiting, h.clock().Add(time.Hour) })
	h.pass(time.Minute)
	h.accept(h.pushed("v1", "one"))
	job := h.live("v1")
	if job.Attempts != 1 || !job.NextAttempt.Equal(h.clock()) || job.Generation != 2 {
		t.Errorf("%+v", job)
	}
	if got := h.endedWith("v1", replicator.Superseded); len(got) != 0 {
		t.Errorf("superseded: %v", got)
	}
})

var _ = holds("an earlier push that comes late is superseded and moves nothing", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "new"))
	late := h.pushed("v1", "old")
	late.PushedAt = start.Add(-time.Minute)
	h.accept(late)
	job := h.live("v1")
	if job.Digest != dgst("new") || !job.PushedAt.Equal(start) || !job.BehindSince.Equal(late.PushedAt) {
		t.Errorf("%+v", job)
	}
	if got := h.endedWith("v1", replicator.Superseded); !cmp.Equal(got, []digest.Digest{dgst("old")}) {
		t.Errorf("superseded: %v", got)
	}
})

var _ = holds("a push without digest keeps the known one as hint", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "one"))
	h.pass(time.Second)
	h.accept(h.pushed("v1", ""))
	job := h.live("v1")
	if job.Digest != dgst("one") || job.Generation != 2 || !job.PushedAt.Equal(h.clock()) {
		t.Errorf("%+v", job)
	}
	h.accept(h.pushed("v2", ""))
	if job := h.live("v2"); job.Digest != "" || job.Reference() != "v2" {
		t.Errorf("%+v", job)
	}
})

var _ = holds("a sweep that sees what waits disturbs nothing", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "one"))
	next := h.clock().Add(time.Hour)
	h.finish(h.claim(), func(o *Outcome) { o.State, o.NextAttempt = replicator.Waiting, next })
	before := h.live("v1")
	h.pass(time.Minute)
	swept := h.pushed("v1", "one")
	swept.Lane = replicator.LaneSweep
	if got := h.accept(swept); got != (Accepted{Renewed: 1}) {
		t.Errorf("accepted %+v", got)
	}
	if diff := cmp.Diff(before, h.live("v1")); diff != "" {
		t.Error(diff)
	}
	swept.Digest = dgst("two")
	h.accept(swept)
	if job := h.live("v1"); job.Generation != 2 || job.Digest != dgst("two") || !job.NextAttempt.Equal(h.clock()) {
		t.Errorf("a sweep that saw another digest: %+v", job)
	}
})

var _ = holds("a sweep that sees what runs makes no successor", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "one"))
	c := h.claim()
	swept := h.pushed("v1", "one")
	swept.Lane = replicator.LaneSweep
	h.accept(swept)
	h.finish(c, nil)
	if job, ok := h.find("v1", replicator.Waiting); ok {
		t.Errorf("successor %+v", job)
	}
})

var _ = holds("pushes to a running job make exactly one successor", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "one"))
	c := h.claim()
	h.pass(time.Second)
	second := h.clock()
	h.accept(h.pushed("v1", "two"))
	h.pass(time.Second)
	h.accept(h.pushed("v1", "three"))
	if job := h.live("v1"); job.State != replicator.Running || job.Generation != 3 || !job.BehindSince.Equal(start) {
		t.Errorf("while it runs: %+v", job)
	}
	if more := h.claims(10); len(more) != 0 {
		t.Fatalf("a running row was claimed: %+v", more)
	}
	h.pass(time.Second)
	h.finish(c, func(o *Outcome) { o.Digest = dgst("one") })
	job := h.live("v1")
	if job.State != replicator.Waiting || job.Digest != dgst("three") || !job.NextAttempt.Equal(h.clock()) || job.Attempts != 0 {
		t.Errorf("successor %+v", job)
	}
	if !job.BehindSince.Equal(second) {
		t.Errorf("behind since %s, want the first push the proof does not cover, %s", job.BehindSince, second)
	}
	if got := h.endedWith("v1", replicator.Done); !cmp.Equal(got, []digest.Digest{dgst("one")}) {
		t.Errorf("done: %v", got)
	}
	if got := h.endedWith("v1", replicator.Superseded); !cmp.Equal(got, []digest.Digest{dgst("two")}) {
		t.Errorf("superseded: %v", got)
	}
	h.finish(h.claim(), nil)
	if more := h.claims(10); len(more) != 0 {
		t.Errorf("a second successor: %+v", more)
	}
})

var _ = holds("a failed attempt of a job pushed to meanwhile keeps its lag", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "one"))
	c := h.claim()
	h.pass(time.Second)
	h.accept(h.pushed("v1", "two"))
	h.finish(c, func(o *Outcome) { o.State, o.NextAttempt = replicator.Failed, h.clock().Add(time.Hour) })
	job := h.live("v1")
	if job.State != replicator.Waiting || !job.NextAttempt.Equal(h.clock()) || !job.BehindSince.Equal(start) || job.Attempts != 0 {
		t.Errorf("%+v", job)
	}
	if got := h.endedWith("v1", replicator.Superseded); !cmp.Equal(got, []digest.Digest{dgst("one")}) {
		t.Errorf("superseded: %v", got)
	}
})

var _ = holds("a tag found to name another digest than hinted supersedes the hint", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "hint"))
	h.finish(h.claim(), func(o *Outcome) { o.Digest = dgst("real") })
	if got := h.endedWith("v1", replicator.Done); !cmp.Equal(got, []digest.Digest{dgst("real")}) {
		t.Errorf("done: %v", got)
	}
	if got := h.endedWith("v1", replicator.Superseded); !cmp.Equal(got, []digest.Digest{dgst("hint")}) {
		t.Errorf("superseded: %v", got)
	}
	if got := h.accept(h.pushed("v1", "next")); got.Made != 1 {
		t.Errorf("a push after the end: %+v", got)
	}
})

var _ = holds("a failed job is revived by any push, by a sweep for one more attempt", func(t *testing.T, h *harness) {
	fail := func() {
		h.finish(h.claim(), func(o *Outcome) { o.State = replicator.Failed })
	}
	h.accept(h.pushed("v1", "one"))
	fail()
	if s := h.standing("prod", "us"); s.Counts[replicator.Failed] != 1 || !s.BehindSince.Equal(start) {
		t.Errorf("a failed job must count as behind: %+v", s)
	}
	h.pass(time.Hour)
	swept := h.pushed("v1", "one")
	swept.Lane = replicator.LaneSweep
	h.accept(swept)
	if job := h.live("v1"); job.State != replicator.Waiting || !job.FirstAttempt.Equal(start) || job.Attempts != 1 {
		t.Errorf("after a sweep: %+v", job)
	}
	fail()
	if got := h.accept(h.pushed("v1", "one")); got != (Accepted{Made: 1}) {
		t.Errorf("accepted %+v", got)
	}
	if job := h.live("v1"); job.State != replicator.Waiting || job.Attempts != 0 || !job.BehindSince.Equal(start) {
		t.Errorf("after an equal push: %+v", job)
	}
})

var _ = holds("a refusal is remembered for its digest", func(t *testing.T, h *harness) {
	must(h.Configure(ctx0, eu2us, prodRoute, "f1", "config"))(t)
	h.accept(h.pushed("v1", "bad"))
	why := &replicator.JobError{Kind: "refused", Message: "no such media type"}
	h.finish(h.claim(), func(o *Outcome) { o.State, o.Error = replicator.Refused, why })
	if got := h.accept(h.pushed("v1", "bad")); got != (Accepted{Refused: 1}) {
		t.Errorf("the same digest: %+v", got)
	}
	if got := h.accept(h.pushed("v2", "bad")); got != (Accepted{Refused: 1}) {
		t.Errorf("the same digest at another tag: %+v", got)
	}
	if job := h.live("v2"); job.State != replicator.Refused || !cmp.Equal(job.Error, why) {
		t.Errorf("%+v", job)
	}
	s := h.standing("prod", "us")
	if s.Counts[replicator.Refused] != 2 || s.BehindSince.IsZero() {
		t.Errorf("refused jobs must count as behind: %+v", s)
	}
	got := must(h.Refusal(ctx0, "oci:us.example.com", "team/app", dgst("bad").String(), "f1"))(t)
	if !cmp.Equal(got, why) {
		t.Errorf("refusal %+v", got)
	}
	if got := must(h.Refusal(ctx0, "oci:us.example.com", "team/app", dgst("bad").String(), "f2"))(t); got != nil {
		t.Errorf("under another fingerprint: %+v", got)
	}
	if got := h.accept(h.pushed("v1", "good")); got != (Accepted{Made: 1}) {
		t.Errorf("another digest: %+v", got)
	}
	if got := h.accept(h.pushed("v1", "bad")); got != (Accepted{Refused: 1}) {
		t.Errorf("back to the refused one: %+v", got)
	}
	if got := h.accept(h.pushed("v1", "")); got != (Accepted{Made: 1}) {
		t.Errorf("an unknown digest: %+v", got)
	}
	must(h.Configure(ctx0, eu2us, prodRoute, "f2", "config"))(t)
	if job := h.live("v2"); job.State != replicator.Waiting || job.Error != nil {
		t.Errorf("after a change of config: %+v", job)
	}
})

var _ = holds("a canceled job is held at its digest, another frees it", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "one"))
	if n := must(h.Cancel(ctx0, JobFilter{Tag: "v1"}, "cli"))(t); n != 1 {
		t.Errorf("canceled %d", n)
	}
	if s := h.standing("prod", "us"); !s.BehindSince.IsZero() || s.Counts[replicator.Held] != 1 {
		t.Errorf("a held job is not behind: %+v", s)
	}
	for _, lane := range []replicator.Lane{replicator.LaneWebhook, replicator.LaneSweep} {
		again := h.pushed("v1", "one")
		again.Lane = lane
		if got := h.accept(again); got != (Accepted{Held: 1}) {
			t.Errorf("an equal push: %+v", got)
		}
	}
	h.pass(time.Minute)
	if got := h.accept(h.pushed("v1", "")); got != (Accepted{Made: 1}) {
		t.Errorf("an unknown digest: %+v", got)
	}
	if job := h.live("v1"); job.State != replicator.Waiting || job.HeldDigest != dgst("one") {
		t.Errorf("a worker must be able to tell what is held: %+v", job)
	}
	h.finish(h.claim(), func(o *Outcome) { o.State, o.Digest = replicator.Held, dgst("one") })
	if got := h.accept(h.pushed("v1", "two")); got != (Accepted{Made: 1}) {
		t.Errorf("another digest: %+v", got)
	}
	if job := h.live("v1"); job.State != replicator.Waiting || job.HeldDigest != "" || !job.BehindSince.Equal(h.clock()) {
		t.Errorf("%+v", job)
	}
})

var _ = holds("a late event of an older push does not lift a hold", func(t *testing.T, h *harness) {
	h.pass(time.Minute)
	h.accept(h.pushed("v1", "two"))
	must(h.Cancel(ctx0, JobFilter{Tag: "v1"}, "cli"))(t)
	late := h.pushed("v1", "one")
	late.PushedAt = start
	h.accept(late)
	if job := h.live("v1"); job.HeldDigest != dgst("two") {
		t.Errorf("%+v", job)
	}
})

var _ = holds("a job canceled while it runs is held when it ends unproven", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "one"), h.pushed("v2", "one"))
	claims := h.claims(2)
	must(h.Cancel(ctx0, JobFilter{Route: "prod"}, "cli"))(t)
	h.finish(claims[0], func(o *Outcome) { o.State, o.NextAttempt = replicator.Waiting, h.clock() })
	h.finish(claims[1], nil)
	if job := h.live("v1"); job.State != replicator.Held {
		t.Errorf("%+v", job)
	}
	if got := h.endedWith("v2", replicator.Done); len(got) != 1 {
		t.Errorf("what was proven is done: %v", got)
	}
})

var _ = holds("two sources of one destination tag have a job each and never run together", func(t *testing.T, h *harness) {
	other := h.pushed("v1", "other")
	other.Source = at("eu", "team/other")
	if got := h.accept(h.pushed("v1", "one"), other); got.Made != 2 {
		t.Fatalf("accepted %+v", got)
	}
	first := h.claim()
	h.finish(first, nil)
	second := h.claim()
	if first.Jobs[0].Source == second.Jobs[0].Source {
		t.Error("the same source twice")
	}
})

var _ = holds("jobs by digest alone are rows of their own", func(t *testing.T, h *harness) {
	job := h.pushed("", "one")
	h.accept(job, h.pushed("v1", "one"))
	if got := h.accept(job); got != (Accepted{Renewed: 1}) {
		t.Errorf("accepted %+v", got)
	}
	if claims := h.claims(10); len(claims) != 2 {
		t.Errorf("%d claims, want one of the tag and one of the digest", len(claims))
	}
})

var _ = holds("an intake is whole or not at all, and says what is wrong with it", func(t *testing.T, h *harness) {
	bad := h.pushed("v2", "two")
	bad.Wants = nil
	if _, err := h.Accept(ctx0, Intake{Jobs: []replicator.Job{h.pushed("v1", "one"), bad}}); err == nil {
		t.Error("a job nobody wants was accepted")
	}
	if jobs, _, err := h.Jobs(ctx0, JobFilter{}); err != nil || len(jobs) != 0 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
})

var (
	eu2us     = []Registry{{Name: "eu", Identity: "oci:eu.example.com"}, {Name: "us", Identity: "oci:us.example.com"}}
	prodRoute = []Route{{Name: "prod", From: "eu", Destinations: []string{"us"}}}
)
