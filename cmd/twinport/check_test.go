package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/check"
)

// looked is what a check told, by registry and check.
type looked map[string]map[string]check.Check

// look runs check and reads what it prints: strictly, as its documentation says.
func (b *bench) look(code int, args ...string) looked {
	b.Helper()
	stdout, stderr := b.ends(code, append(append([]string{"check"}, args...), "--output", "json")...)
	var doc struct {
		Registries []check.Report `json:"registries"`
	}
	decoder := json.NewDecoder(strings.NewReader(stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&doc); err != nil {
		b.Fatalf("%v\n%s%s", err, stdout, stderr)
	}
	told := looked{}
	for _, r := range doc.Registries {
		told[r.Registry] = map[string]check.Check{}
		for _, c := range r.Checks {
			told[r.Registry][c.Check] = c
		}
	}
	return told
}

// states are those of one registry, by check; what is fine or not needed is left out.
func (l looked) states(registry string) map[string]check.State {
	states := map[string]check.State{}
	for name, c := range l[registry] {
		if c.State == check.Failed || c.State == check.Warning {
			states[name] = c.State
		}
	}
	return states
}

// inventory is all that a fake holds.
func inventory(f *providertest.Fake) string {
	var b strings.Builder
	for _, repo := range f.Repos() {
		manifests, blobs, sessions := f.Left(repo)
		fmt.Fprintln(&b, repo, f.Tags(repo), manifests, blobs, sessions)
	}
	return b.String()
}

const teamRoute = "  - {name: prod, from: eu, to: [us], repositories: {include: [\"team/**\"]}}\n"

// TestCheck: all is well, and all is as it was.
func TestCheck(t *testing.T) {
	b := newBench(t, teamRoute, "eu", "us", "spare")
	b.image("eu", "team/app", "v1", "one")
	b.image("eu", "other", "v1", "one")
	b.image("us", "team/app", "v1", "one")
	b.image("us", "team/web", "v1", "two")
	before := map[string]string{}
	for name, f := range b.registries {
		before[name] = inventory(f)
	}
	got := b.look(exitDone)
	want := map[string]map[string]check.State{
		"eu": {
			"name": "ok", "connect": "ok", "tls": "skipped", "api": "ok", "clock": "ok", "identity": "ok", "list": "ok", "pull": "ok",
			"create": "skipped", "push": "skipped", "mount": "skipped", "referrers": "ok", "delete": "skipped", "webhook": "warning", "events": "skipped",
		},
		"us": {
			"name": "ok", "connect": "ok", "tls": "skipped", "api": "ok", "clock": "ok", "identity": "ok", "list": "ok", "pull": "ok",
			"create": "skipped", "push": "ok", "mount": "ok", "referrers": "ok", "delete": "ok", "webhook": "skipped", "events": "skipped",
		},
		"spare": {
			"name": "ok", "connect": "ok", "tls": "skipped", "api": "ok", "clock": "ok", "identity": "ok", "list": "skipped", "pull": "skipped",
			"create": "skipped", "push": "skipped", "mount": "skipped", "referrers": "skipped", "delete": "skipped", "webhook": "skipped", "events": "skipped",
		},
	}
	for name, checks := range want {
		states := map[string]check.State{}
		for key, c := range got[name] {
			states[key] = c.State
		}
		if diff := cmp.Diff(checks, states); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for name, f := range b.registries {
		if after := inventory(f); after != before[name] {
			t.Errorf("%s held\n%sand now\n%s", name, before[name], after)
		}
	}
	if n := b.registries["us"].Count("PUT", "/manifests/twinport-check-"); n != 1 {
		t.Errorf("%d probes were pushed", n)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		if n := b.registries["eu"].Count(method, ""); n > 0 {
			t.Errorf("a source got %d %s", n, method)
		}
	}
	if !strings.Contains(got["us"]["mount"].Detail, "from team/") {
		t.Errorf("mount: %+v", got["us"]["mount"])
	}
	if only := b.look(exitDone, "spare"); !slices.Equal(slices.Collect(maps.Keys(only)), []string{"spare"}) {
		t.Errorf("asked for one registry: %v", only)
	}
	b.ends(exitUsage, "check", "nowhere")
	stdout, _ := b.ends(exitDone, "check")
	for _, line := range []string{"us: ok", "eu: warnings: webhook", "not needed: no route uses this registry"} {
		if !strings.Contains(stdout, line) {
			t.Errorf("the table does not tell %q:\n%s", line, stdout)
		}
	}
}

// TestCheckUnpushable: where nothing can be deleted again, nothing is stored.
func TestCheckUnpushable(t *testing.T) {
	b := newBench(t, teamRoute, "eu", "us")
	b.image("us", "team/app", "v1", "one")
	b.registries["us"].Deletes = providertest.DeletesNothing
	before := inventory(b.registries["us"])
	got := b.look(exitDone)["us"]
	if c := got["push"]; c.State != check.OK || !strings.Contains(c.Detail, "begun and cancelled") || !strings.Contains(c.Detail, "405") {
		t.Errorf("push: %+v", c)
	}
	if c := got["delete"]; c.State != check.Skipped {
		t.Errorf("delete: %+v", c)
	}
	if after := inventory(b.registries["us"]); after != before || b.registries["us"].Count("PUT", "") > 0 {
		t.Errorf("us held\n%sand now\n%s", before, after)
	}
}

// TestCheckEmpty: a destination that holds nothing yet gets nothing.
func TestCheckEmpty(t *testing.T) {
	b := newBench(t, teamRoute, "eu", "us")
	b.image("eu", "team/app", "v1", "one")
	got := b.look(exitDone)["us"]
	if c := got["push"]; c.State != check.OK || !strings.Contains(c.Detail, "may upload to team/app") {
		t.Errorf("push: %+v", c)
	}
	if n := len(b.registries["us"].Repos()); n > 0 {
		t.Errorf("%d repositories were left", n)
	}
	if _, _, sessions := b.registries["us"].Left("team/app"); sessions > 0 {
		t.Errorf("%d sessions were left", sessions)
	}
}

// TestCheckUnreachable: who is not there is told so, and nothing else is asked.
func TestCheckUnreachable(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	website := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(website.Close)
	secure := httptest.NewTLSServer(&providertest.Fake{})
	t.Cleanup(secure.Close)
	late := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(7*time.Minute).UTC().Format(http.TimeFormat))
		(&providertest.Fake{}).ServeHTTP(w, r)
	}))
	t.Cleanup(late.Close)
	address := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	for name, c := range map[string]struct {
		registry, check string
		state           check.State
		detail, hint    string
	}{
		"no such name":      {"{kind: oci, address: nothing.invalid}", "name", check.Failed, "nothing.invalid", "check"},
		"closed port":       {fmt.Sprintf("{kind: oci, address: %q, plainHTTP: true}", closed.Addr()), "connect", check.Failed, "nothing listens there", "port"},
		"no registry":       {fmt.Sprintf("{kind: oci, address: %q, plainHTTP: true}", address(website)), "api", check.Failed, "404", "check host, port and prefix"},
		"unknown authority": {fmt.Sprintf("{kind: oci, address: %q}", address(secure)), "tls", check.Failed, "Acme Co, which is not trusted", "tls.ca"},
		"no TLS":            {fmt.Sprintf("{kind: oci, address: %q}", address(website)), "tls", check.Failed, "does not speak TLS", "plainHTTP"},
		"TLS unasked":       {fmt.Sprintf("{kind: oci, address: %q, plainHTTP: true}", address(secure)), "api", check.Failed, "400", ""},
		"clock":             {fmt.Sprintf("{kind: oci, address: %q, plainHTTP: true, auth: {anonymous: true}}", address(late)), "clock", check.Warning, "behind the registry", "chrony"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "", "eu")
			b.write("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\ndata: " + filepath.Join(b.dir, "data") + "\nregistries:\n" +
				"  eu: " + c.registry + "\n  us: {kind: oci, address: us.invalid}\nroutes:\n" + teamRoute)
			code := exitFailed
			if c.state == check.Warning {
				code = exitDone
			}
			got := b.look(code, "eu")["eu"]
			if o := got[c.check]; o.State != c.state || !strings.Contains(o.Detail, c.detail) || !strings.Contains(o.Hint, c.hint) {
				t.Errorf("%s: %+v", c.check, o)
			}
			if o := got["identity"]; c.state == check.Failed && (o.State != check.Skipped || !strings.HasPrefix(o.Detail, "not tried")) {
				t.Errorf("identity: %+v", o)
			}
		})
	}
}

// TestCheckTLS: a certificate that is known, and one that ends soon.
func TestCheckSecrets(t *testing.T) {
	const password = "password-of-robot"
	b := newBench(t, teamRoute, "eu", "us")
	b.image("eu", "team/app", "v1", "one")
	for _, f := range b.registries {
		f.Username, f.Password = "robot", password
	}
	config := fmt.Sprintf("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\ndata: %s\nregistries:\n", filepath.Join(b.dir, "data"))
	for name, server := range b.servers {
		secret := password
		if name == "us" {
			secret = "wrong-" + password
		}
		config += fmt.Sprintf("  %s: {kind: oci, address: %q, plainHTTP: true, auth: {username: robot, password: %s}, webhook: {secret: [one-secret, other]}}\n",
			name, server.Listener.Addr(), secret)
	}
	b.write(config + "routes:\n" + teamRoute)
	stdout, stderr := b.ends(exitFailed, "check", "--output", "json")
	if strings.Contains(stdout+stderr, password) || strings.Contains(stdout, "one-secret") {
		t.Errorf("a secret is told:\n%s", stdout)
	}
	got := b.look(exitFailed)
	if c := got["eu"]["identity"]; c.State != check.OK || c.Detail != "robot" {
		t.Errorf("identity: %+v", c)
	}
	if c := got["eu"]["webhook"]; c.State != check.OK || c.Detail != "2 secrets are set" {
		t.Errorf("webhook: %+v", c)
	}
	if c := got["us"]["identity"]; c.State != check.Failed || !strings.Contains(c.Detail, "robot: GET /v2/: 401") || !strings.Contains(c.Hint, "auth") {
		t.Errorf("wrong password: %+v", c)
	}
	if c := got["us"]["push"]; c.State != check.Skipped || c.Detail != "not tried: the login is refused" {
		t.Errorf("after a wrong password: %+v", c)
	}
}

// TestCheckTable: what was skipped for one reason is one line, and what
// registries say breaks no line.
func TestCheckTable(t *testing.T) {
	var out bytes.Buffer
	err := printReports(&out, &options{output: "table"}, []check.Report{{
		Registry: "us", Kind: "ecr", Address: "us.example.com",
		Checks: []check.Check{
			{Check: "name", State: check.OK, Detail: "fine"},
			{Check: "push", State: check.Failed, Detail: "403\nDENIED\x1b[31m", Hint: "allow it"},
			{Check: "mount", State: check.Skipped, Detail: "not tried"},
			{Check: "delete", State: check.Skipped, Detail: "not tried"},
			{Check: "webhook", State: check.Skipped, Detail: "not needed"},
		},
	}})
	want := `us  ecr  us.example.com
  ok       name       fine
  FAILED   push       403 DENIED[31m
                      -> allow it
  -        mount, delete: not tried
  -        webhook    not needed

us: FAILED: push
`
	if diff := cmp.Diff(want, out.String()); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
