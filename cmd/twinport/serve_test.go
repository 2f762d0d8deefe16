package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator/daemon"
)

// serving runs `twinport serve` until the test ends, and gives its note.
func (b *bench) serving() daemon.Note {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"serve", "--config", b.config}) }()
	b.Cleanup(func() {
		cancel()
		select {
		case code := <-ended:
			if code != exitDone {
				b.Errorf("serve: exit %d", code)
			}
		case <-time.After(30 * time.Second):
			b.Error("serve does not end")
		}
	})
	var note daemon.Note
	b.until("the daemon listens", func() bool {
		var err error
		note, err = daemon.ReadNote(filepath.Join(b.dir, "data"))
		return err == nil
	})
	return note
}

// until waits for what happens in other goroutines.
func (b *bench) until(what string, happened func() bool) {
	b.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !happened() {
		select {
		case <-deadline:
			b.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

func (b *bench) answer(method, url, body string) (code int, text string) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), method, url, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	return resp.StatusCode, string(page)
}

func TestServeAnswersAtItsAddresses(t *testing.T) {
	b := newBench(t, starRoute, "eu", "us")
	d := b.image("eu", "team/app", "v1", "one")
	note := b.serving()
	public, admin := "http://"+note.Listen, "http://"+note.Admin
	for _, test := range []struct {
		method, url, body string
		code              int
	}{
		{"GET", public + "/healthz", "", 200},
		{"GET", public + "/readyz", "", 200},
		{"GET", admin + "/healthz", "", 200},
		{"GET", admin + "/readyz", "", 200},
		{"GET", public + "/metrics", "", 404},
		{"GET", public + "/api/v1/status", "", 404},
		{"GET", admin + "/api/v1/status", "", 200},
		{"GET", admin + "/api/v1/status?behind=true", "", 200},
		{"GET", admin + "/api/v1/jobs", "", 200},
		{"GET", admin + "/api/v1/jobs/nope", "", 404},
		{"GET", admin + "/api/v1/findings", "", 200},
		{"GET", admin + "/api/v1/findings?kind=nope", "", 400},
		{"GET", admin + "/api/v1/history?reference=us/team/app:v1", "", 200},
		{"GET", admin + "/api/v1/history", "", 400},
		{"GET", admin + "/api/v1/nope", "", 404},
		{"DELETE", admin + "/api/v1/status", "", 405},
		{"GET", admin + "/api/v1/sync", "", 405},
		{"POST", public + "/hooks/eu", "{}", 202},
		{"POST", public + "/hooks/eu", "no JSON", 400},
		{"POST", public + "/hooks/nope", "{}", 404},
		{"GET", public + "/hooks/eu", "", 405},
	} {
		if code, text := b.answer(test.method, test.url, test.body); code != test.code {
			t.Errorf("%s %s: %d, want %d\n%s", test.method, test.url, code, test.code, text)
		}
	}
	b.until("the sweep at start has brought the image", func() bool { return b.registries["us"].Tags("team/app")["v1"] == d })

	// Commands go through the daemon that has the data directory.
	if status := b.json(exitDone, "status"); status["daemon"] == nil {
		t.Errorf("status %v", status)
	}
	b.ends(exitDone, "sync", "prod")
	b.ends(exitDone, "pause", "prod")
	b.ends(exitDone, "resume", "prod")
	b.ends(exitUsage, "pause", "nope")
	b.ends(exitUsage, "sync", "nope")
	b.ends(exitFailed, "jobs", "show", "nope")
	b.ends(exitDone, "verify", "--deep")
	if _, stderr := b.ends(exitFailed, "serve"); !strings.Contains(stderr, "in use by another twinport") {
		t.Errorf("a second daemon on the directory: %s", stderr)
	}

	_, metrics := b.answer("GET", admin+"/metrics", "")
	for _, name := range []string{
		`twinport_lag_seconds{destination="us",route="prod"}`,
		`twinport_rpo_state{destination="us",route="prod",state="met"} 1`,
		`twinport_jobs{lane="webhook",state="waiting"} 0`,
		`twinport_copied_bytes_total{destination="us",route="prod"}`,
		`twinport_source_read_bytes_total{registry="eu"}`,
		`twinport_registry_requests_total{code="200",operation=`,
		`twinport_replication_seconds_count{destination="us",route="prod"} 1`,
		`twinport_source_seen_age_seconds{route="prod"}`,
		`twinport_proof_age_seconds{destination="us",route="prod"}`,
		`twinport_findings_total{kind="unusable-event"}`,
		`twinport_spool_bytes 0`,
		`twinport_webhooks_total{code="202",registry="eu"}`,
	} {
		if !strings.Contains(metrics, name) {
			t.Errorf("no metric %s", name)
		}
	}
}

func TestABadConfigChangesNothingAndIsAFinding(t *testing.T) {
	b := newBench(t, starRoute, "eu", "us")
	good, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	note := b.serving()
	b.write(string(good) + "nope: 1\n")
	var page struct {
		Findings []struct{ Message string }
	}
	b.until("the refusal is a finding", func() bool {
		_, text := b.answer("GET", "http://"+note.Admin+"/api/v1/findings?kind=config", "")
		return json.Unmarshal([]byte(text), &page) == nil && len(page.Findings) == 1
	})
	if !strings.Contains(page.Findings[0].Message, "nope") {
		t.Errorf("finding %+v", page.Findings[0])
	}
	b.write(strings.ReplaceAll(string(good), "name: prod", "name: other"))
	b.until("a good config is taken", func() bool {
		_, text := b.answer("GET", "http://"+note.Admin+"/api/v1/status", "")
		return strings.Contains(text, `"route": "other"`)
	})
}
