package acr_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/providers/acr"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/intake"
)

func fixture(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "events", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	image = "sha256:965aa447b1307600f801f28039133a7d2249ba09afec2bce5fbd2dd6773341f2"
	index = "sha256:7ad9ba3f6e6ec242686cb59a2e4628b3ea886f8d1e74715d922b983cd19e8601"
	gone  = "sha256:6123768aef91263b11986c3147d54e36bc48b28c7ce75dc1563e8e6e53efe527"
)

func TestWebhook(t *testing.T) {
	const docker, oci = "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.index.v1+json"
	push := replicator.Event{
		Action: replicator.Push, Repository: "team/app", Tag: "v1.4.2", Digest: image, MediaType: docker,
		PushedAt: time.Date(2026, 5, 14, 9, 21, 37, 118243512, time.UTC), SenderTime: true,
	}
	pushIndex := push
	pushIndex.Digest, pushIndex.MediaType = index, oci
	removed := replicator.Event{
		Action: replicator.Delete, Repository: "team/app", Digest: gone, MediaType: docker,
		PushedAt: time.Date(2026, 5, 14, 10, 2, 11, 657764628, time.UTC), SenderTime: true,
	}
	want := map[string]replicator.Decoded{
		"acr-webhook-push.json":                     {Events: []replicator.Event{push}},
		"acr-webhook-push-oci-index.json":           {Events: []replicator.Event{pushIndex}},
		"acr-webhook-delete.json":                   {Events: []replicator.Event{removed}},
		"acr-webhook-chart-push.json":               {Ignored: 1},
		"acr-webhook-chart-delete.json":             {Ignored: 1},
		"acr-webhook-quarantine.json":               {Ignored: 1},
		"acr-webhook-ping.json":                     {Ping: true},
		"acr-eventgrid-push.json":                   {Events: []replicator.Event{push}},
		"acr-eventgrid-cloudevents-push.json":       {Events: []replicator.Event{push}},
		"acr-eventgrid-cloudevents-delete.json":     {Events: []replicator.Event{removed}},
		"acr-eventgrid-cloudevents-batch.json":      {Events: []replicator.Event{push, removed}},
		"acr-eventgrid-cloudevents-chart-push.json": {Ignored: 1},
		"acr-eventgrid-validation.json": {
			Ping: true, Answer: []byte(`{"validationResponse":"512D38B6-C7B8-40C8-89FE-F46F9E9622B6"}`),
		},
	}
	files, err := filepath.Glob("testdata/events/*.json")
	if err != nil || len(files) != len(want) {
		t.Fatalf("%d fixtures, want %d: %v", len(files), len(want), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if diff := cmp.Diff(want[name], acr.Webhook{}.Decode(nil, fixture(t, name))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for _, body := range []string{
		`{}`, `[]`, `[1]`, `null`, `{"action":"melt"}`, `{"eventType":"Microsoft.Storage.BlobCreated","data":{}}`,
		`{"specversion":"1.0","type":"Microsoft.ContainerRegistry.ImagePushed","data":"x"}`,
		`[{"eventType":"Microsoft.EventGrid.SubscriptionValidationEvent","data":{}}]`,
	} {
		if d := (acr.Webhook{}).Decode(nil, []byte(body)); len(d.Events) > 0 || d.Ping || d.Unusable == 0 && body != `[]` {
			t.Errorf("%s: %+v, want unusable", body, d)
		}
	}
}

// door is an intake that lets in who shows the secret.
func door(t *testing.T, events *[]replicator.Event) *httptest.Server {
	t.Helper()
	in := intake.New(intake.Options{Accept: func(_ context.Context, e []replicator.Event, _ []replicator.Finding, _ []string) (int, error) {
		*events = append(*events, e...)
		return len(e), nil
	}})
	in.Swap([]intake.Registry{{Name: "eu", Decoder: acr.Webhook{}, Secrets: []func() (string, error){secret("s3cr3t-hook")}}})
	server := httptest.NewServer(in)
	t.Cleanup(server.Close)
	return server
}

func TestHandshakes(t *testing.T) {
	var events []replicator.Event
	server := door(t, &events)
	ask := func(method, key, origin string, body []byte) (int, http.Header, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/hooks/eu?key="+key, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if origin != "" {
			req.Header.Set("WebHook-Request-Origin", origin)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header, string(answer)
	}
	for _, c := range []struct {
		key, origin string
		want        int
	}{
		{"s3cr3t-hook", "eventgrid.azure.net", http.StatusOK},
		{"s3cr3t-hook", "evil.example", http.StatusForbidden},
		{"s3cr3t-hooK", "eventgrid.azure.net", http.StatusUnauthorized},
		{"s3cr3t-hook", "", http.StatusMethodNotAllowed},
	} {
		status, header, _ := ask(http.MethodOptions, c.key, c.origin, nil)
		allowed := header.Get("WebHook-Allowed-Origin")
		if status != c.want || (allowed == c.origin) != (c.want == http.StatusOK) && c.origin != "" {
			t.Errorf("origin %q: %d, allowed %q, want %d", c.origin, status, allowed, c.want)
		}
	}
	if status, _, _ := ask(http.MethodPost, "wrong", "", fixture(t, "acr-eventgrid-validation.json")); status != http.StatusUnauthorized {
		t.Errorf("validation with a wrong secret: %d", status)
	}
	status, _, answer := ask(http.MethodPost, "s3cr3t-hook", "", fixture(t, "acr-eventgrid-validation.json"))
	if status != http.StatusOK || answer != `{"validationResponse":"512D38B6-C7B8-40C8-89FE-F46F9E9622B6"}` {
		t.Errorf("validation: %d %s", status, answer)
	}
	if len(events) > 0 {
		t.Errorf("handshakes made events: %+v", events)
	}
}

func FuzzWebhook(f *testing.F) {
	files, err := filepath.Glob("testdata/events/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		d := acr.Webhook{}.Decode(nil, body)
		if len(d.Events) > replicator.MaxWebhookEvents || len(d.Answer) > 4096 {
			t.Fatalf("%d events, answer of %d bytes", len(d.Events), len(d.Answer))
		}
	})
}

// TestFakeTells: the fake's events are the webhook's.
func TestFakeTells(t *testing.T) {
	var told [][]byte
	spec := world(t, &providertest.ACR{Told: func(event []byte) { told = append(told, event) }})
	providertest.RunTold(t, open(t, spec).Repository("team/app"), "team/app", func() [][]byte { return told },
		func(body []byte) replicator.Decoded { return acr.Webhook{}.Decode(nil, body) })
}
