package intake_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/twinport/twinport/replicator/intake"
	"github.com/twinport/twinport/replicator/oci"
)

// FuzzWebhook sends any body with any type to each kind of registry: what is
// accepted is always well-formed and inside the registry, what is answered is
// always one of the answers of deploy/docs/webhooks.md.
func FuzzWebhook(f *testing.F) {
	for _, file := range files(f, "captured/*/*.http") {
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(read(f, file))))
		if err != nil {
			f.Fatal(err)
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(req.Header.Get("Ce-Type"), req.Header.Get("Ce-Time"), body)
	}
	for _, file := range files(f, "events/*.json") {
		f.Add("", "", read(f, file))
	}
	f.Fuzz(func(t *testing.T, kind, at string, body []byte) {
		// In one order: coverage has to be the same each time.
		for _, name := range []string{"distribution", "zot", "harbor", "quay", "ghcr", "dockerhub", "gitea", "nexus", "artifactory"} {
			decoder := decoders[name]
			in, kept := door(intake.Registry{Name: "eu", Prefix: "team", Decoder: decoder})
			req := post("/hooks/eu", string(body))
			if kind != "" {
				req.Header["Ce-Type"], req.Header["Ce-Time"] = []string{kind}, []string{at}
			}
			w := send(in, req)
			if valid := json.Valid(body); w.Code != map[bool]int{true: 202, false: 400}[valid] {
				t.Fatalf("%s: %d for a body that is JSON: %v", name, w.Code, valid)
			}
			for _, e := range kept.events {
				if oci.CheckRepository(e.Repository) != nil || (e.Tag == "" && e.Digest == "") ||
					(e.Tag != "" && oci.CheckTag(e.Tag) != nil) || (e.Digest != "" && oci.CheckDigest(e.Digest) != nil) ||
					e.Registry != "eu" || e.PushedAt.After(receipt) || e.PushedAt.IsZero() || len(e.MediaType) > 255 {
					t.Errorf("%s accepted %+v", name, e)
				}
			}
			for _, finding := range kept.findings {
				if len(finding.Message) > 500 || strings.ContainsAny(finding.Message, "\n\x00") {
					t.Errorf("%s: finding %q", name, finding.Message)
				}
			}
		}
	})
}
