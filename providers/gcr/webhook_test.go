package gcr_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/providers/gcr"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/intake"
)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "events", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	index = "sha256:7ad9ba3f6e6ec242686cb59a2e4628b3ea886f8d1e74715d922b983cd19e8601"
	image = "sha256:965aa447b1307600f801f28039133a7d2249ba09afec2bce5fbd2dd6773341f2"
	gone  = "sha256:6123768aef91263b11986c3147d54e36bc48b28c7ce75dc1563e8e6e53efe527"
)

func TestWebhook(t *testing.T) {
	const repository = "acme-prod/team/app"
	at := time.Date(2026, 5, 14, 9, 21, 38, 104e6, time.UTC)
	push := replicator.Event{Action: replicator.Push, Repository: repository, Tag: "v1.4.2", Digest: index, PushedAt: at, SenderTime: true}
	untimed := push
	untimed.PushedAt, untimed.SenderTime = time.Time{}, false
	want := map[string]replicator.Event{
		"gar-pubsub-push.json":                    push,
		"gar-pubsub-push-deadletter-attempt.json": push,
		"gar-pubsub-unwrapped-push.json":          untimed,
		"gcr-pubsub-push.json":                    push,
		"gar-pubsub-push-untagged.json":           {Action: replicator.Push, Repository: repository, Digest: image, PushedAt: at, SenderTime: true, MayRefer: true},
		"gar-pubsub-delete-tag.json":              {Action: replicator.Delete, Repository: repository, Tag: "v1.3.0", PushedAt: at, SenderTime: true},
		"gar-pubsub-delete-digest.json":           {Action: replicator.Delete, Repository: repository, Digest: gone, PushedAt: at, SenderTime: true},
	}
	files, err := filepath.Glob("testdata/events/*.json")
	if err != nil || len(files) != len(want) {
		t.Fatalf("%d fixtures, want %d: %v", len(files), len(want), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		host, other := "europe-west1-docker.pkg.dev", "eu.gcr.io"
		if strings.HasPrefix(name, "gcr-") {
			host, other = other, host
		}
		d := gcr.Webhook{Host: host}.Decode(nil, fixture(t, name))
		if diff := cmp.Diff(replicator.Decoded{Events: []replicator.Event{want[name]}}, d); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		d = gcr.Webhook{Host: other}.Decode(nil, fixture(t, name))
		if diff := cmp.Diff(replicator.Decoded{Ignored: 1}, d); diff != "" {
			t.Errorf("%s, of another registry (-want +got):\n%s", name, diff)
		}
	}
	header := http.Header{"X-Goog-Pubsub-Publish-Time": {"2026-05-14T09:21:38.104Z"}}
	if d := (gcr.Webhook{}).Decode(header, fixture(t, "gar-pubsub-unwrapped-push.json")); len(d.Events) != 1 || !d.Events[0].PushedAt.Equal(at) {
		t.Errorf("with metadata in headers: %+v", d)
	}
	for _, body := range []string{
		`{}`, `[]`, `null`, `{"message":{"data":"!"}}`, `{"message":{"data":"e30="}}`, `{"action":"MELT"}`, `{"action":"INSERT"}`,
		`{"action":"INSERT","digest":"nothing"}`, `{"action":"INSERT","tag":"host:80/app"}`,
		`{"action":"INSERT","digest":"h/a@sha256:x","tag":"h/b:v1"}`,
	} {
		if d := (gcr.Webhook{}).Decode(nil, []byte(body)); len(d.Events) > 0 || d.Unusable == 0 {
			t.Errorf("%s: %+v, want unusable", body, d)
		}
	}
}

// google signs tokens and serves its keys.
type google struct {
	t       *testing.T
	key     *rsa.PrivateKey
	fetches int
	down    bool
}

func newGoogle(t *testing.T) *google {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return &google{t: t, key: key}
}

func (g *google) RoundTrip(req *http.Request) (*http.Response, error) {
	g.fetches++
	if g.down || req.URL.String() != "https://www.googleapis.com/oauth2/v3/certs" {
		return nil, errors.New("no answer")
	}
	w := httptest.NewRecorder()
	part := base64.RawURLEncoding.EncodeToString
	_ = json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{
		"kty": "RSA", "alg": "RS256", "kid": "k1", "use": "sig",
		"n": part(g.key.N.Bytes()), "e": part(big.NewInt(int64(g.key.E)).Bytes()),
	}}})
	return w.Result(), nil
}

const (
	audience = "https://twinport.example.com/hooks/eu"
	email    = "pubsub@acme-prod.iam.gserviceaccount.com"
)

// token signs claims that are right but for the changes.
func (g *google) token(head map[string]any, changed map[string]any) string {
	g.t.Helper()
	now := time.Now()
	header := map[string]any{"alg": "RS256", "kid": "k1", "typ": "JWT"}
	claims := map[string]any{
		"iss": "https://accounts.google.com", "aud": audience, "email": email, "email_verified": true, "sub": "1",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	maps.Copy(header, head)
	maps.Copy(claims, changed)
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			g.t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	signed := part(header) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, g.key, crypto.SHA256, sum[:])
	if err != nil {
		g.t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

func TestVerifier(t *testing.T) {
	g := newGoogle(t)
	v := &gcr.Verifier{Audience: audience, Email: email, Client: &http.Client{Transport: g}}
	right := g.token(nil, nil)
	now := time.Now()
	changed := []byte(right)
	last := bytes.LastIndexByte(changed, '.') + 5
	changed[last] ^= 1
	none := g.token(map[string]any{"alg": "none"}, nil)
	cases := map[string]struct {
		token string
		want  bool
	}{
		"right":                {right, true},
		"issuer without https": {g.token(nil, map[string]any{"iss": "accounts.google.com"}), true},
		"signature changed":    {string(changed), false},
		"another's signature":  {newGoogle(t).token(nil, nil), false},
		"no signature":         {none[:strings.LastIndexByte(none, '.')+1], false},
		"HMAC":                 {g.token(map[string]any{"alg": "HS256"}, nil), false},
		"unknown key":          {g.token(map[string]any{"kid": "k2"}, nil), false},
		"expired":              {g.token(nil, map[string]any{"exp": now.Add(-2 * time.Minute).Unix()}), false},
		"of the future":        {g.token(nil, map[string]any{"iat": now.Add(5 * time.Minute).Unix()}), false},
		"another audience":     {g.token(nil, map[string]any{"aud": audience + "2"}), false},
		"another issuer":       {g.token(nil, map[string]any{"iss": "https://accounts.example.com"}), false},
		"another's e-mail":     {g.token(nil, map[string]any{"email": "eve@example.com"}), false},
		"e-mail not verified":  {g.token(nil, map[string]any{"email_verified": false}), false},
		"no token":             {"", false},
		"nonsense":             {"a.b.c", false},
	}
	for name, c := range cases {
		got, err := v.Verify(t.Context(), bearer(c.token))
		if err != nil || got != c.want {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
	if g.fetches > 2 {
		t.Errorf("keys fetched %d times", g.fetches)
	}
	g.down = true
	if ok, err := v.Verify(t.Context(), bearer(right)); !ok || err != nil {
		t.Errorf("with keys at hand: %v, %v", ok, err)
	}
	cold := &gcr.Verifier{Audience: audience, Email: email, Client: &http.Client{Transport: g}}
	for range 3 {
		if ok, err := cold.Verify(t.Context(), bearer(right)); ok || err == nil {
			t.Errorf("without keys: %v, %v, want an error", ok, err)
		}
	}
	if ok, err := (&gcr.Verifier{}).Verify(t.Context(), bearer(g.token(nil, map[string]any{"aud": "", "email": ""}))); ok || err != nil {
		t.Errorf("nothing configured: %v, %v", ok, err)
	}
}

func TestDoor(t *testing.T) {
	g := newGoogle(t)
	v := &gcr.Verifier{Audience: audience, Email: email, Client: &http.Client{Transport: g}}
	accepted := 0
	in := intake.New(intake.Options{Accept: func(_ context.Context, e []replicator.Event, _ []replicator.Finding, _ []string) (int, error) {
		accepted += len(e)
		return len(e), nil
	}})
	in.Swap([]intake.Registry{{Name: "eu", Decoder: gcr.Webhook{}, Verify: v.Verify, Prefix: "acme-prod/team"}})
	send := func(token string) int {
		req := httptest.NewRequest(http.MethodPost, "/hooks/eu", bytes.NewReader(fixture(t, "gar-pubsub-push.json")))
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		in.ServeHTTP(w, req)
		return w.Code
	}
	g.down = true
	if code := send(g.token(nil, nil)); code != http.StatusServiceUnavailable {
		t.Errorf("keys out of reach: %d", code)
	}
	g.down = false
	v = &gcr.Verifier{Audience: audience, Email: email, Client: &http.Client{Transport: g}}
	in.Swap([]intake.Registry{{Name: "eu", Decoder: gcr.Webhook{}, Verify: v.Verify, Prefix: "acme-prod/team"}})
	if code := send(""); code != http.StatusUnauthorized {
		t.Errorf("no token: %d", code)
	}
	if code := send(g.token(nil, map[string]any{"aud": "another"})); code != http.StatusUnauthorized || accepted != 0 {
		t.Errorf("another audience: %d, %d accepted", code, accepted)
	}
	if code := send(g.token(nil, nil)); code != http.StatusAccepted || accepted != 1 {
		t.Errorf("right token: %d, %d accepted", code, accepted)
	}
}

func FuzzWebhook(f *testing.F) {
	files, err := filepath.Glob("testdata/events/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		f.Add(fixture(f, filepath.Base(file)))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if d := (gcr.Webhook{}).Decode(nil, body); len(d.Events) > 1 {
			t.Fatalf("%d events of one message", len(d.Events))
		}
	})
}

// TestFakeTells: the fake publishes what Artifact Registry does.
func TestFakeTells(t *testing.T) {
	var told [][]byte
	spec := world(t, &providertest.Google{Told: func(data []byte) { told = append(told, data) }})
	hook := gcr.Webhook{Host: spec.Host}
	providertest.RunTold(t, open(t, spec).Repository("app"), "acme-prod/team/app", func() [][]byte { return told },
		func(body []byte) replicator.Decoded { return hook.Decode(http.Header{}, body) })
}
