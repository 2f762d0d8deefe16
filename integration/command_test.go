package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// decode reads a command's JSON.
func decode(t *testing.T, r harness.Result, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.Stdout), into); err != nil {
		t.Fatalf("exit code %d, not JSON: %v\n%s\n%s", r.Code, err, r.Stdout, r.Stderr)
	}
}

func (w *world) metrics(t *testing.T) string {
	t.Helper()
	resp, err := http.Get(w.Admin() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s, %v", resp.Status, err)
	}
	return string(body)
}

type planned struct {
	Actions []struct {
		Route, Destination, Repository, DestinationRepository, Tag, Digest, Action, Reason string
		Bytes                                                                              *int64
	}
	Requests json.RawMessage
}

func (p planned) count() map[string]int {
	out := make(map[string]int)
	for _, a := range p.Actions {
		out[a.Action]++
	}
	return out
}

type synced struct {
	Copied, Moved, Refused, Failed int
	Bytes                          int64
	Requests                       struct{ Source, Destination int }
	Seconds                        float64
	Findings                       []harness.Finding
}

// Without a daemon: plan changes nothing and says what sync will do, sync does
// it, and then there is nothing left to plan.
func TestPlanThenSyncThenPlanIsEmpty(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true, route: []string{`tags: {exclude: ["*-dev"]}`}})
	images := make(map[string]*harness.Graph)
	for i := range 12 {
		tag := fmt.Sprintf("v%d", i)
		images[tag] = w.content.MultiArch(harness.ImageSpec{Shared: []int{1}}, "amd64", "arm64")
		w.push("team/app", images[tag], tag)
	}
	w.push("team/app", images["v0"], "v0-dev")
	var p planned
	r := w.Command("plan", "--output", "json")
	decode(t, r, &p)
	if n := p.count(); r.Code != 0 || n["copy"]+n["create"]+n["move"] < 12 || n["skip"] == 0 {
		t.Errorf("plan ended with %d: %v", r.Code, n)
	}
	for _, a := range p.Actions {
		if a.Reason == "" {
			t.Errorf("no reason: %+v", a)
		}
		if a.Tag == "v0-dev" && a.Action != "skip" {
			t.Errorf("an excluded tag: %+v", a)
		}
	}
	if tags, err := w.us.Tags(t.Context(), "team/app"); err != nil || len(tags) > 0 {
		t.Errorf("plan wrote: %v %v", tags, err)
	}
	if r := w.Command("plan", "--exit-code"); r.Code != 1 {
		t.Errorf("plan --exit-code ended with %d: %s", r.Code, r.Stderr)
	}
	var s synced
	r = w.Command("sync", "--output", "json")
	decode(t, r, &s)
	if r.Code != 0 || s.Copied == 0 || s.Failed != 0 || s.Refused != 0 || s.Bytes == 0 || s.Requests.Source == 0 || s.Requests.Destination == 0 {
		t.Errorf("sync ended with %d: %s", r.Code, r.Stdout)
	}
	for tag, img := range images {
		if err := w.us.Has(t.Context(), "team/app", tag, img, true); err != nil {
			t.Error(err)
		}
	}
	if err := absent(t.Context(), w.us, "team/app", "v0-dev"); err != nil {
		t.Error(err)
	}
	r = w.Command("plan", "--exit-code", "--output", "json")
	p = planned{}
	decode(t, r, &p)
	if n := p.count(); r.Code != 0 || len(p.Actions) != n["skip"] {
		t.Errorf("the second plan ended with %d and is not empty: %v", r.Code, n)
	}
	if r := w.Command("verify", "--deep"); r.Code != 0 {
		t.Errorf("verify ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if r := w.Command("status", "--output", "json"); r.Code > 1 {
		t.Errorf("status ended with %d: %s", r.Code, r.Stderr)
	}
}

// A sync of an unchanged route costs few requests, and says how many.
func TestANoOpSyncCostsAndTellsItsRequests(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true, exact: true, route: []string{"rpo: 5m"}})
	repositories, tags := 10, scaled(100, 20)
	variants := w.content.Variants(repositories * tags)
	err := harness.Each(t.Context(), repositories, func(ctx context.Context, r int) error {
		for i := range tags {
			if err := w.eu.Push(ctx, fmt.Sprintf("team/app%d", r), variants[r*tags+i], fmt.Sprintf("v%d", i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := w.Command("sync"); r.Code != 0 {
		t.Fatalf("sync ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	w.proxy["eu"].Reset()
	w.proxy["us"].Reset()
	var s synced
	r := w.Command("sync", "--output", "json")
	decode(t, r, &s)
	t.Logf("%d tags: %d requests at the source, %d at the destination, %.2f s", len(variants), s.Requests.Source, s.Requests.Destination, s.Seconds)
	if r.Code != 0 || s.Copied+s.Moved+s.Failed+s.Refused != 0 {
		t.Errorf("the second sync ended with %d: %s", r.Code, r.Stdout)
	}
	if eu, us := w.proxy["eu"].Total(), w.proxy["us"].Total(); s.Requests.Source != eu || s.Requests.Destination != us {
		t.Errorf("it tells %d and %d requests; %d and %d were counted (%v, %v)", s.Requests.Source, s.Requests.Destination, eu, us, w.proxy["eu"].Counts(), w.proxy["us"].Counts())
	}
	// At the source a page of the catalog, a tag list a repository, a HEAD a
	// tag; a rolling share of referrers. At the destination the tag lists.
	if limit := len(variants)*3/2 + 2*repositories + 10; s.Requests.Source > limit {
		t.Errorf("%d requests at the source, want at most %d", s.Requests.Source, limit)
	}
	if limit := 3*repositories + 10; s.Requests.Destination > limit {
		t.Errorf("%d requests at the destination, want at most %d", s.Requests.Destination, limit)
	}
}

// A SIGTERM during copies ends the daemon within 30 s with 0, nothing lost.
func TestSIGTERMEndsGracefully(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	// Long enough for the last ones to be seen under way by a machine that is busy.
	slow := w.proxy["us"].Inject(harness.Fault{Match: harness.Is(http.MethodPut, harness.Upload), Delay: 1500 * time.Millisecond})
	images := make([]*harness.Graph, 30)
	for i := range images {
		images[i] = w.content.Image(harness.ImageSpec{Layers: 2})
		w.push(fmt.Sprintf("team/app%d", i%5), images[i], fmt.Sprintf("v%d", i))
	}
	w.WaitStatus("prod", "us", "copies under way", soon, func(r harness.RouteStatus) bool { return r.Running > 0 && r.Running+r.Waiting+r.Proven >= 30 })
	began := time.Now()
	if code := w.Terminate(30 * time.Second); code != 0 {
		t.Errorf("ended with %d", code)
	}
	t.Logf("ended after %s", time.Since(began))
	if _, err := os.Stat(filepath.Join(w.Data(), "daemon.json")); err == nil {
		t.Error("daemon.json is left behind")
	}
	slow()
	w.Start()
	for i, img := range images {
		harness.WaitHas(t, w.us, fmt.Sprintf("team/app%d", i%5), fmt.Sprintf("v%d", i), img, soon)
	}
	w.WaitSettled(soon)
	w.noFindings()
}

// One data directory has one daemon.
func TestASecondDaemonOnTheSameDataIsRefused(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	r := w.Command("serve")
	if r.Code != 1 || !strings.Contains(r.Stdout+r.Stderr, w.Data()) && !strings.Contains(r.Stdout+r.Stderr, "in use") {
		t.Errorf("ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	img := w.content.Image(harness.ImageSpec{})
	w.push("team/app", img, "v1")
	harness.WaitHas(t, w.us, "team/app", "v1", img, soon)
}

// A bad config ends with 2, every fault at once with its line, and the line shown.
func TestABadConfigIsRefusedLineByLine(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true})
	bad := filepath.Join(w.Dir, "bad.yaml")
	text := strings.Join([]string{
		"listen: 127.0.0.1:0",
		"admin: 127.0.0.1:0",
		"data: " + filepath.Join(w.Dir, "other"),
		"colour: red",
		"registries:",
		"  eu: {kind: oci, address: 127.0.0.1:5000, plainHTTP: true}",
		"  us: {kind: floppy, address: 127.0.0.1:5001}",
		"routes:",
		"  - name: prod",
		"    from: eu",
		"    to: [us, nowhere]",
		"    sweep: soon",
	}, "\n") + "\n"
	if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"serve", "validate", "sync", "plan", "status"} {
		r := w.Run(command, "--config", bad)
		if r.Code != 2 {
			t.Errorf("%s ended with %d: %s%s", command, r.Code, r.Stdout, r.Stderr)
		}
		for _, place := range []string{`bad\.yaml:4:1: `, `bad\.yaml:7:\d+: `, `bad\.yaml:11:\d+: `, `bad\.yaml:12:\d+: `} {
			if !regexp.MustCompile(place).MatchString(r.Stdout + r.Stderr) {
				t.Errorf("%s: no fault at %s\n%s%s", command, place, r.Stdout, r.Stderr)
			}
		}
		if !strings.Contains(r.Stdout+r.Stderr, "colour: red") {
			t.Errorf("%s does not show the line", command)
		}
	}
	for _, args := range [][]string{
		{"serve", "--config", filepath.Join(w.Dir, "absent.yaml")},
		{"sync", "nosuchroute", "--config", w.ConfigPath()},
		{"nosuchcommand"},
		{"status", "--nosuchflag"},
	} {
		if r := w.Run(args...); r.Code != 2 {
			t.Errorf("%v ended with %d: %s%s", args, r.Code, r.Stdout, r.Stderr)
		}
	}
}

// Commands go through the daemon that has the data directory, and read what it knows.
func TestCommandsWhileTheDaemonRuns(t *testing.T) {
	t.Parallel()
	w := start(t, setup{route: []string{"sweep: 1h", "rpo: 5m"}})
	img := w.content.Image(harness.ImageSpec{})
	w.push("team/app", img, "v1")
	harness.WaitHas(t, w.us, "team/app", "v1", img, soon)
	w.WaitSettled(soon)

	for _, args := range [][]string{
		{"version"}, {"validate"}, {"status"}, {"status", "--behind"}, {"plan", "--exit-code"}, {"sync"}, {"verify"},
		{"jobs", "list"}, {"findings", "list"}, {"history", "us/team/app:v1"},
	} {
		if r := w.Command(args...); r.Code != 0 || r.Stdout+r.Stderr == "" {
			t.Errorf("%v ended with %d: %s%s", args, r.Code, r.Stdout, r.Stderr)
		}
		if args[0] == "version" || args[0] == "validate" {
			continue
		}
		r := w.Command(append(args, "--output", "json")...)
		var answer map[string]json.RawMessage
		decode(t, r, &answer)
		if len(answer) == 0 {
			t.Errorf("%v: %s", args, r.Stdout)
		}
	}

	// sync through the daemon copies what no webhook told.
	w.reg["eu"].Notify()
	w.reg["eu"].Stop()
	w.reg["eu"].Start()
	silent := w.content.Image(harness.ImageSpec{})
	w.push("team/app", silent, "silent")
	w.push("team/other", silent, "silent")
	if r := w.Command("sync", "prod", "--only", "team/app:silent"); r.Code != 0 {
		t.Errorf("sync ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if err := w.us.Has(t.Context(), "team/app", "silent", silent, true); err != nil {
		t.Errorf("after sync --only: %v", err)
	}
	if err := absent(t.Context(), w.us, "team/other", "silent"); err != nil {
		t.Errorf("after sync --only: %v", err)
	}
	if r := w.Command("sync"); r.Code != 0 {
		t.Errorf("sync ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if err := w.us.Has(t.Context(), "team/other", "silent", silent, true); err != nil {
		t.Errorf("after sync: %v", err)
	}

	// pause keeps, resume lets go.
	if r := w.Command("pause", "prod"); r.Code != 0 {
		t.Fatalf("pause ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	w.WaitStatus("prod", "us", "paused", soon, func(r harness.RouteStatus) bool { return r.Paused })
	later := w.content.Image(harness.ImageSpec{})
	w.push("team/app", later, "v2")
	if code, answer := w.Post(t.Context(), "eu", harness.PushEvent(w.reg["eu"].Addr, "team/app", "v2", later, time.Now())); code != 202 {
		t.Errorf("a webhook while paused: %d %s", code, answer)
	}
	w.WaitStatus("prod", "us", "kept while paused", soon, func(r harness.RouteStatus) bool { return r.Waiting == 1 && r.Lag != nil && *r.Lag > 1 })
	if err := absent(t.Context(), w.us, "team/app", "v2"); err != nil {
		t.Error(err)
	}
	w.Kill() // a pause outlives its daemon
	w.Start()
	w.WaitStatus("prod", "us", "still paused", soon, func(r harness.RouteStatus) bool { return r.Paused })
	if r := w.Command("resume", "prod"); r.Code != 0 {
		t.Fatalf("resume ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	harness.WaitHas(t, w.us, "team/app", "v2", later, soon)
}

// A job can be looked at, cancelled and tried again by hand.
func TestJobsAreCancelledAndRetriedByHand(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	heal := w.proxy["us"].Inject(harness.Fault{Match: harness.Is(http.MethodPost, harness.Upload), Status: 500})
	img := w.content.Image(harness.ImageSpec{})
	w.push("team/app", img, "v1")
	var job harness.Job
	harness.WaitFor(t, "a job that failed once", soon, func(context.Context) error {
		r := w.Command("jobs", "list", "--output", "json")
		var page struct{ Jobs []harness.Job }
		decode(t, r, &page)
		for _, j := range page.Jobs {
			if j.Tag == "v1" && j.Attempts > 0 && j.State == "waiting" && j.Error != nil && j.NextAttempt != nil {
				job = j
				return nil
			}
		}
		return fmt.Errorf("jobs are %s", r.Stdout)
	})
	if r := w.Command("jobs", "show", job.ID); r.Code != 0 || !strings.Contains(r.Stdout, "team/app") {
		t.Errorf("jobs show ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if r := w.Command("jobs", "cancel", job.ID); r.Code != 0 {
		t.Errorf("jobs cancel ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	w.WaitStatus("prod", "us", "held", soon, func(r harness.RouteStatus) bool { return r.Held == 1 && r.Waiting+r.Running == 0 })
	heal()
	if r := w.Command("jobs", "retry", job.ID); r.Code != 0 {
		t.Errorf("jobs retry ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	harness.WaitHas(t, w.us, "team/app", "v1", img, soon)
	w.WaitSettled(soon)
}

// A changed config is taken over while the daemon runs; a bad one changes nothing.
func TestReloadTakesAChangedConfigAndNoBadOne(t *testing.T) {
	t.Parallel()
	w := start(t, setup{to: []string{"us", "ap"}})
	w.Config.Routes[0].To = []string{"us"}
	w.WriteConfig()
	harness.WaitFor(t, "the reload", soon, func(ctx context.Context) error {
		s, err := w.Status(ctx)
		if err != nil || len(s.Routes) != 1 {
			return fmt.Errorf("status is %+v, %w", s.Routes, errors.Join(err, errors.New("still two lines or none")))
		}
		return nil
	})
	good, err := os.ReadFile(w.ConfigPath())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.ConfigPath(), append(good, "colour: red\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "the bad config's fault in the log", soon, func(context.Context) error {
		if !strings.Contains(w.Log(), "colour") {
			return fmt.Errorf("nothing yet")
		}
		return nil
	})
	img := w.content.Image(harness.ImageSpec{})
	w.push("team/app", img, "v1")
	harness.WaitHas(t, w.us, "team/app", "v1", img, soon)
	if err := absent(t.Context(), w.reg["ap"].Client(), "team/app", "v1"); err != nil {
		t.Error(err)
	}
}
