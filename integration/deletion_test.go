package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinport/twinport/integration/harness"
)

// carrying is a route that carries deletions over after a short grace.
func carrying(grace, more string) []string {
	lines := []string{"sweep: never", fmt.Sprintf(`deletes: {mirror: {grace: %s, atMost: 50%%}}`, grace)}
	if more != "" {
		lines = append(lines, more)
	}
	return lines
}

type carried struct {
	Copied, Moved, Deleted, Refused, Failed int
	Errors                                  []string
	Findings                                []harness.Finding
}

// sync runs one to its end and checks its exit code.
func (w *world) sync(t *testing.T, code int, args ...string) carried {
	t.Helper()
	var out carried
	r := w.Command(append([]string{"sync", "--output", "json"}, args...)...)
	decode(t, r, &out)
	if r.Code != code {
		t.Fatalf("sync ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	return out
}

// told runs syncs until one has findings: once a grace has passed.
func (w *world) told(t *testing.T) (out carried) {
	t.Helper()
	harness.WaitFor(t, "a finding", soon, func(context.Context) error {
		if out = w.sync(t, 0); len(out.Findings) == 0 {
			return errors.New("nothing is told")
		}
		return nil
	})
	return out
}

// untag deletes tags at eu, and leaves their manifests.
func (w *world) untag(t *testing.T, repository string, tags ...string) {
	t.Helper()
	for _, tag := range tags {
		if err := w.eu.Delete(t.Context(), repository, tag); err != nil {
			t.Fatal(err)
		}
	}
}

// tagsAt checks the tags a registry has.
func (w *world) tagsAt(t *testing.T, c *harness.Client, repository string, want ...string) {
	t.Helper()
	got, err := c.Tags(t.Context(), repository)
	slices.Sort(got)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("tags of %s: %v, %v; want %v", repository, got, err, want)
	}
}

// A deletion at the source is carried over once its grace has passed: that tag
// alone, told by plan, sync, history and metrics.
func TestADeletionIsCarriedOver(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true, route: carrying("2s", "")})
	one, two := w.content.Image(harness.ImageSpec{}), w.content.Image(harness.ImageSpec{})
	w.push("team/app", one, "v1", "latest") // two tags of one image
	w.push("team/app", two, "v2", "v3")
	if s := w.sync(t, 0); s.Copied != 4 || s.Deleted != 0 {
		t.Fatalf("%+v", s)
	}
	w.untag(t, "team/app", "v1", "v3")
	var p planned
	decode(t, w.Command("plan", "--output", "json"), &p)
	if n := p.count(); n["delete"] != 0 || !waits(p, "v1") {
		t.Errorf("a plan before the grace: %+v", p.Actions)
	}
	if s := w.sync(t, 0); s.Deleted != 0 {
		t.Errorf("deleted at first sight: %+v", s)
	}
	w.tagsAt(t, w.us, "team/app", "latest", "v1", "v2", "v3")
	harness.WaitFor(t, "a plan to delete after the grace", soon, func(context.Context) error {
		p = planned{}
		r := w.Command("plan", "--exit-code", "--output", "json")
		decode(t, r, &p)
		if n := p.count(); r.Code != 1 || n["delete"] != 2 || n["copy"]+n["move"]+n["refuse"] != 0 {
			return fmt.Errorf("plan ended with %d: %+v", r.Code, p.Actions)
		}
		return nil
	})
	w.tagsAt(t, w.us, "team/app", "latest", "v1", "v2", "v3")
	if s := w.sync(t, 0); s.Deleted != 2 || s.Copied+s.Moved != 0 || len(s.Findings) != 0 {
		t.Errorf("%+v", s)
	}
	w.tagsAt(t, w.us, "team/app", "latest", "v2")
	for tag, image := range map[string]*harness.Graph{"latest": one, "v2": two} {
		if err := w.us.Has(t.Context(), "team/app", tag, image, true); err != nil {
			t.Error(err)
		}
	}
	var history struct{ History []struct{ Digest *string } }
	decode(t, w.Command("history", "us/team/app:v1", "--output", "json"), &history)
	if len(history.History) < 2 || history.History[0].Digest != nil || history.History[1].Digest == nil {
		t.Errorf("history: %+v", history)
	}
	if r := w.Command("plan", "--exit-code"); r.Code != 0 {
		t.Errorf("and then plan ended with %d: %s", r.Code, r.Stdout)
	}
	w.push("team/app", one, "v1") // it comes back
	if s := w.sync(t, 0); s.Copied != 1 || len(s.Findings) != 0 {
		t.Errorf("%+v", s)
	}
	if r := w.Command("verify", "--deep"); r.Code != 0 {
		t.Errorf("verify: %s%s", r.Stdout, r.Stderr)
	}
}

// waits tells whether a tag is skipped with what is left of its grace.
func waits(p planned, tag string) bool {
	return slices.ContainsFunc(p.Actions, func(a struct {
		Route, Destination, Repository, DestinationRepository, Tag, Digest, Action, Reason string
		Bytes                                                                              *int64
	}) bool {
		return a.Tag == tag && a.Action == "skip" && strings.Contains(a.Reason, "gone at eu")
	})
}

// What follows from nothing: an emptied source, a source whose registry was made
// anew, and more deletions than one run may carry over.
func TestAnEmptiedSourceDeletesNothing(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true, route: carrying("1s", "")})
	var tags []string
	for i := range 10 {
		tag := fmt.Sprintf("v%d", i)
		tags = append(tags, tag)
		w.push("team/app", w.content.Image(harness.ImageSpec{}), tag)
	}
	w.push("team/web", w.content.Image(harness.ImageSpec{}), "v1")
	w.sync(t, 0)
	w.untag(t, "team/app", tags[:6]...) // over atMost
	w.sync(t, 0)
	s := w.told(t)
	if s.Deleted != 0 || len(s.Findings) != 1 || s.Findings[0].Kind != "delete-held" || s.Findings[0].Hint == "" {
		t.Errorf("over the cap: %+v", s)
	}
	w.untag(t, "team/app", tags[6:]...) // all of it
	s = w.told(t)
	if s.Deleted != 0 || !slices.ContainsFunc(s.Findings, func(f harness.Finding) bool {
		return f.Kind == "delete-held" && strings.Contains(f.Message, "empty listing")
	}) {
		t.Errorf("an emptied repository: %+v", s)
	}
	w.tagsAt(t, w.us, "team/app", tags...)
	w.tagsAt(t, w.us, "team/web", "v1")
}

// A registry with deletes switched off, as distribution's are, keeps its tags
// with a finding; once they are on, a daemon carries over what has waited.
func TestDeletionsThatARegistryRefuses(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true, to: []string{"us", "ap"}, route: carrying("1s", ""), others: harness.RegistryOptions{NoDelete: true}})
	w.push("team/app", w.content.Image(harness.ImageSpec{}), "v1")
	w.push("team/app", w.content.Image(harness.ImageSpec{}), "v2")
	w.sync(t, 0)
	w.untag(t, "team/app", "v1")
	w.sync(t, 0)
	s := w.told(t)
	if s.Deleted != 0 || len(s.Findings) != 2 || s.Findings[0].Kind != "delete-held" || !strings.Contains(s.Findings[0].Hint, "storage.delete.enabled") {
		t.Errorf("%+v", s)
	}
	w.tagsAt(t, w.us, "team/app", "v1", "v2")
	if r := w.Command("verify"); r.Code != 0 {
		t.Errorf("verify: %s%s", r.Stdout, r.Stderr)
	}
}

// The daemon carries deletions over by its sweeps, counts them, and what it had
// begun when it was killed is ended by the next.
func TestADaemonCarriesDeletionsOver(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true, route: []string{"sweep: 1s", `deletes: {mirror: {grace: 2s, atMost: 100%}}`}})
	const n = 12
	for i := range n {
		w.push("team/app", w.content.Image(harness.ImageSpec{}), fmt.Sprintf("v%02d", i))
	}
	w.push("team/app", w.content.Image(harness.ImageSpec{}), "kept")
	w.Start()
	w.WaitStatus("prod", "us", "proven", soon, func(r harness.RouteStatus) bool { return r.Proven >= n+1 && is(r.Remaining, 0) })
	for i := range n {
		w.untag(t, "team/app", fmt.Sprintf("v%02d", i))
	}
	for left := n; left >= 0; left -= 3 { // killed in the middle of it, again and again
		harness.WaitFor(t, fmt.Sprintf("%d tags are left", left+1), soon, func(ctx context.Context) error {
			tags, err := w.us.Tags(ctx, "team/app")
			if err == nil && len(tags) > left+1 {
				err = fmt.Errorf("%v", tags)
			}
			return err
		})
		w.Kill()
		w.Start()
	}
	w.tagsAt(t, w.us, "team/app", "kept")
	w.WaitStatus("prod", "us", "at rest", soon, func(r harness.RouteStatus) bool { return r.Proven == 1 && is(r.Remaining, 0) })
	// What a kill has cut off, the next sweep ends.
	harness.WaitFor(t, "no deletion waits", soon, func(context.Context) error {
		var status struct {
			Routes []struct {
				Deletions *struct{ Waiting, Held int }
			}
		}
		decode(t, w.Command("status", "--output", "json"), &status)
		if len(status.Routes) != 1 || status.Routes[0].Deletions == nil {
			return fmt.Errorf("%+v", status)
		}
		if d := *status.Routes[0].Deletions; d.Waiting+d.Held != 0 {
			return fmt.Errorf("%+v", d)
		}
		return nil
	})
	var findings struct{ Findings []harness.Finding }
	decode(t, w.Command("findings", "list", "--output", "json"), &findings)
	for _, f := range findings.Findings {
		if f.Kind != "slow-sweep" { // on a machine that is busy
			t.Errorf("finding %s: %s", f.Kind, f.Message)
		}
	}
	if !strings.Contains(w.metrics(t), "# TYPE twinport_deletions gauge") {
		t.Error("no metric tells of deletions")
	}
}

func is(n *int, want int) bool { return n != nil && *n == want }
