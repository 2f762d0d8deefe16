package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator/journal"
)

func TestEveryAddress(t *testing.T) {
	for _, test := range []struct {
		method, target, body string
		code                 int
		asked                string // a prefix of what the operator is asked for, empty: nothing
	}{
		{"GET", "/api/v1/status", "", 200, "status"},
		{"GET", "/api/v1/status?behind=false", "", 200, "status"},
		{"GET", "/api/v1/status?behind=true", "", 200, "behind route= destination= after= limit=0"},
		{"GET", "/api/v1/status?behind=1&route=prod&destination=us&after=x&limit=7", "", 200, "behind route=prod destination=us after=x limit=7"},
		{"GET", "/api/v1/status?behind=true&limit=1001", "", 400, ""},
		{"GET", "/api/v1/jobs", "", 200, "jobs ids=[] states=[] route= destination= repository= tag= lane= error= after= limit=0"},
		{"GET", "/api/v1/jobs?id=a&id=b&state=failed&state=refused&route=r&destination=d&repository=team/app&tag=v1&lane=sweep&error=denied&after=z&limit=1000", "", 200,
			"jobs ids=[a b] states=[failed refused] route=r destination=d repository=team/app tag=v1 lane=sweep error=denied after=z limit=1000"},
		{"GET", "/api/v1/jobs?state=nope", "", 400, ""},
		{"GET", "/api/v1/jobs?lane=nope", "", 400, ""},
		{"GET", "/api/v1/jobs?limit=0", "", 400, ""},
		{"GET", "/api/v1/jobs?limit=-1", "", 400, ""},
		{"GET", "/api/v1/jobs?limit=many", "", 400, ""},
		{"GET", "/api/v1/jobs/1abc", "", 200, "job 1abc"},
		{"POST", "/api/v1/jobs/retry?id=a", "", 200, "retry ids=[a]"},
		{"POST", "/api/v1/jobs/retry?state=nope", "", 400, ""},
		{"POST", "/api/v1/jobs/retry", "", 400, ""},
		{"POST", "/api/v1/jobs/cancel?limit=5", "", 400, ""},
		{"POST", "/api/v1/jobs/cancel?route=prod&state=waiting", "", 200, "cancel ids=[] states=[waiting] route=prod"},
		{"POST", "/api/v1/jobs/cancel?lane=nope", "", 400, ""},
		{"GET", "/api/v1/findings", "", 200, "findings ids=[] kind= route= registry= acknowledged=any after= limit=0"},
		{"GET", "/api/v1/findings?id=f&kind=drift&route=r&registry=us&acknowledged=false&after=q&limit=5", "", 200,
			"findings ids=[f] kind=drift route=r registry=us acknowledged=false after=q limit=5"},
		{"GET", "/api/v1/findings?acknowledged=maybe", "", 400, ""},
		{"POST", "/api/v1/findings/ack", `{"ids":["a","b"]}`, 200, "acknowledge [a b] by"},
		{"POST", "/api/v1/findings/ack", `{"id":"a"}`, 400, ""},
		{"POST", "/api/v1/findings/ack", `["a"]`, 400, ""},
		{"POST", "/api/v1/findings/ack", `{"ids":["a"]} {"ids":["b"]}`, 400, ""},
		{"POST", "/api/v1/findings/ack", ``, 400, ""},
		{"GET", "/api/v1/history?reference=eu/team/app:v1", "", 200, "history eu/team/app:v1 at always"},
		{"GET", "/api/v1/history?reference=eu/team/app:v1&at=2026-01-31T15:05:00%2B01:00", "", 200, "history eu/team/app:v1 at 2026-01-31T14:05:00Z"},
		{"GET", "/api/v1/history?reference=eu/team/app:v1&at=yesterday", "", 400, ""},
		{"POST", "/api/v1/routes/prod/pause", "", 200, "paused prod true by"},
		{"POST", "/api/v1/routes/prod/resume", "", 200, "paused prod false by"},
		{"POST", "/api/v1/routes/a%2Fb/pause", "", 200, "paused a/b true by"},
		{"POST", "/api/v1/resolve", `{"reference":"eu/team/app:v1","prefer":"us"}`, 200, "resolve {Reference:eu/team/app:v1 Prefer:us} by"},
		{"POST", "/api/v1/resolve", `{"reference":1}`, 400, ""},
		{"POST", "/api/v1/plan", `{"routes":["prod"]}`, 200, "plan [prod]"},
		{"POST", "/api/v1/plan", `{}`, 200, "plan []"},
		{"POST", "/api/v1/plan", ``, 200, "plan []"},
		{"POST", "/api/v1/plan", `{"route":"prod"}`, 400, ""},
		{"POST", "/api/v1/sync", `{"routes":["prod"],"only":"team/app:v1","full":true,"retryFor":1.5}`, 200, "sync {Routes:[prod] Only:team/app:v1 Full:true RetryFor:1.5}"},
		{"POST", "/api/v1/sync", ``, 200, "sync {Routes:[] Only: Full:false RetryFor:0}"},
		{"POST", "/api/v1/sync", `nonsense`, 400, ""},
		{"POST", "/api/v1/verify", `{"deep":true}`, 200, "verify {Routes:[] Deep:true}"},
		{"POST", "/api/v1/verify", `{"deep":"yes"}`, 400, ""},
		{"GET", "/api/v1/nothing", "", 404, ""},
		{"GET", "/api/v1/", "", 404, ""},
		{"POST", "/api/v1/status", "", 405, ""},
		{"DELETE", "/api/v1/jobs/1", "", 405, ""},
		{"GET", "/api/v1/sync", "", 405, ""},
	} {
		t.Run(test.method+" "+test.target+" "+test.body, func(t *testing.T) {
			o := &operator{}
			w := ask(t, Handler(o, noToken), test.method, test.target, test.body)
			if w.Code != test.code {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if got := o.last(); !strings.HasPrefix(got, test.asked) || test.asked == "" && got != "" {
				t.Errorf("asked for %q, want %q", got, test.asked)
			}
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("content type %q", got)
			}
			if w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("header %v", w.Header())
			}
			if test.code >= 400 {
				var p Problem
				if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Error == "" {
					t.Errorf("an error without words: %s", w.Body)
				}
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		code int
		body Problem
	}{
		"usage":   {fmt.Errorf("plan: %w", &UsageError{"no such route", "try another"}), 400, Problem{"no such route", "try another"}},
		"unknown": {fmt.Errorf("job x: %w", journal.ErrUnknown), 404, Problem{Error: "job x: unknown"}},
		"busy":    {journal.ErrBusy, 503, Problem{Error: journal.ErrBusy.Error(), Hint: "ask again"}},
		"closed":  {journal.ErrClosed, 503, Problem{Error: journal.ErrClosed.Error(), Hint: "ask again"}},
		"away":    {fmt.Errorf("list jobs: %w", journal.ErrUnavailable), 503, Problem{Error: "list jobs: the database is not available", Hint: "ask again"}},
		"other":   {errors.New("broken"), 500, Problem{Error: "broken"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := ask(t, Handler(&operator{err: test.err}, noToken), "GET", "/api/v1/jobs", "")
			var got Problem
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != test.code || got != test.body {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
}

func TestABodyIsBounded(t *testing.T) {
	o := &operator{}
	w := ask(t, Handler(o, noToken), "POST", "/api/v1/findings/ack", `{"ids":["`+strings.Repeat("a", maxRequest)+`"]}`)
	if w.Code != http.StatusBadRequest || o.last() != "" {
		t.Errorf("%d, asked for %.40q", w.Code, o.last())
	}
}

func TestTheToken(t *testing.T) {
	const secret = "s3cret"
	token := func() (string, error) { return secret, nil }
	unreadable := func() (string, error) { return "", errors.New("no such file") }
	for _, test := range []struct {
		name   string
		token  func() (string, error)
		header []string
		code   int
	}{
		{"bearer", token, []string{"Authorization", "Bearer " + secret}, 200},
		{"basic", token, []string{"Authorization", "Basic YW55Ym9keTpzM2NyZXQ="}, 200},
		{"from a name", token, []string{"Authorization", "Bearer " + secret, "Host", "twinport.example.com"}, 200},
		{"none", token, nil, 401},
		{"empty", token, []string{"Authorization", "Bearer "}, 401},
		{"wrong", token, []string{"Authorization", "Bearer wrong"}, 401},
		{"longer", token, []string{"Authorization", "Bearer " + secret + "x"}, 401},
		{"as the user's name", token, []string{"Authorization", "Basic czNjcmV0Og=="}, 401},
		{"in the query is none", token, []string{"X-Token", secret}, 401},
		{"unreadable", unreadable, []string{"Authorization", "Bearer "}, 401},
		{"not asked for", noToken, nil, 200},
		{"not asked for, and given", noToken, []string{"Authorization", "Bearer x"}, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := &operator{}
			w := ask(t, Handler(o, test.token), "GET", "/api/v1/status", "", test.header...)
			if w.Code != test.code || (o.last() != "") != (test.code == 200) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if test.code == 401 && w.Header().Get("WWW-Authenticate") == "" {
				t.Error("no challenge")
			}
			if strings.Contains(w.Body.String(), secret) {
				t.Error("the answer holds the token")
			}
		})
	}
}

func TestARotatedTokenCountsAtOnce(t *testing.T) {
	now := "one"
	h := Handler(&operator{}, func() (string, error) { return now, nil })
	if w := ask(t, h, "GET", "/api/v1/status", "", "Authorization", "Bearer one"); w.Code != 200 {
		t.Fatal(w.Code)
	}
	now = "two"
	if w := ask(t, h, "GET", "/api/v1/status", "", "Authorization", "Bearer one"); w.Code != 401 {
		t.Errorf("the old one still counts: %d", w.Code)
	}
	if w := ask(t, h, "GET", "/api/v1/status", "", "Authorization", "Bearer two"); w.Code != 200 {
		t.Errorf("the new one does not: %d", w.Code)
	}
}

// What a web page the operator happens to have open can make a browser send.
func TestBrowsersOfOtherSitesAreRefused(t *testing.T) {
	for _, test := range []struct {
		name, method, target string
		header               []string
		code                 int
	}{
		{"another site's form", "POST", "/api/v1/routes/prod/pause", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"another origin", "POST", "/api/v1/routes/prod/pause", []string{"Origin", "https://evil.example.com"}, 403},
		{"our own page", "POST", "/api/v1/routes/prod/pause", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		{"no browser", "POST", "/api/v1/routes/prod/pause", nil, 200},
		{"a name that was made to point at us", "POST", "/api/v1/routes/prod/pause", []string{"Host", "evil.example.com:8481", "Origin", "http://evil.example.com:8481"}, 403},
		{"such a name, reading", "GET", "/api/v1/status", []string{"Host", "evil.example.com:8481"}, 403},
		{"localhost", "GET", "/api/v1/status", []string{"Host", "localhost:8481"}, 200},
		{"an address", "GET", "/api/v1/status", []string{"Host", "127.0.0.1:8481"}, 200},
		{"an address of version 6", "GET", "/api/v1/status", []string{"Host", "[::1]:8481"}, 200},
		{"no port", "GET", "/api/v1/status", []string{"Host", "localhost"}, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := &operator{}
			w := ask(t, Handler(o, noToken), test.method, test.target, "", test.header...)
			if w.Code != test.code || (o.last() != "") != (test.code == 200) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
}

func TestTheActor(t *testing.T) {
	for name, test := range map[string]struct{ said, want string }{
		"says nothing":    {"", "api 127.0.0.1:5555"},
		"says who":        {"cli root@host", "cli root@host"},
		"says too much":   {strings.Repeat("x", 200), strings.Repeat("x", 80)},
		"forges an entry": {"a\tb", "ab"},
	} {
		t.Run(name, func(t *testing.T) {
			o := &operator{}
			ask(t, Handler(o, noToken), "POST", "/api/v1/jobs/retry?id=a", "", "X-Twinport-Actor", test.said)
			if _, by, _ := strings.Cut(o.last(), " by "); by != test.want {
				t.Errorf("%q, want %q", by, test.want)
			}
		})
	}
}

func TestStreaming(t *testing.T) {
	for _, target := range []string{"/api/v1/sync", "/api/v1/verify"} {
		t.Run(target, func(t *testing.T) {
			release := make(chan struct{})
			o := &operator{during: func(_ context.Context, progress func(Progress)) {
				progress(Progress{Waiting: 2, ReadBytes: 10})
				<-release
				progress(Progress{Waiting: 1, Ended: 1})
			}}
			server := httptest.NewServer(Handler(o, noToken))
			defer server.Close()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+target, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept", "application/x-ndjson")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got := resp.Header.Get("Content-Type"); got != "application/x-ndjson" {
				t.Errorf("content type %q", got)
			}
			scan := bufio.NewScanner(resp.Body)
			next := func() (l Line) {
				t.Helper()
				if !scan.Scan() {
					t.Fatalf("no more lines: %v", scan.Err())
				}
				if err := json.Unmarshal(scan.Bytes(), &l); err != nil {
					t.Fatalf("%s: %v", scan.Bytes(), err)
				}
				return l
			}
			if l := next(); l.Progress == nil || l.Progress.Waiting != 2 || l.Progress.ReadBytes != 10 { // told at once
				t.Errorf("%+v", l)
			}
			close(release)
			if l := next(); l.Progress == nil || l.Progress.Ended != 1 {
				t.Errorf("%+v", l)
			}
			if l := next(); l.Result == nil || l.Error != nil {
				t.Errorf("%+v", l)
			}
			if scan.Scan() {
				t.Errorf("another line: %s", scan.Bytes())
			}
		})
	}
}

func TestAStreamedError(t *testing.T) {
	o := &operator{err: &UsageError{"no such route", "try another"}}
	w := ask(t, Handler(o, noToken), "POST", "/api/v1/sync", "{}", "Accept", "application/x-ndjson")
	var l Line
	if err := json.Unmarshal(w.Body.Bytes(), &l); err != nil || w.Code != 200 || l.Code != 400 || l.Error == nil || l.Error.Hint != "try another" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Whoever asked and went away ends what was asked for.
func TestACallerThatGoesAway(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	o := &operator{during: func(ctx context.Context, _ func(Progress)) {
		close(began)
		<-ctx.Done()
		close(ended)
	}}
	server := httptest.NewServer(Handler(o, noToken))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/api/v1/sync", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-began
		cancel()
	}()
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Error("it was answered")
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("it goes on")
	}
}
