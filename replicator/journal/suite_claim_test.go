package journal

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/replicator"
)

func (h *harness) to(registry, tag, content string) replicator.Job {
	job := h.pushed(tag, content)
	job.Destination = at(registry, "team/app")
	job.Wants = []replicator.Want{{Route: "prod", Destination: registry}}
	return job
}

var _ = holds("a claim is all due jobs of one source tag, whatever their destinations", func(t *testing.T, h *harness) {
	h.accept(h.to("us", "v1", "one"), h.to("ap", "v1", "one"), h.to("us", "v2", "two"))
	later := h.to("sa", "v1", "one")
	h.accept(later)
	first := h.claims(1)[0]
	if len(first.Jobs) != 3 {
		t.Fatalf("%d jobs in the claim, want 3: %+v", len(first.Jobs), first)
	}
	for _, job := range first.Jobs {
		if job.State != replicator.Running || job.Tag != "v1" {
			t.Errorf("%+v", job)
		}
	}
	if first.Epoch == 0 || first.Replica == "" {
		t.Errorf("no lease: %+v", first)
	}
	// Each row has its own end.
	var outcomes []Outcome
	for _, job := range first.Jobs {
		o := Outcome{ID: job.ID, Generation: job.Generation, State: replicator.Done}
		if job.Destination.Registry == "sa" {
			o.State, o.NextAttempt, o.Counted = replicator.Waiting, h.clock().Add(time.Minute), true
		}
		outcomes = append(outcomes, o)
	}
	h.ok(h.Finish(ctx0, first, outcomes))
	if job := h.live("v1"); job.Destination.Registry != "sa" || job.Attempts != 1 {
		t.Errorf("%+v", job)
	}
	if claim := h.claim(); claim.Jobs[0].Tag != "v2" {
		t.Errorf("%+v", claim)
	}
	h.pass(time.Minute)
	if claim := h.claim(); claim.Jobs[0].Destination.Registry != "sa" {
		t.Errorf("%+v", claim)
	}
})

var _ = holds("higher lanes go first, then who is due longest", func(t *testing.T, h *harness) {
	for i, lane := range []replicator.Lane{replicator.LaneBackfill, replicator.LaneSweep, replicator.LaneManual, replicator.LaneWebhook} {
		job := h.pushed(fmt.Sprintf("%s-%d", lane, i), "x")
		job.Lane = lane
		h.accept(job)
		h.pass(time.Second)
	}
	older := h.to("ap", "webhook-older", "x")
	h.accept(older)
	h.pass(time.Second)
	h.accept(h.to("us", "webhook-newer", "x"))
	var got []string
	for _, c := range h.claims(10) {
		got = append(got, c.Jobs[0].Tag)
	}
	want := []string{"webhook-3", "webhook-older", "webhook-newer", "manual-2", "sweep-1", "backfill-0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
})

var _ = holds("no lane starves under a flood of a higher one", func(t *testing.T, h *harness) {
	for i := range 60 {
		h.accept(h.pushed(fmt.Sprintf("flood-%d", i), "x"))
	}
	for _, lane := range []replicator.Lane{replicator.LaneManual, replicator.LaneSweep, replicator.LaneBackfill} {
		job := h.pushed(lane.String(), "x")
		job.Lane = lane
		h.accept(job)
	}
	seen := map[replicator.Lane]bool{}
	for range 40 {
		seen[h.claims(1)[0].Jobs[0].Lane] = true
	}
	if len(seen) != 4 {
		t.Errorf("lanes claimed under a flood: %v", seen)
	}
})

var _ = holds("claims keep to the room of each group of lanes", func(t *testing.T, h *harness) {
	for i := range 5 {
		for _, lane := range replicator.Lanes {
			job := h.pushed(fmt.Sprintf("%s-%d", lane, i), "x")
			job.Lane = lane
			h.accept(job)
		}
	}
	claims := must(h.Claim(ctx0, ClaimOptions{Max: 20, MaxForeground: 3, MaxBackground: 2, Now: h.clock()}))(t)
	count := map[bool]int{}
	for _, c := range claims {
		count[c.Jobs[0].Lane.Background()]++
	}
	if count[false] != 3 || count[true] != 2 {
		t.Errorf("foreground and background: %v", count)
	}
	claims = must(h.Claim(ctx0, ClaimOptions{Max: 1, MaxForeground: 3, MaxBackground: 2, Now: h.clock()}))(t)
	if len(claims) != 1 {
		t.Errorf("%d claims, at most 1 was asked for", len(claims))
	}
})

var _ = holds("jobs of a registry that is down stay, others behind them do not", func(t *testing.T, h *harness) {
	for i := range 100 {
		h.accept(h.to("us", fmt.Sprintf("down-%d", i), "x"))
	}
	h.pass(time.Second)
	both := h.to("ap", "down-5", "x")
	h.accept(both)
	down := []string{"oci:us.example.com"}
	claims := must(h.Claim(ctx0, ClaimOptions{Max: 10, MaxForeground: 10, Down: down, Now: h.clock()}))(t)
	if len(claims) != 1 || len(claims[0].Jobs) != 1 || claims[0].Jobs[0].Destination.Registry != "ap" {
		t.Fatalf("%+v", claims)
	}
	if claims := must(h.Claim(ctx0, ClaimOptions{Max: 10, MaxForeground: 10, Down: []string{"oci:eu.example.com"}, Now: h.clock()}))(t); len(claims) != 0 {
		t.Errorf("with the source down: %+v", claims)
	}
})

var _ = holds("a paused route's jobs stay unless another route wants them", func(t *testing.T, h *harness) {
	shared := h.pushed("v2", "x")
	shared.Wants = append(shared.Wants, replicator.Want{Route: "all", Destination: "us"})
	h.accept(h.pushed("v1", "x"), shared)
	h.ok(h.Pause(ctx0, "prod", "cli root@host"))
	h.ok(h.Pause(ctx0, "prod", "cli root@host"))
	if diff := cmp.Diff(map[string]bool{"prod": true}, must(h.Paused(ctx0))(t)); diff != "" {
		t.Error(diff)
	}
	if c := h.claim(); c.Jobs[0].Tag != "v2" {
		t.Errorf("%+v", c)
	}
	if got := h.accept(h.pushed("v3", "x")); got.Made != 1 {
		t.Errorf("a pause must not refuse pushes: %+v", got)
	}
	h.ok(h.Resume(ctx0, "prod", "cli root@host"))
	if got := h.claims(10); len(got) != 2 {
		t.Errorf("%d claims after the pause", len(got))
	}
	var actions []string
	for _, e := range must(h.Audits(ctx0, 10))(t) {
		actions = append(actions, e.Action+" "+e.Target+" by "+e.Actor)
	}
	want := []string{"route.resume prod by cli root@host", "route.pause prod by cli root@host", "route.pause prod by cli root@host"}
	if diff := cmp.Diff(want, actions); diff != "" {
		t.Error(diff)
	}
})

// twoWay is the shared row of two registries that feed each other.
func (h *harness) twoWay(a, b, tag, content string) replicator.Job {
	return replicator.Job{Source: at(a, "team/app"), Destination: at(b, "team/app"), Tag: tag, Digest: dgst(content),
		Flow: replicator.TwoWay, PushedAt: h.clock(),
		Wants: []replicator.Want{{Route: a + b, Destination: b}, {Route: b + a, Destination: a}}}
}

var _ = holds("a route that joins a pair's running job has it looked at once more", func(t *testing.T, h *harness) {
	there := h.twoWay("a", "b", "v1", "x")
	there.Lane, there.Wants = replicator.LaneSweep, there.Wants[:1]
	back := h.twoWay("a", "b", "v1", "x")
	back.Lane, back.Wants = replicator.LaneSweep, back.Wants[1:]
	h.accept(there)
	c := h.claim()
	if got := c.Jobs[0].Wants; len(got) != 1 || got[0].Destination != "b" {
		t.Fatalf("%+v", got)
	}
	h.accept(back, there, back) // the first joins, the others tell nothing new
	h.finish(c, nil)
	c = h.claim()
	if len(c.Jobs) != 1 || len(c.Jobs[0].Wants) != 2 {
		t.Fatalf("what joined is forgotten: %+v", c)
	}
	h.accept(back, there)
	h.finish(c, nil)
	if more := h.claims(1); len(more) != 0 {
		t.Errorf("claimed once more: %+v", more)
	}
})

var _ = holds("a tag is moved by one claim at a time, at either end of a pair", func(t *testing.T, h *harness) {
	h.accept(h.twoWay("a", "b", "v1", "x"), h.twoWay("a", "c", "v1", "x"), h.twoWay("b", "c", "v1", "x"))
	for range 3 {
		c := h.claim()
		if len(c.Jobs) != 1 {
			t.Fatalf("one claim moves a tag twice: %+v", c)
		}
		h.finish(c, nil)
	}
	if claims := h.claims(10); len(claims) != 0 {
		t.Errorf("left: %+v", claims)
	}
})

var _ = holds("an outcome under a lost lease writes nothing", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "one"))
	c := h.claim()
	h.restart()
	job := h.live("v1")
	if job.State != replicator.Waiting || job.Attempts != 0 || !job.NextAttempt.Equal(h.clock()) {
		t.Errorf("a running job was not handed back: %+v", job)
	}
	finish := []Outcome{{ID: job.ID, Generation: 1, State: replicator.Done, Records: []replicator.Record{h.record("v1", "one")}}}
	check := func() {
		t.Helper()
		if err := h.Finish(ctx0, c, finish); !errors.Is(err, ErrFenced) {
			t.Errorf("finish: %v", err)
		}
		if err := h.Release(ctx0, c); !errors.Is(err, ErrFenced) {
			t.Errorf("release: %v", err)
		}
		if _, err := h.Begin(ctx0, c, job.ID, replicator.Intent{At: "a", New: dgst("x")}); !errors.Is(err, ErrFenced) {
			t.Errorf("begin: %v", err)
		}
	}
	check()
	again := h.claim()
	if again.Epoch <= c.Epoch && again.Replica == c.Replica {
		t.Errorf("epoch %d after %d", again.Epoch, c.Epoch)
	}
	check()
	if _, found, _ := h.Record(ctx0, "oci:us.example.com", "team/app", "v1"); found {
		t.Error("a fenced outcome left a record")
	}
	h.finish(again, nil)
	if err := h.Finish(ctx0, again, finish); !errors.Is(err, ErrFenced) {
		t.Errorf("finishing twice: %v", err)
	}
})

var _ = holds("jobs pushed to while their process died wait with the new push", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "one"))
	h.claim()
	h.pass(time.Second)
	h.accept(h.pushed("v1", "two"))
	h.restart()
	if job := h.live("v1"); job.State != replicator.Waiting || job.Digest != dgst("two") || !job.BehindSince.Equal(start) {
		t.Errorf("%+v", job)
	}
	if got := h.endedWith("v1", replicator.Superseded); len(got) != 1 || got[0] != dgst("one") {
		t.Errorf("superseded: %v", got)
	}
})

var _ = holds("a released claim is due at once and not counted", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "one"))
	c := h.claim()
	h.ok(h.Release(ctx0, c))
	job := h.live("v1")
	if job.State != replicator.Waiting || job.Attempts != 0 || !job.FirstAttempt.IsZero() {
		t.Errorf("%+v", job)
	}
	h.claim()
})

var _ = holds("a wait that is no attempt counts none", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "one"))
	h.finish(h.claim(), func(o *Outcome) {
		o.State, o.Counted, o.NextAttempt = replicator.Waiting, false, h.clock().Add(time.Minute)
		o.Error = &replicator.JobError{Kind: "unreachable", Message: "down", Hint: "wait"}
	})
	job := h.live("v1")
	if job.Attempts != 0 || !job.FirstAttempt.IsZero() || job.Error.Hint != "wait" {
		t.Errorf("%+v", job)
	}
	if claims := h.claims(1); len(claims) != 0 {
		t.Errorf("claimed before its time: %+v", claims)
	}
	if next := must(h.NextDue(ctx0))(t); !next.Equal(job.NextAttempt) {
		t.Errorf("next due %s", next)
	}
	h.ok(h.Wake(ctx0, "oci:ap.example.com"))
	if claims := h.claims(1); len(claims) != 0 {
		t.Errorf("another registry woke it: %+v", claims)
	}
	h.ok(h.Wake(ctx0, "oci:us.example.com"))
	h.claim()
	if next := must(h.NextDue(ctx0))(t); !next.IsZero() {
		t.Errorf("next due %s, nothing waits", next)
	}
})

var _ = holds("waking reaches more jobs than fit one commit", func(t *testing.T, h *harness) {
	const n = 520
	var jobs []replicator.Job
	for i := range n {
		jobs = append(jobs, h.pushed(fmt.Sprintf("v%d", i), "x"))
	}
	h.accept(jobs...)
	var wg sync.WaitGroup
	for _, c := range h.claims(n) {
		wg.Go(func() {
			o := Outcome{ID: c.Jobs[0].ID, Generation: 1, State: replicator.Waiting, NextAttempt: h.clock().Add(time.Hour)}
			if err := h.Finish(ctx0, c, []Outcome{o}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	h.ok(h.Wake(ctx0, "oci:eu.example.com"))
	if got := len(h.claims(n)); got != n {
		t.Errorf("%d of %d are due", got, n)
	}
})

var _ = holds("next due looks past what the last claim was offered", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "one"))
	if next := must(h.NextDue(ctx0))(t); !next.Equal(start) {
		t.Errorf("next due %s", next)
	}
	must(h.Claim(ctx0, ClaimOptions{Max: 1, MaxForeground: 1, Down: []string{"oci:us.example.com"}, Now: h.clock()}))(t)
	if next := must(h.NextDue(ctx0))(t); !next.IsZero() {
		t.Errorf("what cannot be claimed now is due at %s: a loop", next)
	}
})

var _ = holds("a heartbeat moves the lease's end", func(t *testing.T, h *harness) {
	if got := h.LeaseUntil(); !got.After(h.clock()) {
		t.Errorf("lease until %s", got)
	}
	h.pass(time.Minute)
	h.ok(h.Heartbeat(ctx0))
	if got := h.LeaseUntil(); !got.After(h.clock()) || got.After(h.clock().Add(15*time.Second)) {
		t.Errorf("lease until %s, now %s", got, h.clock())
	}
	h.ok(h.Healthy(ctx0))
})

var _ = holds("bases and intents outlive their rows", func(t *testing.T, h *harness) {
	h.accept(h.twoWay("a", "b", "v1", "x"))
	c := h.claim()
	job := c.Jobs[0]
	if got := must(h.Base(ctx0, job))(t); got.Digest != "" || got.Intents != nil {
		t.Errorf("%+v", got)
	}
	intents := []replicator.Intent{{At: "oci:b.example.com", New: dgst("x")}, {At: "oci:a.example.com", Old: dgst("x"), New: dgst("y")}}
	for n, i := range append(intents, intents[0]) {
		if fresh := must(h.Begin(ctx0, c, job.ID, i))(t); fresh != (n < len(intents)) {
			t.Errorf("%d: begun for the first time: %t", n, fresh)
		}
	}
	if diff := cmp.Diff(replicator.Base{Intents: intents}, must(h.Base(ctx0, job))(t)); diff != "" {
		t.Error(diff)
	}
	refused := replicator.Intent{At: "oci:b.example.com", Old: dgst("x"), New: dgst("z")}
	h.ok(h.Withdraw(ctx0, c, job.ID, refused)) // never begun
	must(h.Begin(ctx0, c, job.ID, refused))(t)
	h.ok(h.Withdraw(ctx0, c, job.ID, refused))
	if diff := cmp.Diff(replicator.Base{Intents: intents}, must(h.Base(ctx0, job))(t)); diff != "" {
		t.Error(diff)
	}
	h.restart()
	if err := h.Withdraw(ctx0, c, job.ID, intents[0]); !errors.Is(err, ErrFenced) {
		t.Errorf("withdrawn under a claim that is lost: %v", err)
	}
	if got := must(h.Base(ctx0, job))(t); len(got.Intents) != 2 {
		t.Errorf("intents must survive: %+v", got)
	}
	h.finish(h.claim(), func(o *Outcome) { o.Base = dgst("x") })
	if diff := cmp.Diff(replicator.Base{Digest: dgst("x")}, must(h.Base(ctx0, job))(t)); diff != "" {
		t.Error(diff)
	}
	if _, err := h.Begin(ctx0, c, job.ID, intents[0]); !errors.Is(err, ErrFenced) {
		t.Errorf("an intent of an ended job: %v", err)
	}
})

var _ = holds("a person settles a conflict by its base", func(t *testing.T, h *harness) {
	h.accept(h.twoWay("a", "b", "v1", "x"))
	c := h.claim()
	must(h.Begin(ctx0, c, c.Jobs[0].ID, replicator.Intent{At: "oci:b.example.com", New: dgst("x")}))(t)
	h.ok(h.SetBase(ctx0, c.Jobs[0], dgst("y"), "cli root@host"))
	if diff := cmp.Diff(replicator.Base{Digest: dgst("y")}, must(h.Base(ctx0, c.Jobs[0]))(t)); diff != "" {
		t.Error(diff)
	}
	if e := must(h.Audits(ctx0, 1))(t)[0]; e.Action != "tag.resolve" || e.Detail != dgst("y").String() {
		t.Errorf("%+v", e)
	}
})

var _ = holds("what was put off for longer than any wait is pulled in", func(t *testing.T, h *harness) {
	h.accept(h.pushed("soon", "a"), h.pushed("far", "b"))
	for _, c := range h.claims(10) {
		h.finish(c, func(o *Outcome) {
			o.State, o.NextAttempt = replicator.Waiting, h.clock().Add(10*time.Minute)
			if c.Jobs[0].Tag == "far" {
				o.NextAttempt = h.clock().Add(24 * time.Hour)
			}
			o.Error = &replicator.JobError{Kind: "interrupted", Message: "no"}
		})
	}
	limit := h.clock().Add(time.Hour)
	if n := must(h.PullIn(ctx0, limit))(t); n != 1 {
		t.Errorf("%d were pulled in", n)
	}
	if n := must(h.PullIn(ctx0, limit))(t); n != 0 {
		t.Errorf("%d were pulled in again", n)
	}
	if job := h.live("far"); !job.NextAttempt.Equal(h.clock()) || job.Attempts != 1 {
		t.Errorf("%+v", job)
	}
	if job := h.live("soon"); !job.NextAttempt.Equal(h.clock().Add(10 * time.Minute)) {
		t.Errorf("%+v", job)
	}
})
