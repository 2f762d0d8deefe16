package intake_test

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinport/twinport/providers/artifactory"
	"github.com/twinport/twinport/providers/nexus"
	"github.com/twinport/twinport/replicator/intake"
)

// eventHeaders are what a sender of a sample tells beside it.
func eventHeaders(file string) map[string]string {
	name := filepath.Base(file)
	switch {
	case strings.HasPrefix(name, "github-ping"):
		return map[string]string{"X-GitHub-Event": "ping"}
	case strings.HasPrefix(name, "ghcr-registry-package"):
		return map[string]string{"X-GitHub-Event": "registry_package"}
	case strings.HasPrefix(name, "ghcr-"):
		return map[string]string{"X-GitHub-Event": "package"}
	case strings.HasPrefix(name, "gitea-"):
		return map[string]string{"X-Gitea-Event": "package"}
	case strings.HasPrefix(name, "nexus-component"):
		return map[string]string{"X-Nexus-Webhook-Id": "rm:repository:component"}
	case strings.HasPrefix(name, "nexus-asset"):
		return map[string]string{"X-Nexus-Webhook-Id": "rm:repository:asset"}
	}
	return nil
}

const fixtureSecret = "fixture-secret"

func mac(with func() hash.Hash, body []byte) string {
	m := hmac.New(with, []byte(fixtureSecret))
	m.Write(body)
	return hex.EncodeToString(m.Sum(nil))
}

// given are signatures that come with the samples.
var given = map[string]string{
	"ghcr-package-published.json":    "sha256=b6817ca61b9a7400f658f84e1ab813c84e6bc1d8372972ed704d1c4518e9acb9",
	"github-ping.json":               "sha256=f9a02b4ff41fba7010b8647666d63e39159632ef75c350c98b918c50dacb4d3a",
	"gitea-package.json":             "54c52853b370068866fa19ba40d155b11ca8167754c749076b60fd2ed74f23a7",
	"artifactory-docker-pushed.json": "0ccc863185ea53f24c1c61174446a7c86f653e5e8faa9326130b51edc60f9bfa",
	"nexus-component-created.json":   "cbb9d22510c578be02a2eff6d41db4da5cfb78a5",
}

// TestSenderSignatures sends every sample of those who sign as they sign: it is
// taken, and refused with one byte of signature or body changed, without a
// signature, and with another kind's.
func TestSenderSignatures(t *testing.T) {
	for _, kind := range []struct {
		name, pattern, header, prefix string
		with                          func() hash.Hash
	}{
		{"ghcr", "events/gh*.json", "X-Hub-Signature-256", "sha256=", sha256.New},
		{"ghcr", "events/github-*.json", "X-Hub-Signature-256", "sha256=", sha256.New},
		{"gitea", "events/gitea-*.json", "X-Gitea-Signature", "", sha256.New},
		{"gitea", "events/gitea-*.json", "X-Forgejo-Signature", "", sha256.New},
		{"artifactory", "events/artifactory-*.json", "X-JFrog-Event-Auth", "", sha256.New},
		{"nexus", "events/nexus-*.json", "X-Nexus-Webhook-Signature", "", sha1.New},
	} {
		for _, file := range files(t, kind.pattern) {
			body := read(t, file)
			signature := kind.prefix + mac(kind.with, body)
			if want, ok := given[filepath.Base(file)]; ok && want != signature {
				t.Errorf("%s: signature %s, want %s", file, signature, want)
			}
			in, _ := door(
				intake.Registry{Name: "eu", Decoder: decoders[kind.name], Secrets: secrets("another", fixtureSecret)},
				intake.Registry{Name: "other", Decoder: decoders["zot"], Secrets: secrets(fixtureSecret)},
			)
			ask := func(to, signature string, body []byte) int {
				req := post("/hooks/"+to, string(body))
				for name, value := range eventHeaders(file) {
					req.Header.Set(name, value)
				}
				if signature != "" {
					req.Header.Set(kind.header, signature)
				}
				return send(in, req).Code
			}
			wrong := []byte(signature)
			wrong[len(wrong)-1] ^= 1
			changed := bytes.Clone(body)
			changed[len(changed)/2] ^= 1
			if code := ask("eu", signature, body); code/100 != 2 {
				t.Errorf("%s: %d", file, code)
			}
			for what, code := range map[string]int{
				"a wrong signature": ask("eu", string(wrong), body), "a changed body": ask("eu", signature, changed),
				"no signature": ask("eu", "", body), "half a signature": ask("eu", signature[:len(signature)/2], body),
			} {
				if code != http.StatusUnauthorized {
					t.Errorf("%s with %s: %d", file, what, code)
				}
			}
			if own := kind.name == "nexus" || kind.name == "artifactory"; own && ask("other", signature, body) != http.StatusUnauthorized {
				t.Errorf("%s: another kind is let in by %s", file, kind.header)
			}
		}
	}
}

// TestClearSecretOfArtifactory: the header holds the secret itself where the
// webhook does not sign.
func TestClearSecretOfArtifactory(t *testing.T) {
	in, kept := door(intake.Registry{Name: "eu", Decoder: decoders["artifactory"], Secrets: secrets(fixtureSecret)})
	body := string(read(t, "testdata/events/artifactory-docker-pushed.json"))
	if w := send(in, post("/hooks/eu", body, "X-JFrog-Event-Auth", fixtureSecret)); w.Code != 202 || len(kept.events) != 1 {
		t.Errorf("%d, %d events", w.Code, len(kept.events))
	}
	if w := send(in, post("/hooks/eu", body, "X-JFrog-Event-Auth", "fixture-secreT")); w.Code != 401 {
		t.Errorf("a wrong one: %d", w.Code)
	}
}

// TestCapturedSignatures: what Gitea really sent verifies, and does no more with
// one byte changed.
func TestCapturedSignatures(t *testing.T) {
	for _, file := range files(t, "captured/gitea-*/*.http") {
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(read(t, file))))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Fatal(err)
		}
		in, kept := door(intake.Registry{Name: "eu", Decoder: decoders["gitea"], Secrets: secrets("example-secret")})
		ask := func(body []byte) int {
			again := post("/hooks/eu", string(body))
			again.Header = req.Header.Clone()
			again.Header.Del("Authorization")
			return send(in, again).Code
		}
		if code := ask(body); code != 202 || len(kept.events) != 1 {
			t.Errorf("%s: %d, %d events", file, code, len(kept.events))
		}
		body[len(body)/2] ^= 1
		if code := ask(body); code != 401 {
			t.Errorf("%s changed: %d", file, code)
		}
	}
}

// TestForm: GitHub signs the form it sends, not the JSON inside.
func TestForm(t *testing.T) {
	payload := read(t, "testdata/events/ghcr-package-published.json")
	form := "payload=" + url.QueryEscape(string(payload))
	signed := func(body string) *http.Request {
		return post("/hooks/eu", body, "Content-Type", "application/x-www-form-urlencoded; charset=utf-8", "X-GitHub-Event", "package",
			"X-Hub-Signature-256", "sha256="+mac(sha256.New, []byte(form)))
	}
	in, kept := door(
		intake.Registry{Name: "eu", Decoder: decoders["ghcr"], Secrets: secrets(fixtureSecret)},
	)
	if w := send(in, signed(form)); w.Code != 202 || len(kept.events) != 1 || kept.events[0].Tag != "v1.4.2" {
		t.Errorf("%d, %v", w.Code, kept.events)
	}
	if w := send(in, signed(form+"&x=1")); w.Code != 401 {
		t.Errorf("changed: %d", w.Code)
	}
	for _, body := range []string{"payload=", "payload=%7B", "other=1", "%zz"} {
		in, _ := door(intake.Registry{Name: "eu", Decoder: decoders["ghcr"]})
		if w := send(in, post("/hooks/eu", body, "Content-Type", "application/x-www-form-urlencoded")); w.Code != 400 {
			t.Errorf("form %q: %d", body, w.Code)
		}
	}
}

// TestNamesByAddress: the name that an event tells is the one that the registry's
// address makes of it.
func TestNamesByAddress(t *testing.T) {
	nexusEvent, jfrogEvent := "testdata/events/nexus-component-created.json", "testdata/events/artifactory-docker-pushed.json"
	for name, c := range map[string]struct {
		file, prefix, host string
		want               string // empty: ignored
	}{
		"a connector of its own":          {nexusEvent, "", "", "team/app"},
		"a connector with a prefix":       {nexusEvent, "team", "", "app"},
		"path routing":                    {nexusEvent, "docker-hosted", "", "team/app"},
		"path routing with a prefix":      {nexusEvent, "docker-hosted/team", "", "app"},
		"path routing, another's event":   {nexusEvent, "docker-other", "", ""},
		"the whole of artifactory":        {jfrogEvent, "", "acme.jfrog.io", "docker-local/team/app"},
		"one repository of artifactory":   {jfrogEvent, "docker-local", "acme.jfrog.io", "team/app"},
		"another repository":              {jfrogEvent, "docker-prod-local", "acme.jfrog.io", ""},
		"a host of its own":               {jfrogEvent, "", "docker-local.acme.example", "team/app"},
		"a host of its own, in the cloud": {jfrogEvent, "team", "acme-docker-local.jfrog.io", "app"},
	} {
		decoder := intake.Decoder(nexus.Webhook{Prefix: c.prefix})
		if c.file == jfrogEvent {
			decoder = artifactory.Webhook{Host: c.host}
		}
		in, kept := door(intake.Registry{Name: "eu", Prefix: c.prefix, Decoder: decoder})
		send(in, post("/hooks/eu", string(read(t, c.file))))
		got := ""
		if len(kept.events) > 0 {
			got = kept.events[0].Repository
		}
		if got != c.want || len(kept.findings) > 0 {
			t.Errorf("%s: %q, want %q; findings %v", name, got, c.want, kept.findings)
		}
	}
}
