package journal

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/replicator"
)

var _ = holds("retry makes jobs due at once and forgets refusals", func(t *testing.T, h *harness) {
	h.accept(h.pushed("failed", "a"), h.pushed("refused", "b"), h.pushed("held", "c"), h.pushed("waiting", "d"), h.pushed("running", "e"))
	for _, c := range h.claims(10) {
		if c.Jobs[0].Tag == "running" {
			continue
		}
		h.finish(c, func(o *Outcome) {
			o.State, o.NextAttempt = replicator.JobState(c.Jobs[0].Tag), h.clock().Add(time.Hour)
			o.Error = &replicator.JobError{Kind: "refused", Message: "no"}
		})
	}
	for _, id := range []string{"nonsense", "0000000000000"} {
		if _, err := h.Retry(ctx0, JobFilter{IDs: []string{h.live("failed").ID, id}}, "cli"); !errors.Is(err, ErrUnknown) {
			t.Errorf("retry of %q: %v", id, err)
		}
	}
	if job := h.live("failed"); job.State != replicator.Failed {
		t.Errorf("an unknown id beside it, and yet: %+v", job)
	}
	h.pass(time.Minute)
	if n := must(h.Retry(ctx0, JobFilter{Route: "prod"}, "cli root@host"))(t); n != 4 {
		t.Errorf("retried %d", n)
	}
	for _, tag := range []string{"failed", "refused", "held", "waiting"} {
		job := h.live(tag)
		if job.State != replicator.Waiting || job.Attempts != 0 || !job.FirstAttempt.IsZero() || !job.NextAttempt.Equal(h.clock()) || job.HeldDigest != "" {
			t.Errorf("%s: %+v", tag, job)
		}
	}
	if job := h.live("running"); job.State != replicator.Running {
		t.Errorf("%+v", job)
	}
	if got := h.accept(h.pushed("refused", "b")); got.Refused != 0 {
		t.Errorf("the refusal is still remembered: %+v", got)
	}
	entry := must(h.Audits(ctx0, 1))(t)[0]
	if entry.Action != "job.retry" || entry.Actor != "cli root@host" || !strings.Contains(entry.Target, `route="prod"`) || !entry.At.Equal(h.clock()) {
		t.Errorf("%+v", entry)
	}
})

var _ = holds("what stalled is looked at again, and nothing of it forgotten", func(t *testing.T, h *harness) {
	h.accept(h.pushed("failed", "a"), h.pushed("refused", "b"), h.pushed("held", "c"), h.pushed("waiting", "d"))
	var ids []string
	before := map[string]replicator.Job{}
	for _, c := range h.claims(10) {
		h.finish(c, func(o *Outcome) {
			o.State, o.NextAttempt = replicator.JobState(c.Jobs[0].Tag), h.clock().Add(time.Hour)
			o.Error = &replicator.JobError{Kind: "refused", Message: "no"}
		})
		before[c.Jobs[0].Tag] = h.live(c.Jobs[0].Tag)
		ids = append(ids, c.Jobs[0].ID)
	}
	h.pass(time.Minute)
	if err := h.LookAgain(ctx0, ids); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"failed", "refused"} {
		want := before[tag]
		want.State, want.NextAttempt, want.UpdatedAt, want.Generation = replicator.Waiting, h.clock(), h.clock(), want.Generation+1
		if diff := cmp.Diff(want, h.live(tag)); diff != "" {
			t.Error(diff)
		}
	}
	for _, tag := range []string{"held", "waiting"} {
		if diff := cmp.Diff(before[tag], h.live(tag)); diff != "" {
			t.Error(diff)
		}
	}
	if err := h.LookAgain(ctx0, []string{"nonsense"}); !errors.Is(err, ErrUnknown) {
		t.Errorf("nonsense: %v", err)
	}
	if err := h.LookAgain(ctx0, []string{before["failed"].ID[:len(before["failed"].ID)-1] + "z"}); err != nil {
		t.Errorf("a job that is no more: %v", err)
	}
	if got := h.accept(h.pushed("refused", "b")); got.Refused != 1 {
		t.Errorf("the refusal is forgotten: %+v", got)
	}
})

var _ = holds("retry and cancel reach all jobs of a filter", func(t *testing.T, h *harness) {
	const n = 1010
	var jobs []replicator.Job
	for i := range n {
		jobs = append(jobs, h.pushed(fmt.Sprintf("v%d", i), fmt.Sprint(i)))
	}
	h.accept(append(jobs, h.to("ap", "v1", "x"))...)
	if got := must(h.Cancel(ctx0, JobFilter{Destination: "us", Limit: 3}, "api"))(t); got != n {
		t.Errorf("canceled %d", got)
	}
	if got := must(h.Retry(ctx0, JobFilter{States: []replicator.JobState{replicator.Held}}, "api"))(t); got != n {
		t.Errorf("retried %d", got)
	}
	if got := must(h.Retry(ctx0, JobFilter{States: []replicator.JobState{replicator.Done}}, "api"))(t); got != 0 {
		t.Errorf("retried %d done jobs", got)
	}
	if entries := must(h.Audits(ctx0, 0))(t); len(entries) != 2 {
		t.Errorf("%d audit entries, one for each order is wanted", len(entries))
	}
})

var _ = holds("a removed route's jobs are held and come back with it", func(t *testing.T, h *harness) {
	registries := append(eu2us, Registry{Name: "ap", Identity: "oci:ap.example.com"})
	both := []Route{{Name: "prod", From: "eu", Destinations: []string{"us", "ap"}}, {Name: "all", From: "eu", Destinations: []string{"us"}}}
	must(h.Configure(ctx0, registries, both, "f1", "config"))(t)
	shared := h.pushed("shared", "x")
	shared.Wants = append(shared.Wants, replicator.Want{Route: "all", Destination: "us"})
	h.accept(h.pushed("v1", "x"), h.to("ap", "v2", "x"), shared, h.pushed("canceled", "x"), h.pushed("running", "x"))
	must(h.Cancel(ctx0, JobFilter{Tag: "canceled"}, "cli"))(t)
	var running Claim
	for _, c := range h.claims(10) {
		if c.Jobs[0].Tag == "running" {
			running = c
		} else {
			h.ok(h.Release(ctx0, c))
		}
	}
	only := []Route{{Name: "all", From: "eu", Destinations: []string{"us"}}, {Name: "prod", From: "eu", Destinations: []string{"ap"}}}
	must(h.Configure(ctx0, registries, only, "f1", "config"))(t)
	h.finish(running, func(o *Outcome) { o.State, o.NextAttempt = replicator.Waiting, h.clock() })
	states := func() map[string]replicator.JobState {
		m := map[string]replicator.JobState{}
		for _, tag := range []string{"v1", "v2", "shared", "canceled", "running"} {
			m[tag] = h.live(tag).State
		}
		return m
	}
	want := map[string]replicator.JobState{"v1": replicator.Held, "v2": replicator.Waiting, "shared": replicator.Waiting,
		"canceled": replicator.Held, "running": replicator.Held}
	if diff := cmp.Diff(want, states()); diff != "" {
		t.Error(diff)
	}
	h.restart()
	must(h.Configure(ctx0, registries, both, "f1", "config"))(t)
	want = map[string]replicator.JobState{"v1": replicator.Waiting, "v2": replicator.Waiting, "shared": replicator.Waiting,
		"canceled": replicator.Held, "running": replicator.Waiting}
	if diff := cmp.Diff(want, states()); diff != "" {
		t.Error(diff)
	}
})

var _ = holds("a name that stands for another registry is a finding and starts unproven", func(t *testing.T, h *harness) {
	if found := must(h.Configure(ctx0, eu2us, prodRoute, "f1", "config"))(t); len(found) != 0 {
		t.Errorf("the first load: %+v", found)
	}
	h.ok(h.SaveRecords(ctx0, []replicator.Record{h.record("v1", "one")}))
	h.accept(h.pushed("v2", "two"))
	moved := []Registry{eu2us[0], {Name: "us", Identity: "oci:new.example.com"}}
	found := must(h.Configure(ctx0, moved, prodRoute, "f1", "config"))(t)
	if len(found) != 1 || found[0].Kind != replicator.FindingIdentityChanged || found[0].Registry != "us" {
		t.Errorf("%+v", found)
	}
	if told, _, err := h.Findings(ctx0, FindingFilter{Kind: replicator.FindingIdentityChanged}); err != nil || len(told) != 1 {
		t.Errorf("%+v, %v", told, err)
	}
	if _, known, _ := h.Record(ctx0, "oci:new.example.com", "team/app", "v1"); known {
		t.Error("the new registry is proven already")
	}
	if job := h.live("v2"); job.State != replicator.Held {
		t.Errorf("a job for the registry that went away: %+v", job)
	}
	if found := must(h.Configure(ctx0, moved, prodRoute, "f1", "config"))(t); len(found) != 0 {
		t.Errorf("told twice: %+v", found)
	}
	renamed := []Registry{{Name: "europe", Identity: "oci:eu.example.com"}, eu2us[1]}
	must(h.Configure(ctx0, renamed, []Route{{Name: "prod", From: "europe", Destinations: []string{"us"}}}, "f1", "config"))(t)
	if job := h.live("v2"); job.Source.Registry != "europe" || job.State != replicator.Waiting {
		t.Errorf("%+v", job)
	}
})

var _ = holds("equal findings are one, told again", func(t *testing.T, h *harness) {
	f := replicator.Finding{Kind: replicator.FindingDrift, Route: "prod", Registry: "us", Repository: "team/app", Tag: "v1",
		Digest: dgst("x"), Message: "moved", Hint: "look"}
	other := f
	other.Tag = "v2"
	must(h.Accept(ctx0, Intake{Findings: []replicator.Finding{f, other}}))(t)
	h.pass(time.Minute)
	f.Message = "moved again " + strings.Repeat("é", 3000)
	h.ok(h.AddFindings(ctx0, []replicator.Finding{f}))
	list, next, err := h.Findings(ctx0, FindingFilter{})
	if err != nil || next != "" || len(list) != 2 {
		t.Fatalf("%+v %q %v", list, next, err)
	}
	got := list[0]
	if got.Tag != "v1" || got.Count != 2 || !got.FirstAt.Equal(start) || !got.At.Equal(h.clock()) || len(got.Message) > maxMessage {
		t.Errorf("%+v", got)
	}
	totals := must(h.FindingTotals(ctx0))(t)
	if totals[replicator.FindingDrift] != 3 {
		t.Errorf("totals %v", totals)
	}
	if _, err := h.Acknowledge(ctx0, []string{got.ID, "0000000000000"}, "cli"); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown finding: %v", err)
	}
	if n := must(h.Acknowledge(ctx0, []string{got.ID, got.ID}, "cli"))(t); n != 1 {
		t.Errorf("acknowledged %d", n)
	}
	h.ok(h.AddFindings(ctx0, []replicator.Finding{f}))
	yes, no := true, false
	for want, filter := range map[string]FindingFilter{
		"v1":    {Acknowledged: &yes},
		"v2":    {Acknowledged: &no},
		"v1 v2": {Kind: replicator.FindingDrift, Route: "prod", Registry: "us"},
		"":      {Route: "other"},
		" v1":   {IDs: []string{got.ID}},
	} {
		list, _, err := h.Findings(ctx0, filter)
		var tags []string
		for _, f := range list {
			tags = append(tags, f.Tag)
		}
		if err != nil || strings.Join(tags, " ") != strings.TrimSpace(want) {
			t.Errorf("%+v: %v, %v", filter, tags, err)
		}
	}
})

var _ = holds("a finding that was closed by itself opens when it is told again", func(t *testing.T, h *harness) {
	finding := func(tag string) replicator.Finding {
		return replicator.Finding{Kind: replicator.FindingMissing, Registry: "us", Repository: "team/app", Tag: tag}
	}
	h.ok(h.AddFindings(ctx0, []replicator.Finding{finding("repaired"), finding("seen"), finding("open")}))
	ids := map[string]string{}
	list, _, err := h.Findings(ctx0, FindingFilter{})
	h.ok(err)
	for _, f := range list {
		ids[f.Tag] = f.ID
	}
	open := func(want ...string) {
		t.Helper()
		for yes, n := range map[bool]int{false: len(want), true: 3 - len(want)} {
			list, _, err := h.Findings(ctx0, FindingFilter{Acknowledged: &yes})
			h.ok(err)
			var tags []string
			for _, f := range list {
				tags = append(tags, f.Tag)
				if f.Acknowledged != yes {
					t.Errorf("%+v", f)
				}
			}
			slices.Sort(tags)
			if len(tags) != n || !yes && !slices.Equal(tags, want) {
				t.Errorf("acknowledged %v: %v, want open %v", yes, tags, want)
			}
		}
	}
	must(h.Acknowledge(ctx0, []string{ids["seen"]}, "cli"))(t)
	h.ok(h.CloseFindings(ctx0, []string{ids["repaired"], ids["seen"], "zz"}, "proven again"))
	h.ok(h.CloseFindings(ctx0, []string{ids["repaired"]}, "proven again"))
	open("open")
	entries := must(h.Audits(ctx0, 10))(t)
	closed := 0
	for _, e := range entries {
		if e.Action == "finding.close" {
			closed++
			if e.Target != ids["repaired"] || e.Detail != "proven again" {
				t.Errorf("%+v", e)
			}
		}
	}
	if closed != 1 {
		t.Errorf("%d entries: %+v", closed, entries)
	}
	if n := must(h.Acknowledge(ctx0, []string{ids["repaired"]}, "cli"))(t); n != 0 {
		t.Errorf("acknowledged %d that were closed", n)
	}
	h.ok(h.AddFindings(ctx0, []replicator.Finding{finding("repaired"), finding("seen")}))
	open("open", "repaired")
})

var _ = holds("findings are pages, newest first", func(t *testing.T, h *harness) {
	for i := range 7 {
		h.ok(h.AddFindings(ctx0, []replicator.Finding{{Kind: replicator.FindingConfig, Tag: fmt.Sprint(i)}}))
		h.pass(time.Duration(i%2) * time.Second)
	}
	var got []string
	f := FindingFilter{Limit: 3}
	for {
		list, next, err := h.Findings(ctx0, f)
		h.ok(err)
		for _, found := range list {
			got = append(got, found.Tag)
		}
		if next == "" {
			break
		}
		f.After = next
	}
	if diff := cmp.Diff([]string{"6", "5", "4", "3", "2", "1", "0"}, got); diff != "" {
		t.Error(diff)
	}
	if _, _, err := h.Findings(ctx0, FindingFilter{After: "x"}); err == nil {
		t.Error("a page that begins nowhere")
	}
})

var _ = holds("acknowledging a refusal's finding holds its job", func(t *testing.T, h *harness) {
	h.accept(h.pushed("v1", "bad"))
	h.finish(h.claim(), func(o *Outcome) {
		o.State, o.Error = replicator.Refused, &replicator.JobError{Kind: "refused", Message: "no"}
		o.Findings = []replicator.Finding{{Kind: replicator.FindingRefused, Route: "prod", Registry: "us", Repository: "team/app",
			Tag: "v1", Digest: dgst("bad"), Message: "no"}}
	})
	list, _, err := h.Findings(ctx0, FindingFilter{})
	h.ok(err)
	must(h.Acknowledge(ctx0, []string{list[0].ID}, "cli root@host"))(t)
	job := h.live("v1")
	if job.State != replicator.Held || job.HeldDigest != dgst("bad") {
		t.Errorf("%+v", job)
	}
	if s := h.standing("prod", "us"); !s.BehindSince.IsZero() {
		t.Errorf("still behind: %+v", s)
	}
	if entry := must(h.Audits(ctx0, 1))(t)[0]; entry.Action != "finding.acknowledge" || entry.Target != list[0].ID {
		t.Errorf("%+v", entry)
	}
})

var _ = holds("a standing counts a job for each route that wants it", func(t *testing.T, h *harness) {
	pair := h.twoWay("a", "b", "v1", "x")
	pair.Lane = replicator.LaneBackfill
	h.accept(pair)
	h.pass(time.Minute)
	second := h.twoWay("a", "b", "v2", "x")
	h.accept(second)
	for _, w := range second.Wants {
		s := h.standing(w.Route, w.Destination)
		if s.Counts[replicator.Waiting] != 2 || !s.BehindSince.Equal(start) || s.Backfill != 1 || s.Lanes[replicator.LaneWebhook] != 1 {
			t.Errorf("%+v", s)
		}
		list, next, err := h.Behind(ctx0, w.Route, w.Destination, "", 1)
		if err != nil || len(list) != 1 || next == "" || list[0].Tag != "v1" || list[0].Repository != "team/app" {
			t.Fatalf("%+v %q %v", list, next, err)
		}
		list, next, err = h.Behind(ctx0, w.Route, w.Destination, next, 1)
		if err != nil || len(list) != 1 || next != "" || list[0].Tag != "v2" {
			t.Errorf("%+v %q %v", list, next, err)
		}
	}
	counts := must(h.JobCounts(ctx0))(t)
	if counts[replicator.Waiting][replicator.LaneBackfill] != 1 || counts[replicator.Waiting][replicator.LaneWebhook] != 1 {
		t.Errorf("%v", counts)
	}
})

var _ = holds("behind tells what is wanted and what is proven instead", func(t *testing.T, h *harness) {
	h.ok(h.SaveRecords(ctx0, []replicator.Record{h.record("v1", "old")}))
	h.accept(h.pushed("v1", "new"), h.pushed("v2", "first"))
	h.finish(h.claims(1)[0], func(o *Outcome) {
		o.State, o.Error = replicator.Failed, &replicator.JobError{Kind: "denied", Message: "no"}
	})
	list, _, err := h.Behind(ctx0, "prod", "us", "", 0)
	h.ok(err)
	var got []string
	for _, b := range list {
		got = append(got, fmt.Sprintf("%s %t %t %s", b.Tag, b.Wanted == dgst("new"), b.Proven == dgst("old"), b.State))
	}
	if diff := cmp.Diff([]string{"v1 true true failed", "v2 false false waiting"}, got); diff != "" {
		t.Error(diff)
	}
	if list[0].Error.Kind != "denied" || !list[0].PushedAt.Equal(start) {
		t.Errorf("%+v", list[0])
	}
})

var _ = holds("jobs are found by any filter, in pages, newest first", func(t *testing.T, h *harness) {
	for i := range 12 {
		job := h.pushed(fmt.Sprintf("v%d", i), "x")
		job.Lane = replicator.Lane(i % 4)
		if i%2 == 0 {
			job = h.to("ap", fmt.Sprintf("v%d", i), "x")
			job.Destination.Repository = "dr/app"
			job.Wants[0].Route = "dr"
		}
		h.accept(job)
	}
	for i, c := range h.claims(6) {
		h.finish(c, func(o *Outcome) {
			switch {
			case i < 2:
			default:
				o.State, o.Error = replicator.Failed, &replicator.JobError{Kind: []string{"denied", "timeout"}[i%2], Message: "m"}
			}
		})
	}
	all, next, err := h.Jobs(ctx0, JobFilter{})
	if err != nil || len(all) != 12 || next != "" {
		t.Fatalf("%d %q %v", len(all), next, err)
	}
	backfill := replicator.LaneBackfill
	for name, c := range map[string]struct {
		filter JobFilter
		fits   func(replicator.Job) bool
	}{
		"state":       {JobFilter{States: []replicator.JobState{replicator.Failed}}, func(j replicator.Job) bool { return j.State == replicator.Failed }},
		"two states":  {JobFilter{States: []replicator.JobState{replicator.Done, replicator.Waiting}}, func(j replicator.Job) bool { return j.State != replicator.Failed }},
		"route":       {JobFilter{Route: "dr"}, func(j replicator.Job) bool { return j.Wants[0].Route == "dr" }},
		"destination": {JobFilter{Destination: "us"}, func(j replicator.Job) bool { return j.Destination.Registry == "us" }},
		"no route":    {JobFilter{Route: "none"}, func(replicator.Job) bool { return false }},
		"repository":  {JobFilter{Repository: "dr/app"}, func(j replicator.Job) bool { return j.Destination.Repository == "dr/app" }},
		"source":      {JobFilter{Repository: "team/app"}, func(replicator.Job) bool { return true }},
		"tag":         {JobFilter{Tag: "v7"}, func(j replicator.Job) bool { return j.Tag == "v7" }},
		"lane":        {JobFilter{Lane: &backfill}, func(j replicator.Job) bool { return j.Lane == replicator.LaneBackfill }},
		"error":       {JobFilter{ErrorKind: "denied"}, func(j replicator.Job) bool { return j.Error != nil && j.Error.Kind == "denied" }},
		"several": {JobFilter{ErrorKind: "timeout", Route: "prod", States: []replicator.JobState{replicator.Failed}}, func(j replicator.Job) bool {
			return j.Error != nil && j.Error.Kind == "timeout" && j.Wants[0].Route == "prod"
		}},
		"repository of a state": {JobFilter{Repository: "dr/app", States: []replicator.JobState{replicator.Waiting}}, func(j replicator.Job) bool {
			return j.Destination.Repository == "dr/app" && j.State == replicator.Waiting
		}},
		"ids": {JobFilter{IDs: []string{all[3].ID, all[1].ID}}, func(j replicator.Job) bool { return j.ID == all[3].ID || j.ID == all[1].ID }},
		"ids of a state": {JobFilter{IDs: []string{all[0].ID, all[11].ID}, States: []replicator.JobState{all[0].State}},
			func(j replicator.Job) bool {
				return j.ID == all[0].ID || j.ID == all[11].ID && all[11].State == all[0].State
			}},
	} {
		var want, got []string
		for _, job := range all {
			if c.fits(job) {
				want = append(want, job.ID)
			}
		}
		f := c.filter
		f.Limit = 2
		for page := 0; page == 0 || f.After != ""; page++ {
			list, next, err := h.Jobs(ctx0, f)
			h.ok(err)
			if len(list) > 2 {
				t.Errorf("%s: a page of %d", name, len(list))
			}
			for _, job := range list {
				got = append(got, job.ID)
			}
			f.After = next
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	job := must(h.Job(ctx0, all[0].ID))(t)
	if diff := cmp.Diff(all[0], job); diff != "" {
		t.Error(diff)
	}
	for _, id := range []string{"", "x", "zzzzzzzzzzzzz", "0000000000001"} {
		if _, err := h.Job(ctx0, id); !errors.Is(err, ErrUnknown) {
			t.Errorf("job %q: %v", id, err)
		}
	}
	if _, _, err := h.Jobs(ctx0, JobFilter{After: "x"}); err == nil {
		t.Error("a page that begins nowhere")
	}
	if _, _, err := h.Jobs(ctx0, JobFilter{States: []replicator.JobState{"odd"}}); err == nil {
		t.Error("a state that is none")
	}
})

var _ = holds("sweeps' states and what is due are kept", func(t *testing.T, h *harness) {
	empty := replicator.SweepState{Route: "prod", Destination: "us"}
	if diff := cmp.Diff(empty, must(h.SweepState(ctx0, "prod", "us"))(t)); diff != "" {
		t.Error(diff)
	}
	s := replicator.SweepState{Route: "prod", Destination: "us", Cursor: "team/m", StartedAt: start, CompletedAt: start.Add(1000),
		CompleteStart: start.Add(2000), FailedAt: start.Add(3000), Error: "unlistable", Requests: 7, Tags: 9, Seeded: true}
	h.ok(h.SaveSweepState(ctx0, s))
	s.Tags = 10
	h.ok(h.SaveSweepState(ctx0, s))
	if diff := cmp.Diff(s, must(h.SweepState(ctx0, "prod", "us"))(t)); diff != "" {
		t.Error(diff)
	}
	for range 2 {
		must(h.Accept(ctx0, Intake{SweepDue: []string{"us", "eu"}}))(t)
	}
	h.restart()
	if got := must(h.SweepsDue(ctx0))(t); !cmp.Equal(got, []string{"eu", "us"}) {
		t.Errorf("due %v", got)
	}
	h.ok(h.ClearSweepDue(ctx0, "eu"))
	if got := must(h.SweepsDue(ctx0))(t); !cmp.Equal(got, []string{"us"}) {
		t.Errorf("due %v", got)
	}
})

var _ = holds("what ended is pruned by age, what is desired never", func(t *testing.T, h *harness) {
	h.accept(h.pushed("done", "x"), h.pushed("waiting", "x"), h.pushed("waiting", "y"))
	for _, c := range h.claims(10) {
		if c.Jobs[0].Tag == "done" {
			h.finish(c, nil)
		} else {
			h.ok(h.Release(ctx0, c))
		}
	}
	h.ok(h.AddFindings(ctx0, []replicator.Finding{{Kind: replicator.FindingConfig, Message: "old"}}))
	h.ok(h.Audit(ctx0, AuditEntry{Actor: "cli", Action: "old"}))
	h.pass(29 * 24 * time.Hour)
	h.accept(h.pushed("late", "x"))
	for _, c := range h.claims(10) {
		if c.Jobs[0].Tag == "late" {
			h.finish(c, nil)
		}
	}
	month := 30 * 24 * time.Hour
	h.ok(h.Prune(ctx0, h.clock(), month))
	if jobs, _, err := h.Jobs(ctx0, JobFilter{}); err != nil || len(jobs) != 4 {
		t.Errorf("%d jobs before their time, %v", len(jobs), err)
	}
	h.pass(2 * 24 * time.Hour)
	h.ok(h.Prune(ctx0, h.clock(), month))
	var tags []string
	jobs, _, err := h.Jobs(ctx0, JobFilter{})
	h.ok(err)
	for _, job := range jobs {
		tags = append(tags, job.Tag)
	}
	if diff := cmp.Diff([]string{"late", "waiting"}, tags); diff != "" {
		t.Error(diff)
	}
	if list, _, err := h.Findings(ctx0, FindingFilter{}); err != nil || len(list) != 0 {
		t.Errorf("%d findings, %v", len(list), err)
	}
	if totals := must(h.FindingTotals(ctx0))(t); totals[replicator.FindingConfig] != 1 {
		t.Errorf("a counter must not fall: %v", totals)
	}
	if list := must(h.Audits(ctx0, 0))(t); len(list) != 0 {
		t.Errorf("audit entries left: %+v", list)
	}
})

var _ = holds("findings are bounded, the oldest go first", func(t *testing.T, h *harness) {
	var list []replicator.Finding
	for i := range findingsTrim + 5 {
		list = append(list, replicator.Finding{Kind: replicator.FindingConfig, Tag: fmt.Sprint(i), At: start.Add(time.Duration(i))})
	}
	h.ok(h.AddFindings(ctx0, list))
	h.ok(h.write(ctx0, true, func(b *batch) error {
		b.newFindings = maxFindings - b.j.findingCount // as if there were that many
		return nil
	}))
	h.pass(time.Minute)
	h.ok(h.AddFindings(ctx0, []replicator.Finding{{Kind: replicator.FindingConfig, Tag: "last"}, {Kind: replicator.FindingConfig, Tag: "more"}}))
	left, _, err := h.Findings(ctx0, FindingFilter{})
	if err != nil || len(left) != 7 || left[0].Tag != "more" && left[0].Tag != "last" {
		t.Errorf("%d findings left, %v", len(left), err)
	}
})
