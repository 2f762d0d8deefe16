package api

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/replicator"
)

type gauges struct {
	status Status
	err    error
}

func (g gauges) Status(context.Context) (Status, error) { return g.status, g.err }

func (g gauges) JobCounts(context.Context) (map[JobGroup]int64, error) {
	return map[JobGroup]int64{{replicator.Waiting, replicator.LaneWebhook}: 3, {replicator.Failed, replicator.LaneSweep}: 1}, g.err
}

func (g gauges) FindingTotals(context.Context) (map[replicator.FindingKind]int64, error) {
	return map[replicator.FindingKind]int64{replicator.FindingDrift: 2}, g.err
}

func (g gauges) Deleted() map[RouteDestination]int64 {
	return map[RouteDestination]int64{{"prod", "us"}: 5}
}

func (g gauges) CopiedBytes() map[RouteDestination]int64 {
	return map[RouteDestination]int64{{"prod", "us"}: 1234}
}

func (g gauges) Polled() map[string]Polled {
	return map[string]Polled{"eu": {Seen: time.Now().Add(-10 * time.Minute), Requests: 77}, "new": {}}
}
func (g gauges) SpoolBytes() int64   { return 11 }
func (g gauges) JournalBytes() int64 { return 22 }

var sample = regexp.MustCompile(`^(\w+?)(?:\{(.*)\})? ([^ ]+)$`)

// gather is what the page shows: values by name and labels, those sorted.
func gather(t *testing.T, m *Metrics) map[string]map[string]float64 {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	all := make(map[string]map[string]float64)
	for line := range strings.Lines(w.Body.String()) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		parts := sample.FindStringSubmatch(line)
		if parts == nil {
			t.Fatalf("no sample: %s", line)
		}
		v, err := strconv.ParseFloat(parts[3], 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if all[parts[1]] == nil {
			all[parts[1]] = make(map[string]float64)
		}
		all[parts[1]][strings.ReplaceAll(parts[2], `"`, "")] = v
	}
	return all
}

func TestMetrics(t *testing.T) {
	rpo := 300.0
	m := NewMetrics("1.2.3")
	m.Collect(gauges{status: Status{Routes: []RouteStatus{
		{Route: "prod", Source: "eu", Destination: "us", Lag: 12.5, RPO: &rpo, State: "missed", Proven: 4, Unconfirmed: 1, Deletions: &Deletions{Waiting: 2, Held: 1}, LastSweep: Time(time.Now().Add(-time.Minute)), OldestProof: Time(time.Now().Add(-time.Hour)), Owner: "platform-team", Contact: "#oncall"},
		{Route: "prod", Source: "eu", Destination: "ap", State: "seeding"},
	}}})
	m.Webhook("eu", 202)
	m.Webhook("eu", 202)
	m.Webhook("", 404)
	m.Replicated("prod", "us", time.Second)
	m.Replicated("prod", "us", -time.Second) // a clock that went back
	got := gather(t, m)

	for name, want := range map[string]map[string]float64{
		"twinport_lag_seconds": {"destination=us,route=prod": 12.5, "destination=ap,route=prod": 0},
		"twinport_rpo_state": {
			"destination=us,route=prod,state=met": 0, "destination=us,route=prod,state=missed": 1, "destination=us,route=prod,state=unknown": 0,
			"destination=us,route=prod,state=seeding": 0, "destination=us,route=prod,state=none": 0,
			"destination=ap,route=prod,state=met": 0, "destination=ap,route=prod,state=missed": 0, "destination=ap,route=prod,state=unknown": 0,
			"destination=ap,route=prod,state=seeding": 1, "destination=ap,route=prod,state=none": 0,
		},
		"twinport_rpo_seconds":               {"route=prod": 300},
		"twinport_route_info":                {"contact=#oncall,owner=platform-team,route=prod,source=eu": 1},
		"twinport_proven":                    {"destination=us,route=prod": 4, "destination=ap,route=prod": 0},
		"twinport_unconfirmed":               {"destination=us,route=prod": 1, "destination=ap,route=prod": 0},
		"twinport_copied_bytes_total":        {"destination=us,route=prod": 1234},
		"twinport_deleted_total":             {"destination=us,route=prod": 5},
		"twinport_deletions":                 {"destination=us,route=prod,state=waiting": 2, "destination=us,route=prod,state=held": 1},
		"twinport_findings_total":            {"kind=drift": 2},
		"twinport_poll_requests_total":       {"registry=eu": 77, "registry=new": 0},
		"twinport_spool_bytes":               {"": 11},
		"twinport_journal_bytes":             {"": 22},
		"twinport_collect_errors":            {"": 0},
		"twinport_webhooks_total":            {"code=202,registry=eu": 2, "code=404,registry=": 1},
		"twinport_build_info":                {"version=1.2.3": 1},
		"twinport_replication_seconds_count": {"destination=us,route=prod": 2},
	} {
		if diff := cmp.Diff(want, got[name]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	jobs := got["twinport_jobs"]
	if len(jobs) != 5*len(replicator.Lanes) || jobs["lane=webhook,state=waiting"] != 3 || jobs["lane=sweep,state=failed"] != 1 || jobs["lane=manual,state=running"] != 0 {
		t.Errorf("twinport_jobs: %v", jobs)
	}
	for name, least := range map[string]float64{"twinport_source_seen_age_seconds": 60, "twinport_proof_age_seconds": 3600, "twinport_poll_age_seconds": 600} {
		for labels, v := range got[name] {
			if v < least || v > least+60 {
				t.Errorf("%s{%s} is %g", name, labels, v)
			}
		}
		if len(got[name]) != 1 { // unknown is absent, never 0
			t.Errorf("%s: %v", name, got[name])
		}
	}
}

// A journal that cannot be read shows in the scrape, and nothing is called fine.
func TestMetricsOfAnUnreadableJournal(t *testing.T) {
	m := NewMetrics("1")
	m.Collect(gauges{err: errors.New("disk")})
	got := gather(t, m)
	if got["twinport_collect_errors"][""] != 1 {
		t.Errorf("%v", got["twinport_collect_errors"])
	}
	for _, name := range []string{"twinport_lag_seconds", "twinport_rpo_state", "twinport_jobs", "twinport_findings_total"} {
		if len(got[name]) != 0 {
			t.Errorf("%s: %v", name, got[name])
		}
	}
}

func TestTheMetricsPage(t *testing.T) {
	m := NewMetrics("1")
	m.Collect(gauges{})
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), "# HELP twinport_jobs ") {
		t.Errorf("%d %.300s", w.Code, w.Body)
	}
	for _, name := range slices.Sorted(maps.Keys(gather(t, m))) {
		if !strings.HasPrefix(name, "twinport_") && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("a metric named %s", name)
		}
	}
}
