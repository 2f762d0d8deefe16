package journal

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/twinport/twinport/replicator"
)

var _ = holds("a listing is as of one commit", func(t *testing.T, h *harness) {
	const tags, rounds = 6, 8
	jobs := make([]replicator.Job, tags)
	for i := range jobs {
		jobs[i] = h.pushed(fmt.Sprint("v", i), fmt.Sprint(i))
	}
	h.accept(jobs...)
	var whole, narrow []func() error
	lists := func(f JobFilter, check func([]replicator.Job) error) func() error {
		f.Limit = maxPage
		return func() error {
			list, _, err := h.Jobs(ctx0, f)
			if err == nil {
				err = check(list)
			}
			if err != nil {
				return fmt.Errorf("%+v: %w", f, err)
			}
			return nil
		}
	}
	for _, f := range []JobFilter{{Route: "prod"}, {Repository: "team/app"}, {Destination: "us", States: replicator.JobStates}} {
		whole = append(whole, lists(f, complete(tags)))
	}
	for _, state := range []replicator.JobState{replicator.Waiting, replicator.Running, replicator.Failed} {
		narrow = append(narrow, lists(JobFilter{States: []replicator.JobState{state}}, allIn(state)),
			lists(JobFilter{Tag: "v1", States: []replicator.JobState{state}}, allIn(state)))
	}
	whole = append(whole, func() error {
		list, _, err := h.Behind(ctx0, "prod", "us", "", 0)
		for _, b := range list {
			if b.Proven == b.Wanted {
				return fmt.Errorf("%s of %s is behind, and proven", b.Wanted, b.Tag)
			}
		}
		return err
	}, func() error {
		list, err := h.Standings(ctx0)
		for _, s := range list {
			unproven := s.Counts[replicator.Waiting] + s.Counts[replicator.Running] + s.Counts[replicator.Failed]
			if s.BehindSince.IsZero() != (unproven == 0) {
				return fmt.Errorf("%d jobs are not proven, behind since %s", unproven, s.BehindSince)
			}
		}
		return err
	})
	stop := besides(t, whole, narrow)
	defer stop()
	for round := range rounds {
		for _, c := range h.claims(tags) {
			h.ok(h.Release(ctx0, c))
		}
		for i, c := range h.claims(tags) {
			h.finish(c, func(o *Outcome) {
				if o.State = replicator.Failed; (round+i)%2 == 0 {
					o.State, o.Digest = replicator.Done, c.Jobs[0].Digest
					o.Records = []replicator.Record{h.record(c.Jobs[0].Tag, "")}
					o.Records[0].Digest = o.Digest
				}
			})
		}
		for i := range jobs {
			jobs[i].Digest = dgst(fmt.Sprint(round, i))
		}
		h.accept(jobs...)
	}
})

var _ = holds("cancel misses no job that moves", func(t *testing.T, h *harness) {
	const tags, rounds = 6, 8
	stop := besides(t, []func() error{func() error {
		claims, err := h.Claim(ctx0, ClaimOptions{Max: tags, MaxForeground: tags, MaxBackground: tags, Now: h.clock()})
		for _, c := range claims {
			err = errors.Join(err, h.Release(ctx0, c))
		}
		return err
	}})
	defer stop()
	for round := range rounds {
		var jobs []replicator.Job
		for i := range tags {
			jobs = append(jobs, h.pushed(fmt.Sprintf("v%d-%d", round, i), "one"))
		}
		h.accept(jobs...)
		if n := must(h.Cancel(ctx0, JobFilter{Route: "prod"}, "cli"))(t); n != tags {
			t.Errorf("round %d: canceled %d of %d", round, n, tags)
		}
		for i := range tags { // those that ran are held when they end
			for job := h.live(jobs[i].Tag); job.State != replicator.Held; job = h.live(job.Tag) {
				if job.HeldDigest == "" {
					t.Fatalf("not canceled: %+v", job)
				}
			}
		}
	}
})

var _ = holds("a search without an index takes as many snapshots as it needs", func(t *testing.T, h *harness) {
	h.pace = pace{rows: 2, age: 0}
	var jobs []replicator.Job
	var want []string
	for i := range 17 {
		job := h.pushed([]string{"v1", "v2", "v3"}[i%3], fmt.Sprint(i))
		job.Destination.Repository = fmt.Sprint("app-", i)
		if jobs = append(jobs, job); job.Tag == "v1" {
			want = append([]string{job.Destination.Repository}, want...)
		}
	}
	h.accept(jobs...)
	for limit := 1; limit <= len(want)+1; limit++ {
		var got []string
		f := JobFilter{Tag: "v1", Limit: limit}
		for more := true; more; more = f.After != "" {
			page, next, err := h.Jobs(ctx0, f)
			h.ok(err)
			if len(page) > limit || next != "" && len(page) < limit {
				t.Errorf("a page of %d, limit %d, next %q", len(page), limit, next)
			}
			for _, job := range page {
				got = append(got, job.Destination.Repository)
			}
			f.After = next
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v, want %v", limit, got, want)
		}
	}
	if n := must(h.Cancel(ctx0, JobFilter{Tag: "v1"}, "cli"))(t); n != len(want) {
		t.Errorf("canceled %d, want %d", n, len(want))
	}
	if list := must(first(h.Jobs(ctx0, JobFilter{Tag: "no such tag"})))(t); len(list) != 0 {
		t.Errorf("%+v", list)
	}
})

// besides runs lists of checks side by side, again and again until it is
// stopped; then all of them have run at least once.
func besides(t *testing.T, lists ...[]func() error) (stop func()) {
	stopped := make(chan struct{})
	var running sync.WaitGroup
	for _, checks := range lists {
		running.Go(func() {
			for more := true; more; {
				select {
				case <-stopped:
					more = false
				default:
				}
				for _, check := range checks {
					if err := check(); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	return func() {
		close(stopped)
		running.Wait()
	}
}

// complete gives a check of listings of all states, one after the other: every
// tag is there, nothing is listed twice, and what was listed once stays.
func complete(tags int) func([]replicator.Job) error {
	before := map[string]bool{}
	return func(list []replicator.Job) error {
		listed, named := map[string]bool{}, map[string]bool{}
		for _, job := range list {
			if listed[job.ID] {
				return fmt.Errorf("job %s is listed twice", job.ID)
			}
			listed[job.ID], named[job.Tag] = true, true
		}
		for id := range before {
			if !listed[id] {
				return fmt.Errorf("job %s is not listed", id)
			}
		}
		before = listed
		if len(named) != tags {
			return fmt.Errorf("jobs of %d tags, want %d", len(named), tags)
		}
		return nil
	}
}

func allIn(state replicator.JobState) func([]replicator.Job) error {
	return func(list []replicator.Job) error {
		if i := slices.IndexFunc(list, func(job replicator.Job) bool { return job.State != state }); i >= 0 {
			return fmt.Errorf("job %s is %s", list[i].ID, list[i].State)
		}
		return nil
	}
}
