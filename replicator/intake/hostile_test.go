package intake_test

import (
	"bytes"
	"compress/gzip"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/intake"
)

func gzipped(t *testing.T, n int) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// forever is a body without end.
type forever struct{}

func (forever) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestHostileSenders: one hostile request per line, to several kinds of registry.
// None makes an event, each has its answer, and what it takes is bounded.
func TestHostileSenders(t *testing.T) {
	const mib = 1 << 20
	bomb := func(begin, piece, end string) string {
		return begin + strings.Repeat(piece, 2*mib/len(piece)) + end
	}
	for _, c := range []struct {
		name    string
		body    io.Reader
		headers []string
		want    int
	}{
		{"a gzip bomb", strings.NewReader(gzipped(t, 4*mib)), []string{"Content-Encoding", "gzip"}, 415},
		{"a gzip bomb that says nothing", strings.NewReader(gzipped(t, 4*mib)), nil, 400},
		{"a body without end", forever{}, nil, 413},
		{"a million events of nothing", strings.NewReader(bomb(`{"events":[`, `{},`, `{}]}`)), nil, 413},
		{"a million lists", strings.NewReader(bomb(`{"events":[`, `[],`, `[]]}`)), nil, 413},
		{"a million tags", strings.NewReader(bomb(`{"repository":"team/app","updated_tags":[`, `"",`, `""]}`)), nil, 413},
		{"a million resources", strings.NewReader(bomb(`{"type":"PUSH_ARTIFACT","event_data":{"resources":[`, `{},`, `{}]}}`)), nil, 413},
		{"depth", strings.NewReader(strings.Repeat("[", 300_000) + strings.Repeat("]", 300_000)), nil, 400},
		{"depth in a field", strings.NewReader(`{"events":` + strings.Repeat(`{"a":`, 150_000) + "1" + strings.Repeat("}", 150_000) + "}"), nil, 400},
		{"keys without end", strings.NewReader(bomb(`{`, `"a":1,`, `"b":1}`)), nil, 413},
		{"no text", strings.NewReader("\x00\xff\xfe"), nil, 400},
		{"two documents", strings.NewReader(`{}{}`), nil, 400},
	} {
		for _, kind := range []string{"distribution", "harbor", "quay", "github"} { // that read in ways of their own
			decoder := decoders[kind]
			t.Run(c.name+"/"+kind, func(t *testing.T) {
				in, kept := door(intake.Registry{Name: "eu", Decoder: decoder})
				body := c.body
				if seeker, ok := body.(io.Seeker); ok {
					_, _ = seeker.Seek(0, io.SeekStart)
				}
				req := httptest.NewRequest(http.MethodPost, "/hooks/eu", body)
				req.ContentLength = -1
				for i := 0; i+1 < len(c.headers); i += 2 {
					req.Header.Set(c.headers[i], c.headers[i+1])
				}
				var from, to runtime.MemStats
				runtime.ReadMemStats(&from)
				w := send(in, req)
				runtime.ReadMemStats(&to)
				if w.Code != c.want || len(kept.events) != 0 {
					t.Errorf("%d with %d events, want %d with none: %.200s", w.Code, len(kept.events), c.want, w.Body)
				}
				if due := len(kept.due) == 1 && len(kept.findings) == 1; due != (c.want == 413) {
					t.Errorf("due %v, findings %v", kept.due, kept.findings)
				}
				if took := to.TotalAlloc - from.TotalAlloc; took > 64*mib {
					t.Errorf("%d MiB were taken", took/mib)
				}
				var told struct{ Error string }
				if err := json.NewDecoder(w.Body).Decode(&told); err != nil || told.Error == "" {
					t.Errorf("it is not told why: %v", err)
				}
			})
		}
	}
}

// TestForgedAndReplayed: a request proves itself to the registry it was made
// for and for the body it was made for alone, and told again it says the same.
func TestForgedAndReplayed(t *testing.T) {
	in, kept := door(
		intake.Registry{Name: "eu", Decoder: decoders["github"], Secrets: secrets("eu-secret")},
		intake.Registry{Name: "us", Decoder: generic.Webhook{}, Secrets: secrets("us-secret")},
	)
	sign := func(secret, body string) string {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(body))
		return "sha256=" + hex.EncodeToString(mac.Sum(nil))
	}
	body := envelope(event("push", "team/app", "v1", digestA, ""))
	other := envelope(event("push", "team/evil", "v1", digestA, ""))
	const header = "X-Hub-Signature-256"
	for _, c := range []struct {
		name, path, body string
		headers          []string
		want, events     int
	}{
		{"as it was made", "/hooks/us", body, []string{header, sign("us-secret", body)}, 202, 1},
		{"again", "/hooks/us", body, []string{header, sign("us-secret", body)}, 202, 1},
		{"at another registry", "/hooks/eu", body, []string{header, sign("us-secret", body)}, 401, 0},
		{"another's secret", "/hooks/us", body, []string{"Authorization", "Bearer eu-secret"}, 401, 0},
		{"another body", "/hooks/us", other, []string{header, sign("us-secret", body)}, 401, 0},
		{"a signature by nothing", "/hooks/us", body, []string{header, sign("", body)}, 401, 0},
		{"an empty signature", "/hooks/us", body, []string{header, "sha256="}, 401, 0},
		{"a signature cut short", "/hooks/us", body, []string{header, sign("us-secret", body)[:40]}, 401, 0},
		{"a hundred signatures, the right one last", "/hooks/us", body, func() (h []string) {
			for i := range 100 {
				h = append(h, header, sign(fmt.Sprint("guess", i), body))
			}
			return append(h, header, sign("us-secret", body))
		}(), 401, 0},
		{"a path beside", "/hooks/us/../eu", body, []string{header, sign("us-secret", body)}, 404, 0},
		{"a path encoded", "/hooks/us%2f", body, []string{header, sign("us-secret", body)}, 404, 0},
		{"no registry", "/hooks/", body, []string{header, sign("us-secret", body)}, 404, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			kept.events = nil
			w := send(in, post(c.path, c.body, c.headers...))
			if w.Code != c.want || len(kept.events) != c.events {
				t.Errorf("%d with %d events, want %d with %d", w.Code, len(kept.events), c.want, c.events)
			}
			for _, e := range kept.events {
				if e.Registry != "us" || e.Repository != "team/app" {
					t.Errorf("event %+v", e)
				}
			}
		})
	}
}
