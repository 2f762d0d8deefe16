package integration

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// Blind is never green: with webhooks misconfigured and the sweep failing the
// RPO is unknown, and it is never met.
func TestABlindRouteIsUnknownNeverMet(t *testing.T) {
	t.Parallel()
	lists := harness.Is("", harness.Catalog, harness.TagList)
	w := build(t, setup{
		route:  []string{"sweep: 2s", "rpo: 5m"},
		source: harness.RegistryOptions{Notify: []harness.Endpoint{{URL: "http://127.0.0.1:1/hooks/eu"}}},
	})
	img := w.content.Image(harness.ImageSpec{})
	w.push("team/app", img, "v1")
	heal := w.proxy["eu"].Inject(harness.Fault{Match: lists, Status: 500})
	w.Start()
	w.WaitStatus("prod", "us", "unknown", soon, func(r harness.RouteStatus) bool {
		if r.State == "met" {
			t.Fatalf("met while blind: %s", r)
		}
		return r.State == "unknown"
	})
	if r := w.Command("status"); r.Code != 1 || !strings.Contains(r.Stdout, "unknown") {
		t.Errorf("status ended with %d: %s", r.Code, r.Stdout)
	}
	heal()
	harness.WaitHas(t, w.us, "team/app", "v1", img, soon)
	w.WaitStatus("prod", "us", "met once it sees again", soon, func(r harness.RouteStatus) bool { return r.State == "met" && r.Settled() })
	// A sweep that a busy machine holds up for twice its interval makes it unknown for a while.
	harness.WaitFor(t, "status to end with 0", soon, func(context.Context) error {
		if r := w.Command("status"); r.Code != 0 {
			return fmt.Errorf("it ended with %d: %s", r.Code, r.Stdout)
		}
		return nil
	})
	w.proxy["eu"].Inject(harness.Fault{Match: lists, Status: 500})
	w.WaitStatus("prod", "us", "unknown again", soon, func(r harness.RouteStatus) bool { return r.State == "unknown" })
}

// `sweep: never` sees nothing by itself: its RPO is unknown though all is proven.
func TestWithoutSweepTheRPOIsUnknown(t *testing.T) {
	t.Parallel()
	w := start(t, setup{route: []string{"sweep: never", "rpo: 5m"}})
	img := w.content.Image(harness.ImageSpec{})
	w.push("team/app", img, "v1")
	harness.WaitHas(t, w.us, "team/app", "v1", img, soon)
	w.WaitSettled(soon)
	w.WaitStatus("prod", "us", "unknown", soon, func(r harness.RouteStatus) bool { return r.State == "unknown" })
}

// A tag pushed again and again to a dead destination: lag counts from the
// first push and does not begin anew; past the RPO it is missed.
func TestLagGrowsWhileATagIsPushedToADeadDestination(t *testing.T) {
	t.Parallel()
	w := start(t, setup{route: []string{"sweep: 1h", "rpo: 2s"}, direct: true})
	pushes := w.content.Variants(10)
	w.push("team/app", pushes[0], "prod")
	harness.WaitHas(t, w.us, "team/app", "prod", pushes[0], soon)
	w.WaitStatus("prod", "us", "met", soon, func(r harness.RouteStatus) bool { return r.Settled() && r.State == "met" })
	w.reg["us"].Stop()
	first := time.Now()
	last := 0.0
	for i, g := range pushes[1:] {
		w.push("team/app", g, "prod")
		target := float64(i+1) * 0.4
		line := w.WaitStatus("prod", "us", fmt.Sprintf("lag of %.1f s", target), soon, func(r harness.RouteStatus) bool {
			return r.Lag != nil && *r.Lag >= target
		})
		if *line.Lag < last {
			t.Errorf("lag fell from %.2f to %.2f with push %d", last, *line.Lag, i)
		}
		last = *line.Lag
		if limit := time.Since(first).Seconds() + 0.5; last > limit {
			t.Errorf("lag is %.2f s, %.2f s after the first push", last, limit)
		}
	}
	line := w.WaitStatus("prod", "us", "missed", soon, func(r harness.RouteStatus) bool { return r.State == "missed" })
	if line.Waiting+line.Running != 1 {
		t.Errorf("the pushes of one tag did not coalesce: %s", line)
	}
	harness.WaitFor(t, "the last push to be told and wanted", soon, func(context.Context) error {
		r := w.Command("status", "--behind", "--output", "json")
		var behind harness.Status
		decode(t, r, &behind)
		if r.Code != 1 || len(behind.Behind) != 1 {
			t.Fatalf("status --behind ended with %d: %s", r.Code, r.Stdout)
		}
		b := behind.Behind[0]
		if b.Repository != "team/app" || b.Tag != "prod" || b.Proven != pushes[0].Digest.String() || b.Why == "" {
			t.Fatalf("behind is %+v", b)
		}
		if b.Wanted != pushes[9].Digest.String() {
			return fmt.Errorf("%s is wanted, the last push is %s", b.Wanted, pushes[9].Digest)
		}
		return nil
	})
	w.reg["us"].Start()
	harness.WaitHas(t, w.us, "team/app", "prod", pushes[9], soon)
	w.WaitStatus("prod", "us", "met again", soon, func(r harness.RouteStatus) bool { return r.Settled() && r.State == "met" })
}

// P10: webhooks are authenticated, bounded, and answered as said.
func TestWebhookAnswers(t *testing.T) {
	t.Parallel()
	w := start(t, setup{silent: true})
	img := w.content.Image(harness.ImageSpec{})
	w.push("team/app", img, "v1")
	event := string(harness.PushEvent(w.reg["eu"].Addr, "team/app", "v1", img, time.Now()))
	secret := harness.Secret("eu")
	cases := []struct {
		name, path, auth, body string
		want                   int
	}{
		{"bearer", "/hooks/eu", "Bearer " + secret, event, 202},
		{"bare", "/hooks/eu", secret, event, 202},
		{"in the query", "/hooks/eu?key=" + secret, "", event, 202},
		{"no secret", "/hooks/eu", "", event, 401},
		{"wrong secret", "/hooks/eu", "Bearer " + secret + "x", event, 401},
		{"another registry's secret", "/hooks/eu", "Bearer " + harness.Secret("us"), event, 401},
		{"unknown registry", "/hooks/nowhere", "Bearer " + secret, event, 404},
		{"not JSON", "/hooks/eu", "Bearer " + secret, "{", 400},
		{"too large", "/hooks/eu", "Bearer " + secret, `{"events":[` + strings.Repeat(" ", 9<<20) + `]}`, 413},
		{"JSON that is no push", "/hooks/eu", "Bearer " + secret, `{"hello":"world"}`, 202},
		{"no events", "/hooks/eu", "Bearer " + secret, `{"events":[]}`, 202},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.Listen+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if c.auth != "" {
				req.Header.Set("Authorization", c.auth)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != c.want {
				t.Errorf("answered %d, want %d", resp.StatusCode, c.want)
			}
		})
	}
	harness.WaitHas(t, w.us, "team/app", "v1", img, soon)
	w.WaitSettled(soon)
	if strings.Contains(w.Log(), secret) {
		t.Error("the log shows a secret")
	}
	// What a webhook names must lie inside its registry: elsewhere nothing is read.
	requests := keep(w.proxy["us"])
	if code, _ := w.Post(t.Context(), "us", harness.PushEvent(w.reg["us"].Addr, "team/other", "v1", img, time.Now())); code != 202 {
		t.Errorf("a destination's own webhook was answered %d", code)
	}
	w.WaitSettled(soon)
	if rows := requests.of("team/other"); len(rows) > 0 {
		t.Errorf("requests for a webhook that concerns no route: %v", rows)
	}
	for _, path := range []string{"/metrics", "/api/v1/status"} {
		resp, err := http.Get("http://" + w.Listen + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s at the webhook address answered %d", path, resp.StatusCode)
		}
	}
}

// The metrics named in the documentation are there and move.
func TestMetricsTellWhatHappened(t *testing.T) {
	t.Parallel()
	w := start(t, setup{route: []string{"sweep: 1h", "rpo: 5m"}})
	img := w.content.Image(harness.ImageSpec{})
	w.push("team/app", img, "v1")
	harness.WaitHas(t, w.us, "team/app", "v1", img, soon)
	// And swept: some are absent before.
	w.WaitStatus("prod", "us", "green", soon, func(r harness.RouteStatus) bool { return r.Settled() && r.State == "met" })
	body := w.metrics(t)
	for _, want := range []string{
		`twinport_lag_seconds{destination="us",route="prod"} 0`,
		`twinport_rpo_state{`, `twinport_jobs{`, `twinport_copied_bytes_total{destination="us",route="prod"}`,
		`twinport_source_read_bytes_total{registry="eu"}`, `twinport_registry_requests_total{`,
		`twinport_replication_seconds_count`, `twinport_source_seen_age_seconds{route="prod"}`,
		`twinport_proof_age_seconds{`, `twinport_webhooks_total{`, `twinport_spool_bytes`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
}
