package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/api"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

func actionsOf(p *api.Plan) map[string]int {
	n := make(map[string]int)
	for _, a := range planned(p) {
		n[a.Action]++
	}
	return n
}

func planned(p *api.Plan) (list []api.Action) {
	_ = p.Each(func(a api.Action) error { list = append(list, a); return nil }) // so few are in memory
	return list
}

func TestPlanSyncPlan(t *testing.T) {
	routes := with(route("prod", "eu", "us", "ap"), func(r *plan.Route) {
		r.Repositories.Include = []string{"team/**"}
		r.Tags.Exclude = []string{"*-dev"}
		r.Rename = "dr/{repository}"
	})
	in(t, routes, func(w *world) {
		ctx := context.Background()
		o := Operator{Daemon: w.Daemon}
		eu, us := w.sites["eu"], w.sites["us"]
		all := fill(eu, 2, 3)
		eu.Push("private/app", "v1", ocitest.Image("private", 1))
		eu.Push("team/app0", "v1-dev", ocitest.Image("dev", 1))
		eu.Push("team/app0", "old", ocitest.Schema1("old"))
		us.Push("dr/team/app1", "v0", ocitest.Image("something else", 1))

		p, err := o.Plan(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := actionsOf(p)
		if got["copy"] != 11 || got["move"] != 1 || got["refuse"] != 2 || got["skip"] == 0 || p.Empty() || p.Requests == 0 {
			t.Errorf("actions %v, %d requests", got, p.Requests)
		}
		for _, a := range planned(p) {
			switch {
			case a.Reason == "":
				t.Errorf("no reason: %+v", a)
			case a.Action == "copy" && (a.Digest == nil || a.Bytes == 0 || a.DestinationRepository != "dr/"+a.Repository):
				t.Errorf("%+v", a)
			case a.Action == "skip" && a.Tag != "v1-dev" && a.Repository != "private/app":
				t.Errorf("%+v", a)
			}
		}
		if !slices.IsSortedFunc(planned(p), func(a, b api.Action) int {
			return strings.Compare(a.Route+"\x00"+a.Destination+"\x00"+a.Repository+"\x00"+a.Tag, b.Route+"\x00"+b.Destination+"\x00"+b.Repository+"\x00"+b.Tag)
		}) {
			t.Error("the actions are in no order")
		}
		for _, s := range w.sites { // it changes and creates nothing
			if n := s.Count(ocitest.PutManifest, ocitest.StartUpload, ocitest.PutUpload); n != 0 {
				t.Errorf("%d writes at %s by a plan", n, s.name)
			}
		}
		if jobs := w.allJobs(); len(jobs) != 0 {
			t.Errorf("a plan made %d jobs", len(jobs))
		}

		var mu sync.Mutex
		var told []api.Progress
		result, err := o.Sync(ctx, api.SyncRequest{RetryFor: 60}, func(p api.Progress) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, p)
		})
		if err != nil {
			t.Fatal(err)
		}
		if result.Copied != 11 || result.Moved != 1 || result.Refused != 2 || result.Failed != 0 || result.InSync() || result.Bytes == 0 ||
			result.Requests.Source == 0 || result.Requests.Destination == 0 || len(result.Errors) != 0 {
			t.Errorf("%+v", result)
		}
		kinds := make(map[replicator.FindingKind]int)
		for _, f := range result.Findings {
			kinds[f.Kind]++
		}
		if kinds[replicator.FindingUnsupported] != 2 || kinds[replicator.FindingDrift] != 1 || len(result.Findings) != 3 {
			t.Errorf("findings %v", kinds)
		}
		for repository, tags := range all {
			for tag, c := range tags {
				for _, name := range []string{"us", "ap"} {
					w.proven(name, "dr/"+repository, tag, c)
				}
			}
		}

		eu.SetTag("team/app0", "old", "")
		p, err = o.Plan(ctx, []string{"prod"})
		if err != nil || !p.Empty() {
			t.Errorf("the second plan: %v, %v", actionsOf(p), err)
		}
		again, err := o.Sync(ctx, api.SyncRequest{RetryFor: 60}, nil)
		if err != nil || again.Copied+again.Moved != 0 || again.Bytes != 0 {
			t.Errorf("the second sync: %+v, %v", again, err)
		}
	}, oneShot())
}

func TestPlanOfASourceThatIsNotWhole(t *testing.T) {
	in(t, star(), func(w *world) {
		image := ocitest.MultiArch("app", 2, 1)
		w.sites["eu"].Push(app, "v1", image)
		w.sites["eu"].Remove(app, image.Manifests[0].Digest)
		p, err := Operator{Daemon: w.Daemon}.Plan(context.Background(), nil)
		if err != nil || actionsOf(p)["refuse"] != 1 {
			t.Errorf("%+v, %v", p, err)
		}
	}, oneShot())
}

func TestPlanOfARegistryThatFails(t *testing.T) {
	for _, name := range []string{"eu", "us"} {
		t.Run(name, func(t *testing.T) {
			in(t, star(), func(w *world) {
				w.sites["eu"].Push(app, "v1", ocitest.Image("app", 1))
				w.sites[name].faulty(&oci.RegistryError{Registry: name, Operation: "x", Status: 500, Kind: oci.ErrInterrupted}, ocitest.ListTags)
				if _, err := (Operator{Daemon: w.Daemon}).Plan(context.Background(), nil); !errors.Is(err, oci.ErrInterrupted) {
					t.Errorf("%v", err)
				}
			}, oneShot())
		})
	}
}

func TestANoOpSyncTellsItsRequests(t *testing.T) {
	in(t, star(), func(w *world) {
		fill(w.sites["eu"], 2, 50)
		if _, err := w.Sync(context.Background(), SyncOptions{RetryFor: time.Minute}); err != nil {
			t.Fatal(err)
		}
		w.sites["eu"].ResetCalls()
		w.sites["us"].ResetCalls()
		result, err := w.Sync(context.Background(), SyncOptions{RetryFor: time.Minute})
		if err != nil || !result.InSync() || result.Copied+result.Moved+result.Bytes != 0 {
			t.Fatalf("%+v, %v", result, err)
		}
		if result.SourceRequests != int64(w.sites["eu"].Count()) || result.DestinationRequests != int64(w.sites["us"].Count()) {
			t.Errorf("%d and %d told, %d and %d made", result.SourceRequests, result.DestinationRequests, w.sites["eu"].Count(), w.sites["us"].Count())
		}
		if result.SourceRequests > 1+2+100 || result.DestinationRequests > 2 {
			t.Errorf("%d and %d requests for nothing", result.SourceRequests, result.DestinationRequests)
		}
	}, oneShot())
}

// --full believes nothing: a hollow tag on record is repaired.
func TestAFullSync(t *testing.T) {
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		image := ocitest.Image("app", 2)
		w.push("eu", app, "v1", image)
		w.rest()
		us.Remove(app, image.Blobs[1].Desc.Digest)
		result, err := w.Sync(context.Background(), SyncOptions{RetryFor: time.Minute})
		if err != nil || !result.InSync() || us.Has(app, image) {
			t.Fatalf("%+v, %v", result, err)
		}
		result, err = w.Sync(context.Background(), SyncOptions{RetryFor: time.Minute, Full: true})
		if err != nil || !result.InSync() || !us.Has(app, image) {
			t.Errorf("%+v, %v", result, err)
		}
	}, oneShot())
}

func TestStatusAndBehind(t *testing.T) {
	in(t, []plan.Route{route("prod", "eu", "us"), with(route("other", "eu", "ap"), func(r *plan.Route) { r.RPO = 0 })[0]}, func(w *world) {
		ctx := context.Background()
		o := Operator{Daemon: w.Daemon, About: &api.DaemonStatus{Version: "1"}}
		first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
		w.push("eu", app, "v1", first)
		w.rest()
		w.sites["us"].setDown(true)
		w.push("eu", app, "v1", second)
		for i := range 5 {
			w.push("eu", app, fmt.Sprintf("w%d", i), second)
		}
		w.until("the breaker is open", func() bool { _, down := w.sites["us"].gate.Down(); return down })
		w.proven("ap", app, "v1", second)
		time.Sleep(time.Minute)
		status, err := o.Status(ctx)
		if err != nil || status.Daemon == nil || len(status.Routes) != 2 {
			t.Fatalf("%+v, %v", status, err)
		}
		prod, other := status.Routes[0], status.Routes[1]
		if prod.Route != "prod" || prod.Destination != "us" || prod.Lag < 60 || *prod.RPO != 300 || prod.Remaining != 6 || prod.Proven != 1 ||
			prod.State != "unknown" || prod.LastProof == nil || prod.LastSweep != nil || *prod.SourceUp != true || *prod.DestinationUp != false || prod.Owner == "" {
			t.Errorf("%+v", prod)
		}
		if other.State != "none" || other.RPO != nil || other.Lag != 0 || other.Proven != 6 || !*other.DestinationUp {
			t.Errorf("%+v", other)
		}
		var tags []string
		after := ""
		for {
			page, err := o.Behind(ctx, "prod", "us", after, 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range page.Behind {
				tags = append(tags, b.Tag)
				if b.Tag == "v1" && (b.Wanted == nil || *b.Wanted != second.Digest().String() || b.Proven == nil || *b.Proven != first.Digest().String() || b.PushedAt == nil || b.Why == "") {
					t.Errorf("%+v", b)
				}
				if b.Tag == "w0" && b.Proven != nil {
					t.Errorf("%+v", b)
				}
			}
			if after = page.Next; after == "" {
				break
			}
		}
		slices.Sort(tags)
		if !slices.Equal(tags, []string{"v1", "w0", "w1", "w2", "w3", "w4"}) {
			t.Errorf("behind: %v", tags)
		}
		// A command reads the journal itself: nobody probes for it.
		alone, err := Operator{Daemon: w.Daemon}.Status(ctx)
		if err != nil || alone.Daemon != nil || alone.Routes[0].SourceUp != nil {
			t.Errorf("%+v, %v", alone, err)
		}
	})
}

func TestHistory(t *testing.T) {
	in(t, star(), func(w *world) {
		ctx := context.Background()
		o := Operator{Daemon: w.Daemon}
		first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
		w.push("eu", app, "v1", first)
		w.rest()
		at := w.clock().Add(time.Second)
		time.Sleep(time.Hour / 60)
		w.push("eu", app, "v1", second)
		w.rest()
		gone := w.event("eu", app, "v1", "")
		gone.Action = replicator.Delete
		w.accept(gone)
		for _, registry := range []string{"eu", "us"} {
			h, err := o.History(ctx, registry+"/"+app+":v1", nil)
			want := map[string]int{"eu": 3, "us": 2}[registry]
			if err != nil || h.Registry != registry || h.Repository != app || h.Tag != "v1" || len(h.History) != want {
				t.Fatalf("%+v, %v", h, err)
			}
			newest := h.History[0]
			if registry == "eu" && newest.Digest != nil || registry == "us" && *newest.Digest != second.Digest().String() {
				t.Errorf("%s: %+v", registry, newest)
			}
			then, err := o.History(ctx, registry+"/"+app+":v1", &at)
			if err != nil || len(then.History) != 1 || *then.History[0].Digest != first.Digest().String() {
				t.Errorf("%s at %s: %+v, %v", registry, at, then, err)
			}
		}
		for _, wrong := range []string{"", "eu", "eu/app", "eu/app:", "/app:v1", "eu/App:v1", "eu/app:v 1", "eu/app@sha256:x"} {
			var usage *api.UsageError
			if _, err := o.History(ctx, wrong, nil); !errors.As(err, &usage) || usage.Hint == "" {
				t.Errorf("%q: %v", wrong, err)
			}
		}
	})
}

func TestJobsAndFindingsAreShown(t *testing.T) {
	in(t, star(), func(w *world) {
		ctx := context.Background()
		o := Operator{Daemon: w.Daemon}
		image := ocitest.Image("app", 1)
		w.push("eu", app, "v1", image)
		w.push("eu", app, "old", ocitest.Schema1("old"))
		w.rest()
		jobs, err := o.Jobs(ctx, journal.JobFilter{States: []replicator.JobState{replicator.Refused}})
		if err != nil || len(jobs.Jobs) != 1 || jobs.Jobs[0].Tag != "old" || jobs.Jobs[0].Error.Kind != "unsupported" {
			t.Fatalf("%+v, %v", jobs, err)
		}
		j, err := o.Job(ctx, jobs.Jobs[0].ID)
		if err != nil || j.ID != jobs.Jobs[0].ID {
			t.Errorf("%+v, %v", j, err)
		}
		if _, err := o.Job(ctx, "zzz"); !errors.Is(err, journal.ErrUnknown) {
			t.Errorf("%v", err)
		}
		open := false
		findings, err := o.Findings(ctx, journal.FindingFilter{Acknowledged: &open})
		if err != nil || len(findings.Findings) != 1 {
			t.Fatalf("%+v, %v", findings, err)
		}
		if c, err := o.Acknowledge(ctx, []string{findings.Findings[0].ID}, "test"); err != nil || c.Changed != 1 {
			t.Errorf("%+v, %v", c, err)
		}
		if _, err := o.Acknowledge(ctx, []string{"zzz"}, "test"); !errors.Is(err, journal.ErrUnknown) {
			t.Errorf("%v", err)
		}
		groups, err := o.JobCounts(ctx)
		if err != nil {
			t.Fatal(err)
		}
		total := int64(0)
		for _, n := range groups {
			total += n
		}
		if total != 1 { // ended jobs are no part of what is desired
			t.Errorf("%v", groups)
		}
		totals, err := o.FindingTotals(ctx)
		if err != nil || totals[replicator.FindingUnsupported] != 1 {
			t.Errorf("%v, %v", totals, err)
		}
		if n := o.CopiedBytes()[api.RouteDestination{Route: "prod", Destination: "us"}]; n == 0 {
			t.Error("no bytes were copied")
		}
		if o.JournalBytes() == 0 || o.SpoolBytes() != 0 {
			t.Errorf("journal %d, spool %d", o.JournalBytes(), o.SpoolBytes())
		}
	})
}

func TestResolveByReference(t *testing.T) {
	in(t, pair(), func(w *world) {
		ctx := context.Background()
		o := Operator{Daemon: w.Daemon}
		for name, r := range map[string]api.ResolveRequest{
			"no reference":   {Prefer: "eu"},
			"no registry":    {Reference: "eu/team/app:v1", Prefer: "nope"},
			"no conflict":    {Reference: "eu/team/app:v1", Prefer: "us"},
			"a third":        {Reference: "ap/team/app:v1", Prefer: "us"},
			"what is no tag": {Reference: "eu/team/app", Prefer: "us"},
		} {
			var usage *api.UsageError
			if _, err := o.Resolve(ctx, r, "test"); !errors.As(err, &usage) {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, ofUS := clash(w, 0)
		w.until("a conflict", func() bool { return len(w.found(replicator.FindingConflict)) == 1 })
		r, err := o.Resolve(ctx, api.ResolveRequest{Reference: "eu/team/app:v1", Prefer: "us"}, "test")
		if err != nil || r.Digest != ofUS.Digest().String() {
			t.Fatalf("%+v, %v", r, err)
		}
		w.settle()
		w.proven("eu", app, "v1", ofUS)
		audits, err := w.journal.Audits(ctx, 1)
		if err != nil || audits[0].Action != "tag.resolve" || audits[0].Actor != "test" {
			t.Errorf("%+v, %v", audits, err)
		}
	})
}

func TestBoundedTextStaysText(t *testing.T) {
	for _, s := range []string{"", "short", strings.Repeat("x", 2*maxMessage), strings.Repeat("é", maxMessage), strings.Repeat("€", maxMessage), "a" + strings.Repeat("€", maxMessage)} {
		if got := bounded(s); !utf8.ValidString(got) || len(got) > maxMessage+len("…") {
			t.Errorf("%d bytes of %.9q became %d", len(s), s, len(got))
		}
	}
}

// Whoever is shown a plan may have enough of it.
func TestAPlanThatCannotBeShownEnds(t *testing.T) {
	in(t, star(), func(w *world) {
		fill(w.sites["eu"], 3, 3)
		full := errors.New("no space left")
		shown := 0
		_, err := w.Daemon.Plan(context.Background(), nil, func(Action) error { shown++; return full })
		if !errors.Is(err, full) || shown != 1 {
			t.Errorf("shown %d times: %v", shown, err)
		}
	}, oneShot())
}

// A plan says of a move that it corrects what was moved without the source.
func TestAPlanTellsOfAnUnconfirmedMove(t *testing.T) {
	in(t, star(), func(w *world) {
		first, second := ocitest.Image("first", 1), ocitest.Image("second", 1)
		w.sites["eu"].Push(app, "v1", second)
		w.sites["us"].Push(app, "v1", first)
		err := w.journal.SaveRecords(context.Background(), []replicator.Record{{
			Destination: replicator.Place{Registry: "us", Identity: w.sites["us"].Identity(), Repository: app},
			Source:      replicator.Place{Registry: "eu", Identity: w.sites["eu"].Identity(), Repository: app},
			Tag:         "v1", Digest: first.Digest(), Route: "prod", PushedAt: w.clock(), ProvenAt: w.clock(), Unconfirmed: true,
		}})
		if err != nil {
			t.Fatal(err)
		}
		p, err := Operator{Daemon: w.Daemon}.Plan(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if list := planned(p); len(list) != 1 || list[0].Action != "move" || !strings.Contains(list[0].Reason, "while the source did not answer") {
			t.Errorf("%+v", list)
		}
	}, oneShot())
}
