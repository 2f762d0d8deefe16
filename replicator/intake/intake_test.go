package intake_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/intake"
)

const (
	digestA = "sha256:965aa447b1307600f801f28039133a7d2249ba09afec2bce5fbd2dd6773341f2"
	digestB = "sha256:7ad9ba3f6e6ec242686cb59a2e4628b3ea886f8d1e74715d922b983cd19e8601"
)

// event is one of distribution's, envelope puts some together.
func event(action, repository, tag, digest, at string) string {
	return fmt.Sprintf(`{"action":%q,"timestamp":%q,"target":{"repository":%q,"tag":%q,"digest":%q}}`, action, at, repository, tag, digest)
}

func envelope(events ...string) string { return `{"events":[` + strings.Join(events, ",") + `]}` }

var onePush = envelope(event("push", "team/app", "v1", digestA, "2026-11-22T11:59:59Z"))

func TestAnswers(t *testing.T) {
	big := `{"events":[],"pad":"` + strings.Repeat("x", 8<<20) + `"}`
	for name, c := range map[string]struct {
		req    *http.Request
		want   int
		counts counts
		find   bool // a finding, and a sweep is due
	}{
		"push":                      {post("/hooks/eu", onePush), 202, counts{1, 0}, false},
		"no push":                   {post("/hooks/eu", envelope(event("pull", "team/app", "v1", digestA, ""))), 202, counts{0, 1}, false},
		"nothing told":              {post("/hooks/eu", envelope()), 202, counts{}, false},
		"a repository deleted":      {post("/hooks/eu", envelope(event("delete", "team/app", "", "", ""))), 202, counts{0, 1}, false},
		"another sender's JSON":     {post("/hooks/eu", `{"hello":"world"}`), 202, counts{0, 1}, true},
		"a list":                    {post("/hooks/eu", `[1,2]`), 202, counts{0, 1}, true},
		"null":                      {post("/hooks/eu", `null`), 202, counts{0, 1}, true},
		"events of another shape":   {post("/hooks/eu", `{"events":[1,null,{"target":[]},{"action":7}]}`), 202, counts{0, 4}, true},
		"events that are no list":   {post("/hooks/eu", `{"events":{"action":"push"}}`), 202, counts{0, 1}, true},
		"an unknown action":         {post("/hooks/eu", envelope(event("rename", "team/app", "v1", digestA, ""))), 202, counts{0, 1}, true},
		"a push of nothing":         {post("/hooks/eu", envelope(event("push", "team/app", "", "", ""))), 202, counts{0, 1}, true},
		"no JSON":                   {post("/hooks/eu", `{"events":[`), 400, counts{}, false},
		"JSON twice":                {post("/hooks/eu", `{} {}`), 400, counts{}, false},
		"nothing":                   {post("/hooks/eu", ``), 400, counts{}, false},
		"an unknown registry":       {post("/hooks/us", onePush), 404, counts{}, false},
		"no registry":               {post("/hooks/", onePush), 404, counts{}, false},
		"below a registry":          {post("/hooks/eu/x", onePush), 404, counts{}, false},
		"another address":           {post("/eu", onePush), 404, counts{}, false},
		"GET":                       {httptest.NewRequest(http.MethodGet, "/hooks/eu", nil), 405, counts{}, false},
		"PUT":                       {httptest.NewRequest(http.MethodPut, "/hooks/eu", strings.NewReader(onePush)), 405, counts{}, false},
		"over 8 MiB, told before":   {post("/hooks/eu", big), 413, counts{}, true},
		"over 8 MiB, found reading": {unsized(post("/hooks/eu", big)), 413, counts{}, true},
		"gzip":                      {post("/hooks/eu", "\x1f\x8b", "Content-Encoding", "gzip"), 415, counts{}, false},
		"identity":                  {post("/hooks/eu", onePush, "Content-Encoding", "identity"), 202, counts{1, 0}, false},
		"no content type":           {post("/hooks/eu", onePush, "Content-Type", "text/plain"), 202, counts{1, 0}, false},
	} {
		t.Run(name, func(t *testing.T) {
			in, kept := door(intake.Registry{Name: "eu", Decoder: generic.Webhook{}})
			w := send(in, c.req)
			if w.Code != c.want {
				t.Fatalf("%d %s, want %d", w.Code, w.Body, c.want)
			}
			if got := countsOf(t, w.Body); got != c.counts {
				t.Errorf("counts %+v, want %+v", got, c.counts)
			}
			if found := len(kept.findings) == 1 && slices.Equal(kept.due, []string{"eu"}); found != c.find {
				t.Errorf("findings %v, due %v", kept.findings, kept.due)
			}
			for _, f := range kept.findings {
				if f.Kind != replicator.FindingUnusableEvent || f.Registry != "eu" || f.Message == "" || !f.At.Equal(receipt) {
					t.Errorf("finding %+v", f)
				}
			}
			if w.Code == 405 && w.Header().Get("Allow") != http.MethodPost {
				t.Error("405 without Allow")
			}
			if c.counts == (counts{0, 1}) && !c.find && kept.calls != 0 {
				t.Error("what is ignored went on to be stored")
			}
		})
	}
}

// unsized hides a body's length.
func unsized(req *http.Request) *http.Request {
	req.ContentLength = -1
	return req
}

func TestSecrets(t *testing.T) {
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	for name, c := range map[string]struct {
		path    string
		headers []string
		want    int
	}{
		"as it stands":             {"/hooks/eu", []string{"Authorization", "s3cret"}, 202},
		"bearer":                   {"/hooks/eu", []string{"Authorization", "Bearer s3cret"}, 202},
		"bearer, in small letters": {"/hooks/eu", []string{"Authorization", "bearer  s3cret"}, 202},
		"basic":                    {"/hooks/eu", []string{"Authorization", basic("anyone", "s3cret")}, 202},
		"basic with a colon":       {"/hooks/eu", []string{"Authorization", basic("anyone", "with:colon")}, 202},
		"key":                      {"/hooks/eu?key=s3cret", nil, 202},
		"key among others":         {"/hooks/eu?x=1&key=old&key=s3cret", nil, 202},
		"the second, for rotation": {"/hooks/eu", []string{"Authorization", "Bearer next"}, 202},
		"a repeated header":        {"/hooks/eu", []string{"Authorization", "Bearer old", "Authorization", "Bearer s3cret"}, 202},
		"wrong, then key":          {"/hooks/eu?key=s3cret", []string{"Authorization", "Bearer old"}, 202},
		"none":                     {"/hooks/eu", nil, 401},
		"empty":                    {"/hooks/eu?key=", []string{"Authorization", ""}, 401},
		"empty bearer":             {"/hooks/eu", []string{"Authorization", "Bearer "}, 401},
		"empty basic":              {"/hooks/eu", []string{"Authorization", basic("", "")}, 401},
		"wrong":                    {"/hooks/eu", []string{"Authorization", "Bearer s3creT"}, 401},
		"too long":                 {"/hooks/eu", []string{"Authorization", "Bearer s3crets"}, 401},
		"too short":                {"/hooks/eu", []string{"Authorization", "Bearer s3cre"}, 401},
		"as the user":              {"/hooks/eu", []string{"Authorization", basic("s3cret", "")}, 401},
		"in another parameter":     {"/hooks/eu?token=s3cret", nil, 401},
	} {
		in, kept := door(intake.Registry{Name: "eu", Decoder: generic.Webhook{}, Secrets: secrets("s3cret", "next", "with:colon", "")})
		w := send(in, post(c.path, onePush, c.headers...))
		if w.Code != c.want || (kept.calls > 0) != (c.want == 202) {
			t.Errorf("%s: %d, stored %d times, want %d", name, w.Code, kept.calls, c.want)
		}
		if w.Code == 401 && w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: 401 without a challenge", name)
		}
	}
}

func TestSecretThatCannotBeReadLetsNobodyIn(t *testing.T) {
	gone := func() (string, error) { return "", errors.New("open /run/secrets/eu: no such file or directory") }
	in, kept := door(intake.Registry{Name: "eu", Decoder: generic.Webhook{}, Secrets: []func() (string, error){gone}})
	if w := send(in, post("/hooks/eu", onePush)); w.Code != 503 || w.Header().Get("Retry-After") == "" || kept.calls != 0 {
		t.Errorf("%d with the one secret gone", w.Code)
	}
	in, _ = door(intake.Registry{Name: "eu", Decoder: generic.Webhook{}, Secrets: append(secrets("s3cret"), gone)})
	if w := send(in, post("/hooks/eu?key=s3cret", onePush)); w.Code != 202 {
		t.Errorf("%d with the other secret there", w.Code)
	}
}

// The signatures are those the senders made; the registry's kind is not
// theirs, so what they tell is unusable, but it is they who tell it.
func TestSignatures(t *testing.T) {
	const hub = "X-Hub-Signature-256"
	gitea, github := string(read(t, "testdata/events/gitea-package.json")), string(read(t, "testdata/events/github-ping.json"))
	const giteaMAC = "54c52853b370068866fa19ba40d155b11ca8167754c749076b60fd2ed74f23a7"
	const githubMAC = "f9a02b4ff41fba7010b8647666d63e39159632ef75c350c98b918c50dacb4d3a"
	for name, c := range map[string]struct {
		body    string
		headers []string
		want    int
	}{
		"gitea":                 {gitea, []string{"X-Gitea-Signature", giteaMAC}, 202},
		"forgejo":               {gitea, []string{"X-Forgejo-Signature", giteaMAC}, 202},
		"hub":                   {gitea, []string{hub, "sha256=" + giteaMAC}, 202},
		"github":                {github, []string{hub, "sha256=" + githubMAC}, 202},
		"beside a wrong one":    {gitea, []string{hub, "sha256=" + githubMAC, hub, "sha256=" + giteaMAC}, 202},
		"body changed by one":   {strings.Replace(gitea, "team", "tean", 1), []string{hub, "sha256=" + giteaMAC}, 401},
		"signature changed":     {gitea, []string{hub, "sha256=" + strings.Replace(giteaMAC, "54", "55", 1)}, 401},
		"signature cut":         {gitea, []string{hub, "sha256=" + giteaMAC[:62]}, 401},
		"no signature":          {gitea, []string{hub, ""}, 401},
		"another body's":        {gitea, []string{hub, "sha256=" + githubMAC}, 401},
		"the signature as key":  {gitea, []string{"Authorization", giteaMAC}, 401},
		"signed, body no JSON":  {"x", []string{hub, "sha256=" + giteaMAC}, 401},
		"signature of the wind": {gitea, []string{hub, "sha256=zz" + giteaMAC[2:]}, 401},
	} {
		in, kept := door(intake.Registry{Name: "eu", Decoder: generic.Webhook{}, Secrets: secrets("other", "fixture-secret")})
		if w := send(in, post("/hooks/eu", c.body, c.headers...)); w.Code != c.want || (kept.calls > 0) != (c.want == 202) {
			t.Errorf("%s: %d, want %d", name, w.Code, c.want)
		}
	}

	captured := read(t, files(t, "captured/gitea-*/01*.http")[0])
	in, _ := door(intake.Registry{Name: "eu", Decoder: generic.Webhook{}, Secrets: secrets("example-secret")})
	server := httptest.NewServer(in)
	defer server.Close()
	if status, _ := raw(t, server.Listener.Addr().String(), "/hooks/eu", captured); status != 202 {
		t.Errorf("captured request of gitea: %d", status)
	}
	if status, _ := raw(t, server.Listener.Addr().String(), "/hooks/eu", bytes.Replace(captured, []byte(`"action"`), []byte(`"Action"`), 1)); status != 401 {
		t.Errorf("captured request of gitea, changed: %d", status)
	}
}

func TestPrefixAndNames(t *testing.T) {
	in, kept := door(intake.Registry{Name: "eu", Prefix: "team", Decoder: generic.Webhook{}})
	now := "2026-11-22T11:59:59Z"
	w := send(in, post("/hooks/eu", envelope(
		event("push", "team/app", "v1", digestA, now),
		event("push", "team", "v1", digestA, now),
		event("push", "teamwork/app", "v1", digestA, now),
		event("push", "other/app", "v1", digestA, now),
		event("push", "team/../../etc", "v1", digestA, now),
		event("push", "TEAM/app", "v1", digestA, now),
		event("push", "team/app", "-bad", digestA, now),
		event("push", "team/app", "v1", "sha256:beef", now),
		event("push", "team/app", "v1", "md5:d41d8cd98f00b204e9800998ecf8427e", now),
		event("push", "team/"+strings.Repeat("a", 300), "v1", digestA, now),
		event("delete", "team/deep/er", "v2", "", now),
	)))
	if got := countsOf(t, w.Body); w.Code != 202 || got != (counts{2, 9}) {
		t.Errorf("%d %+v, want 2 accepted and 9 ignored", w.Code, got)
	}
	if len(kept.events) != 2 || kept.events[0].Repository != "app" || kept.events[1].Repository != "deep/er" {
		t.Errorf("events %+v", kept.events)
	}
	if len(kept.findings) != 1 || !strings.HasPrefix(kept.findings[0].Message, "6 events of a webhook cannot be used, the first: ") || len(kept.findings[0].Message) > 300 {
		t.Errorf("findings %+v", kept.findings)
	}
}

func TestRepeatedEventsAreOne(t *testing.T) {
	in, kept := door(intake.Registry{Name: "eu", Decoder: generic.Webhook{}})
	at := func(second int) string {
		return receipt.Add(time.Duration(second-60) * time.Second).Format(time.RFC3339)
	}
	w := send(in, post("/hooks/eu", envelope(
		event("push", "team/app", "v1", digestA, at(5)),
		event("push", "team/app", "v1", digestA, at(3)), // told twice
		event("push", "team/app", "v2", digestA, at(6)),
		event("push", "team/app", "v1", digestB, at(7)),
		event("push", "team/app", "v1", digestA, at(8)), // a rollback is a push
		event("push", "team/app", "", digestA, at(9)),
		event("push", "team/app", "", digestB, at(9)),
		event("push", "team/app", "", digestA, at(9)), // told twice
		event("delete", "team/app", "v2", "", at(10)),
		event("push", "team/app", "v2", digestA, at(11)),
	)))
	if got := countsOf(t, w.Body); got != (counts{8, 2}) {
		t.Errorf("%+v, want 8 accepted and 2 ignored", got)
	}
	var got []string
	for _, e := range kept.events {
		got = append(got, fmt.Sprintf("%s %s %.10s %d", e.Action, e.Tag, e.Digest, e.PushedAt.Sub(receipt)/time.Second+60))
	}
	if want := []string{"push v1 sha256:965 3", "push v2 sha256:965 6", "push v1 sha256:7ad 7", "push v1 sha256:965 8", "push  sha256:965 9", "push  sha256:7ad 9", "delete v2  10", "push v2 sha256:965 11"}; !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestPushTimes(t *testing.T) {
	for sent, want := range map[string]struct {
		at      time.Time
		senders bool
	}{
		"2026-11-22T11:00:00Z":      {receipt.Add(-time.Hour), true},
		"2026-11-22T13:00:00+02:00": {receipt.Add(-time.Hour), true},
		"2026-11-22T12:00:03Z":      {receipt, true}, // clocks differ a little
		"2026-11-22T12:01:00Z":      {receipt, false},
		"9999-01-01T00:00:00Z":      {receipt, false},
		"0001-01-01T00:00:00Z":      {receipt, false},
		"1970-01-01T00:00:00Z":      {receipt, false},
		"yesterday":                 {receipt, false},
		"":                          {receipt, false},
	} {
		in, kept := door(intake.Registry{Name: "eu", Decoder: generic.Webhook{}})
		send(in, post("/hooks/eu", envelope(event("push", "team/app", "v1", digestA, sent))))
		if e := kept.events[0]; !e.PushedAt.Equal(want.at) || e.PushedAt.Location() != time.UTC || e.SenderTime != want.senders {
			t.Errorf("%q: %s %v, want %s %v", sent, e.PushedAt, e.SenderTime, want.at, want.senders)
		}
	}
}

func TestTooManyEvents(t *testing.T) {
	events := make([]string, replicator.MaxWebhookEvents+5)
	for i := range events {
		events[i] = event("push", "team/app", fmt.Sprintf("v%d", i), digestA, "")
	}
	in, kept := door(intake.Registry{Name: "eu", Decoder: generic.Webhook{}})
	w := send(in, post("/hooks/eu", envelope(events...)))
	if got := countsOf(t, w.Body); got != (counts{replicator.MaxWebhookEvents, 5}) || len(kept.findings) != 1 || len(kept.due) != 1 {
		t.Errorf("%+v, %d findings, due %v", got, len(kept.findings), kept.due)
	}
}

func TestNotStoredIsNotAccepted(t *testing.T) {
	in, kept := door(intake.Registry{Name: "eu", Decoder: generic.Webhook{}})
	kept.err = errors.New("database or disk is full")
	for name, body := range map[string]string{
		"push": onePush, "unusable": `{}`, "too large": strings.Repeat(" ", 9<<20),
	} {
		w := send(in, post("/hooks/eu", body))
		if w.Code != 503 || w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "disk") {
			t.Errorf("%s: %d %s, Retry-After %q", name, w.Code, w.Body, w.Header().Get("Retry-After"))
		}
	}
}

func TestWhatNoRouteWantsIsIgnored(t *testing.T) {
	in, kept := door(intake.Registry{Name: "eu", Decoder: generic.Webhook{}})
	kept.none = true
	if w := send(in, post("/hooks/eu", onePush)); w.Code != 202 || countsOf(t, w.Body) != (counts{0, 1}) {
		t.Errorf("%d", w.Code)
	}
}

func TestSenderThatHangsUpLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		in := intake.New(intake.Options{Accept: func(ctx context.Context, events []replicator.Event, _ []replicator.Finding, _ []string) (int, error) {
			cancel()
			if deadline, ok := ctx.Deadline(); ctx.Err() != nil || !ok || time.Until(deadline) > time.Minute {
				t.Errorf("%v, deadline %v", ctx.Err(), deadline)
			}
			<-ctx.Done()
			return 0, ctx.Err()
		}})
		in.Swap([]intake.Registry{{Name: "eu", Decoder: generic.Webhook{}}})
		if w := send(in, post("/hooks/eu", onePush).WithContext(ctx)); w.Code != 503 {
			t.Errorf("%d when storing takes too long", w.Code)
		}
	})
}

type pinged struct{}

func (pinged) Decode(http.Header, []byte) replicator.Decoded { return replicator.Decoded{Ping: true} }

func TestPing(t *testing.T) {
	in, kept := door(intake.Registry{Name: "eu", Decoder: pinged{}})
	if w := send(in, post("/hooks/eu", `{}`)); w.Code != 200 || kept.calls != 0 {
		t.Errorf("%d, stored %d times", w.Code, kept.calls)
	}
}

func TestSwap(t *testing.T) {
	in, kept := door(intake.Registry{Name: "eu", Decoder: generic.Webhook{}})
	in.Swap([]intake.Registry{{Name: "us", Decoder: generic.Webhook{}, Secrets: secrets("s3cret")}})
	for path, want := range map[string]int{"/hooks/eu": 404, "/hooks/us": 401, "/hooks/us?key=s3cret": 202} {
		if w := send(in, post(path, onePush)); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	if len(kept.events) != 1 || kept.events[0].Registry != "us" {
		t.Errorf("events %+v", kept.events)
	}
}

type tally struct {
	mu sync.Mutex
	m  map[string]int
}

func (t *tally) Webhook(registry string, code int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.m[fmt.Sprint(registry, " ", code)]++
}

func TestLogIsQuietAndKeepsSecrets(t *testing.T) {
	core, lines := observer.New(zapcore.DebugLevel)
	metrics := &tally{m: make(map[string]int)}
	now := receipt
	in := intake.New(intake.Options{Accept: (&store{}).accept, Log: zap.New(core), Metrics: metrics, Now: func() time.Time { return now }})
	in.Swap([]intake.Registry{{Name: "eu", Decoder: generic.Webhook{}, Secrets: secrets("s3cret")}})
	for range 1000 {
		send(in, post("/hooks/eu?key=wr0ng", onePush, "Authorization", "Bearer wr0ng"))
		send(in, post("/hooks/wr0ng", onePush))
		send(in, post("/hooks/eu?key=s3cret", "no JSON"))
	}
	now = now.Add(time.Minute)
	send(in, post("/hooks/eu?key=wr0ng", onePush))
	if lines.Len() != 4 {
		t.Errorf("%d lines for 3001 refusals of 3 kinds", lines.Len())
	}
	for _, line := range lines.All() {
		if text := fmt.Sprint(line.Message, line.ContextMap()); strings.Contains(text, "s3cret") || strings.Contains(text, "wr0ng") {
			t.Errorf("logged: %s", text)
		}
	}
	if last := lines.All()[3].ContextMap(); last["skipped"] != int64(999) {
		t.Errorf("skipped %v, want 999", last["skipped"])
	}
	for key, want := range map[string]int{"eu 401": 1001, " 404": 1000, "eu 400": 1000} {
		if metrics.m[key] != want {
			t.Errorf("counted %v", metrics.m)
		}
	}
}

// A sender that trickles its body is cut off, one that ends early told so.
func TestBodies(t *testing.T) {
	in, kept := door(intake.Registry{Name: "eu", Decoder: generic.Webhook{}})
	server := httptest.NewServer(in)
	defer server.Close()
	half := func(end func(*net.TCPConn)) string {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /hooks/eu HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"eve")
		end(conn.(*net.TCPConn))
		answer, _ := io.ReadAll(conn)
		return string(answer)
	}
	if got := half(func(c *net.TCPConn) { _ = c.CloseWrite() }); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
		t.Errorf("a body that ends early: %.40q", got)
	}
	if kept.calls != 0 {
		t.Error("half a body was stored")
	}
	// Chunked, and larger than what is read at once.
	body := envelope(event("push", "team/app", "v1", digestA, ""), `{"action":"pull","pad":"`+strings.Repeat("x", 200<<10)+`"}`)
	resp, err := http.Post(server.URL+"/hooks/eu", "application/json", io.MultiReader(strings.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := countsOf(t, resp.Body); resp.StatusCode != http.StatusAccepted || got != (counts{1, 1}) {
		t.Errorf("a chunked body: %d %+v", resp.StatusCode, got)
	}
}
