package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

// parse reads a config that has to be right.
func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, _, err := Parse("/etc/twinport/twinport.yaml", []byte(text), pretend())
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	return c
}

const three = `registries:
  eu: {kind: oci, address: eu.example.com}
  us: {kind: oci, address: us.example.com}
  ap: {kind: oci, address: ap.example.com}
`

func TestDefaults(t *testing.T) {
	c := parse(t, three+"routes: [{name: a, from: eu, to: [us]}]\n")
	want := &Config{
		File: "/etc/twinport/twinport.yaml", Listen: "127.0.0.1:8480", Admin: "127.0.0.1:8481",
		Data: "/etc/twinport/twinport-data", Spool: Spool{Path: "/etc/twinport/twinport-data/spool", Max: 10 << 30},
		History: 30 * 24 * time.Hour, Log: Log{"info", "json"},
		Registries: []Registry{
			{Name: "eu", Kind: "oci", Address: "eu.example.com", Host: "eu.example.com"},
			{Name: "us", Kind: "oci", Address: "us.example.com", Host: "us.example.com"},
			{Name: "ap", Kind: "oci", Address: "ap.example.com", Host: "ap.example.com"},
		},
		Routes: []Route{{
			Name: "a", From: "eu", To: []string{"us"},
			Repositories: Filter{Include: []string{"**"}}, Tags: Tags{Include: []string{"*"}},
			Rename: "{repository}", Referrers: ReferrersTrue, Untagged: UntaggedSkip, Drift: DriftKeep,
			Sweep: 15 * time.Minute, Proof: 24 * time.Hour, SourceGone: 5 * time.Minute,
		}},
	}
	if diff := cmp.Diff(want, c, cmp.AllowUnexported(Secret{})); diff != "" {
		t.Error(diff)
	}
}

// TestDesign reads an example of all that was designed: every key of it is known
// and built.
func TestDesign(t *testing.T) {
	data, err := os.ReadFile("testdata/design.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, warnings, err := Parse("/etc/twinport/twinport.yaml", data, pretend())
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || !warnings[0].Unset || warnings[0].Line != 19 {
		t.Errorf("warnings %v", warnings)
	}
	us, _ := c.Registry("us")
	if us.Events.SQS != "https://sqs.us-east-1.amazonaws.com/123456789012/ecr-pushes" || us.Auth.AssumeRole.ExternalID != "x" || !us.Create.Scan {
		t.Errorf("us %+v", us)
	}
	eu, _ := c.Registry("eu")
	if password, err := eu.Auth.Password.Value(); err != nil && !errors.Is(err, os.ErrNotExist) || eu.Auth.Username != "robot" {
		t.Errorf("auth %v %q %v", eu.Auth, password, err)
	}
	want2 := Limits{Requests: 50, Connections: 32, Bandwidth: Bandwidth{Rate: 200 << 20}}
	if diff := cmp.Diff(want2, eu.Limits); diff != "" {
		t.Error(diff)
	}
	wantRedirects := Redirects{Allow: []string{"10.0.0.0/8", "s3.internal"}, Hosts: []string{"s3.internal"}, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	if diff := cmp.Diff(wantRedirects, eu.Redirects, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"/etc/ssl/eu.pem", "/etc/twinport/lc.json", "/run/secrets/eu"}, c.Files); diff != "" {
		t.Error(diff)
	}
	r, ok := c.Route("prod")
	if !ok || r.RPO != 5*time.Minute || r.Rename != "dr/{repository}" || r.Bandwidth.Rate != 100<<20 || r.Contact != "#platform-oncall" {
		t.Errorf("route %+v", r)
	}
}

func TestExamplesLoad(t *testing.T) {
	files, err := filepath.Glob("../deploy/examples/twinport.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all := Environment{Env: func(string) (string, bool) { return "set", true }}
		c, warnings, err := Parse(file, data, all)
		if err != nil || len(warnings) > 0 {
			t.Fatalf("%s: %v %v", file, err, warnings)
		}
		if w := c.Registries[0].Limits.Bandwidth.Windows[0]; w.Timezone.String() != "Europe/Berlin" || w.From != 8*time.Hour {
			t.Errorf("window %+v", w)
		}
	}
}

func TestValues(t *testing.T) {
	c := parse(t, `listen: 127.0.0.1:0
admin: "[::1]:0"
api: {token: literal}
data: /var/lib/twinport
history: 1d12h
registries:
  eu: {kind: harbor, address: "EU.example.com:8443/team/a", webhook: {secret: [{env: SET}, two]}, auth: {token: {file: secret}}}
  us: {kind: zot, address: "127.0.0.1:5000", plainHTTP: true, auth: {anonymous: true}, webhook: {secret: one}}
routes:
  - name: a
    from: eu
    to: [us]
    tags: {semver: ">=1.2", maxAge: 90d, newest: 20}
    referrers: false
    untagged: copy
    drift: overwrite
    conflict: newest
    sweep: never
    sourceGone: never
    rpo: none
    bandwidth: [{from: "22:00", to: "06:00", rate: 1.5MiB}, {from: "06:00", to: "07:00", rate: 1kB, timezone: Europe/Berlin}]
    timezone: America/New_York
`)
	if c.History != 36*time.Hour || c.Spool.Path != "/var/lib/twinport/spool" {
		t.Errorf("history %v, spool %v", c.History, c.Spool)
	}
	eu, us := c.Registries[0], c.Registries[1]
	if eu.Host != "eu.example.com:8443" || eu.Prefix != "team/a" || eu.Identity() != "eu.example.com:8443/team/a" {
		t.Errorf("eu %q %q %q", eu.Host, eu.Prefix, eu.Identity())
	}
	if !us.PlainHTTP || !us.Auth.Anonymous || us.Identity() != "127.0.0.1:5000" {
		t.Errorf("us %+v", us)
	}
	var hooks []string
	for _, s := range append(eu.Webhook.Secret, us.Webhook.Secret...) {
		v, err := s.Value()
		if err != nil {
			t.Fatal(err)
		}
		hooks = append(hooks, v+" from "+s.Origin())
	}
	if diff := cmp.Diff([]string{"value from env SET", "two from literal", "one from literal"}, hooks); diff != "" {
		t.Error(diff)
	}
	r := c.Routes[0]
	if r.Referrers != ReferrersFalse || r.Untagged != UntaggedCopy || r.Drift != DriftOverwrite || !r.Conflict.Newest || r.Sweep != 0 || r.SourceGone != 0 || r.RPO != 0 {
		t.Errorf("route %+v", r)
	}
	if r.Tags.SemVer != ">=1.2" || r.Tags.MaxAge != 90*24*time.Hour || r.Tags.Newest != 20 {
		t.Errorf("tags %+v", r.Tags)
	}
	w := r.Bandwidth.Windows
	if w[0].Rate != 3<<19 || w[0].Timezone.String() != "America/New_York" || w[1].Timezone.String() != "Europe/Berlin" {
		t.Errorf("windows %+v", w)
	}
	midnight := time.Date(2026, 1, 2, 5, 30, 0, 0, time.UTC) // 00:30 in New York
	if !w[0].Contains(midnight) || w[0].Contains(midnight.Add(6*time.Hour)) || !w[0].Contains(midnight.Add(-150*time.Minute)) {
		t.Error("a window over midnight")
	}
}

// TestUnsetIsFault: what runs needs every variable, what checks does not.
func TestUnsetIsFault(t *testing.T) {
	file := filepath.Join(t.TempDir(), "twinport.yaml")
	text := three + "api: {token: {env: TWINPORT_TEST_UNSET}}\nroutes: []\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, warnings, err := Check(file)
	if err != nil || len(warnings) != 1 || c == nil {
		t.Errorf("check: %v, %v", warnings, err)
	}
	if _, err := c.API.Token.Value(); err == nil {
		t.Error("an unset secret has a value")
	}
	var faults Faults
	if _, err = Load(file); !errors.As(err, &faults) || len(faults) != 1 || faults[0].Line != 5 || faults[0].Column != 20 {
		t.Errorf("load: %v", err)
	}
	t.Setenv("TWINPORT_TEST_UNSET", "x")
	if _, err = Load(file); err != nil {
		t.Errorf("load: %v", err)
	}
	if _, err = Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("load of nothing: %v", err)
	}
}

func TestSecretsPrintRedacted(t *testing.T) {
	const plain = "hunter2"
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pw"), []byte(plain+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := Parse(filepath.Join(dir, "c.yaml"), []byte(`api: {token: hunter2}
registries:
  eu: {kind: oci, address: eu.example.com, auth: {username: u, password: {file: pw}}, webhook: {secret: [hunter2, {env: X}]}}
routes: []
`), Environment{Env: func(string) (string, bool) { return plain, true }})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range []any{c, *c, c.API, c.API.Token, &c.API.Token, c.Registries, c.Registries[0].Webhook.Secret, c.Registries[0].Auth.Password,
		map[string]Secret{"a": c.API.Token}, struct{ hidden Secret }{c.API.Token}, []any{c.API.Token}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v"} {
			if strings.Count(verb, "%") == 2 {
				out = append(out, fmt.Sprintf(verb, v, v))
				continue
			}
			out = append(out, fmt.Sprintf(verb, v))
		}
		if b, err := json.Marshal(v); err == nil {
			out = append(out, string(b))
		} else {
			t.Error(err)
		}
		if b, err := yaml.Marshal(v); err == nil {
			out = append(out, string(b))
		} else {
			t.Error(err)
		}
		out = append(out, fmt.Sprint(v), fmt.Sprintln(v), fmt.Errorf("x: %v", v).Error())
	}
	for _, s := range out {
		if strings.Contains(s, plain) || strings.Contains(s, fmt.Sprintf("%x", plain)) || strings.Contains(s, fmt.Sprintf("%X", plain)) {
			t.Errorf("shown in %s", s)
		}
	}
	text, err := c.API.Token.MarshalText()
	if err != nil || string(text) != redacted || c.API.Token.String() != redacted || c.API.Token.GoString() != redacted {
		t.Errorf("text %q, %v", text, err)
	}
	if got := fmt.Sprintf("%v %s %q %x", c.API.Token, c.API.Token, c.API.Token, c.API.Token); got != `<redacted> <redacted> "<redacted>" <redacted>` {
		t.Errorf("printed as %s", got)
	}
	for _, s := range []Secret{c.API.Token, c.Registries[0].Auth.Password, c.Registries[0].Webhook.Secret[1]} {
		if v, err := s.Value(); v != plain || err != nil {
			t.Errorf("%s is %q, %v", s.Origin(), v, err)
		}
	}
	if v, err := (Secret{}).Value(); err == nil || v != "" || !(Secret{}).IsZero() {
		t.Errorf("no secret is %q, %v", v, err)
	}
}

func TestSecretFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pw")
	write := func(s string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	want := func(s Secret, value string) {
		t.Helper()
		if got, err := s.Value(); got != value || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, value)
		}
	}
	old := time.Now().Add(-time.Hour)
	write("one\n", old)
	s := fileSecret(path, "one")
	want(s, "one")
	write("two\r\n", old.Add(time.Minute))
	want(s, "two")
	write("", old.Add(2*time.Minute))
	want(s, "two") // half-written
	write("three", time.Now())
	want(s, "three")
	write("forty", time.Now().Truncate(time.Hour)) // same size; another time
	want(s, "forty")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want(s, "forty")
	if v, err := fileSecret(path, "").Value(); err == nil {
		t.Errorf("a missing file gives %q", v)
	}
}

// TestTableFits: every key has a struct field, a doc, and a default that reads.
func TestTableFits(t *testing.T) {
	seen := map[*object]bool{}
	var visit func(o *object, typ reflect.Type)
	visit = func(o *object, typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if seen[o] {
			return
		}
		seen[o] = true
		keys := map[string]bool{}
		for _, f := range o.fields {
			m, ok := typ.FieldByNameFunc(func(name string) bool { return strings.EqualFold(name, f.key) })
			if !ok {
				t.Errorf("%s.%s: no field in %v", o.name, f.key, typ)
				continue
			}
			if keys[f.key] || f.doc == "" || f.kind.word() == "" || (f.required && f.def != "") {
				t.Errorf("%s.%s: badly described", o.name, f.key)
			}
			keys[f.key] = true
			if _, ok := f.kind.(choice); ok {
				for _, way := range f.kind.(choice) {
					into := m.Type
					if way.into != "" {
						in, ok := m.Type.FieldByName(way.into)
						if !ok {
							t.Errorf("%s.%s: no field %s", o.name, f.key, way.into)
							continue
						}
						into = in.Type
					}
					for _, in := range objects(way.kind) {
						visit(in, into)
					}
				}
				continue
			}
			for _, in := range objects(f.kind) {
				visit(in, m.Type)
			}
		}
	}
	visit(table, reflect.TypeFor[Config]())
	if len(seen) < 15 {
		t.Errorf("%d objects", len(seen))
	}
}

// TestGenerated: the schema and the reference page say what the table says.
func TestGenerated(t *testing.T) {
	for file, want := range map[string][]byte{
		"twinport.schema.json":               Schema(),
		"../deploy/docs/config-reference.md": Reference(),
	} {
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not current: run go generate ./config\n%s", file, cmp.Diff(string(got), string(want)))
		}
	}
	var schema struct {
		Properties           map[string]any
		AdditionalProperties *bool
		Definitions          map[string]any
	}
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	if len(schema.Properties) != len(table.fields) || schema.AdditionalProperties == nil || *schema.AdditionalProperties {
		t.Errorf("schema of %d keys", len(schema.Properties))
	}
	for _, ref := range strings.Split(string(Schema()), `"#/definitions/`)[1:] {
		name, _, _ := strings.Cut(ref, `"`)
		if schema.Definitions[name] == nil {
			t.Errorf("no definition %s", name)
		}
	}
}
