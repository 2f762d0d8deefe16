package intake_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/intake"
)

var update = flag.Bool("update", false, "write testdata/golden.txt anew")

// TestFixtures sends every captured and sample request over a connection and
// holds what was accepted against testdata/golden.txt: per file the answer's
// status and counts, then a line per event and finding.
func TestFixtures(t *testing.T) {
	var got strings.Builder
	sent := make(map[string]bool)
	for _, pattern := range []string{
		"captured/[dgz]*/*.http", "events/distribution-*.json", "events/harbor-*.json", "events/zot-*.json", "events/gitlab-*.json",
		"events/quay-*.json", "events/gh*.json", "events/git[eh]*.json", "events/dockerhub-*.json", "events/artifactory-*.json", "events/nexus-*.json",
	} {
		for _, file := range files(t, pattern) {
			tell(t, &got, file, request(t, file))
			sent[file] = true
		}
	}
	for _, dir := range []string{"captured", "events"} {
		err := filepath.WalkDir(filepath.Join("testdata", dir), func(file string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && !sent[file] {
				t.Errorf("%s: nothing is expected of it", file)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	golden := filepath.Join("testdata", "golden.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(strings.Split(string(read(t, golden)), "\n"), strings.Split(got.String(), "\n")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// request gives a fixture as a raw request.
func request(t *testing.T, file string) []byte {
	content := read(t, file)
	if strings.HasSuffix(file, ".http") {
		return content
	}
	headers := "Authorization: example-shared-secret\r\nContent-Type: application/json\r\n"
	if strings.Contains(file, "zot-http-binary") {
		headers += "Ce-Id: 1\r\nCe-Type: zotregistry.image.updated\r\nCe-Source: zotregistry.dev\r\nCe-Specversion: 1.0\r\nCe-Time: 2026-05-14T09:21:37.204111Z\r\n"
	}
	for name, value := range eventHeaders(file) {
		headers += name + ": " + value + "\r\n"
	}
	return fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: twinport\r\n%sContent-Length: %d\r\n\r\n%s", headers, len(content), content)
}

func tell(t *testing.T, to *strings.Builder, file string, req []byte) {
	t.Helper()
	kind, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(file, "testdata/captured/"), "testdata/events/"), "-")
	in, kept := door(intake.Registry{Name: "eu", Decoder: decoders[kind], Secrets: secrets("example-shared-secret", "example")})
	server := httptest.NewServer(in)
	defer server.Close()
	status, body := raw(t, server.Listener.Addr().String(), "/hooks/eu", req)
	var c counts
	if err := json.Unmarshal(body, &c); err != nil {
		t.Errorf("%s: %v", file, err)
	}
	fmt.Fprintf(to, "%s: %d accepted %d ignored %d\n", strings.TrimPrefix(file, "testdata/"), status, c.Accepted, c.Ignored)
	for _, e := range kept.events {
		if e.Registry != "eu" || e.Lane != replicator.LaneWebhook || e.Cause != "webhook" || !e.ReceivedAt.Equal(receipt) {
			t.Errorf("%s: event not filled in: %+v", file, e)
		}
		fmt.Fprintf(to, "  %s %s tag=%s digest=%s type=%s at=%s", e.Action, e.Repository, e.Tag, e.Digest, e.MediaType, e.PushedAt.Format(time.RFC3339Nano))
		if !e.SenderTime {
			fmt.Fprint(to, " (ours)")
		}
		if e.MayRefer {
			fmt.Fprint(to, " may refer")
		}
		fmt.Fprintln(to)
	}
	for _, f := range kept.findings {
		fmt.Fprintf(to, "  %s: %s; due %v\n", f.Kind, f.Message, kept.due)
	}
	// Each was authenticated: with one byte of the secret changed it is not.
	forged := bytes.ReplaceAll(req, []byte("example-shared-secret"), []byte("example-shared-secreT"))
	forged = bytes.ReplaceAll(forged, []byte("aG9vazpleGFtcGxl"), []byte("aG9vazpleGFtcGxm"))
	forged = bytes.ReplaceAll(forged, []byte("Bearer example\r"), []byte("Bearer examplE\r"))
	if status, _ := raw(t, server.Listener.Addr().String(), "/hooks/eu", forged); status != http.StatusUnauthorized {
		t.Errorf("%s: %d with a wrong secret", file, status)
	}
}
