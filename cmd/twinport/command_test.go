package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/providers/providertest"
)

// A bench is a config over registries in memory, for commands to run against.
type bench struct {
	*testing.T
	dir        string
	config     string
	registries map[string]*providertest.Fake
	servers    map[string]*httptest.Server
}

func newBench(t *testing.T, routes string, names ...string) *bench {
	t.Helper()
	b := &bench{T: t, dir: t.TempDir(), registries: make(map[string]*providertest.Fake), servers: make(map[string]*httptest.Server)}
	config := fmt.Sprintf("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\ndata: %s\nregistries:\n", filepath.Join(b.dir, "data"))
	for _, name := range names {
		fake := &providertest.Fake{}
		server := httptest.NewServer(fake)
		t.Cleanup(server.Close)
		b.registries[name], b.servers[name] = fake, server
		config += fmt.Sprintf("  %s: {kind: oci, address: %q, plainHTTP: true, auth: {anonymous: true}}\n",
			name, strings.TrimPrefix(server.URL, "http://"))
	}
	b.config = filepath.Join(b.dir, "twinport.yaml")
	b.write(config + "routes:\n" + routes)
	return b
}

func (b *bench) write(config string) {
	b.Helper()
	if err := os.WriteFile(b.config, []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
}

// image puts an image of one layer into a registry.
func (b *bench) image(registry, repository, tag, content string) digest.Digest {
	b.Helper()
	blob := func(data string) string {
		d := digest.FromString(data)
		b.registries[registry].SetBlob(repository, d, []byte(data))
		return fmt.Sprintf(`"digest":%q,"size":%d`, d, len(data))
	}
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json",%s},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar",%s}]}`, blob(`{"name":"`+content+`"}`), blob(content))
	return b.registries[registry].SetManifest(repository, tag, "application/vnd.oci.image.manifest.v1+json", []byte(manifest))
}

// run runs a command line and gives what it printed and its exit code.
func (b *bench) run(args ...string) (stdout, stderr string, code int) {
	b.Helper()
	read := func(std **os.File) func() string {
		file, err := os.Create(filepath.Join(b.T.TempDir(), "out"))
		if err != nil {
			b.Fatal(err)
		}
		before := *std
		*std = file
		return func() string {
			*std = before
			defer file.Close()
			body, err := os.ReadFile(file.Name())
			if err != nil {
				b.Fatal(err)
			}
			return string(body)
		}
	}
	out, errs := read(&os.Stdout), read(&os.Stderr)
	code = run(b.Context(), append(args, "--config", b.config))
	return out(), errs(), code
}

// ends checks a command's exit code.
func (b *bench) ends(code int, args ...string) (stdout, stderr string) {
	b.Helper()
	stdout, stderr, got := b.run(args...)
	if got != code {
		b.Errorf("twinport %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	return stdout, stderr
}

// json checks a command's exit code and gives the JSON it printed.
func (b *bench) json(code int, args ...string) map[string]any {
	b.Helper()
	stdout, _ := b.ends(code, append(args, "--output", "json")...)
	decoder := json.NewDecoder(strings.NewReader(stdout))
	decoder.UseNumber()
	var value map[string]any
	if err := decoder.Decode(&value); err != nil || decoder.More() {
		b.Errorf("twinport %s prints no one JSON object: %v\n%s", strings.Join(args, " "), err, stdout)
	}
	return value
}

// keys checks that an object has these keys and no others.
func (b *bench) keys(value any, names ...string) {
	b.Helper()
	object, _ := value.(map[string]any)
	for _, name := range names {
		if _, ok := object[name]; !ok {
			b.Errorf("no %q in %v", name, value)
		}
	}
	if len(object) != len(names) {
		b.Errorf("%v has other keys than %v", value, names)
	}
}

const starRoute = "  - {name: prod, from: eu, to: [us], rpo: 5m}\n"

func TestPlanThenSyncThenPlan(t *testing.T) {
	b := newBench(t, starRoute, "eu", "us")
	d := b.image("eu", "team/app", "v1", "one")
	b.image("eu", "team/app", "v2", "two")

	plan := b.json(exitFailed, "plan", "--exit-code")
	b.keys(plan, "actions", "requests")
	actions := plan["actions"].([]any)
	if len(actions) != 2 {
		t.Fatalf("actions %v", actions)
	}
	action := actions[0].(map[string]any)
	b.keys(action, "route", "destination", "repository", "destinationRepository", "tag", "digest", "action", "reason", "bytes")
	if action["action"] != "copy" || action["digest"] != d.String() {
		t.Errorf("action %v", action)
	}
	if b.registries["us"].Has("team/app") {
		t.Error("plan has created a repository")
	}
	if _, err := os.Stat(filepath.Join(b.dir, "data")); !os.IsNotExist(err) {
		t.Errorf("plan has made a data directory: %v", err)
	}
	b.ends(exitDone, "plan")

	sync := b.json(exitDone, "sync")
	b.keys(sync, "copied", "moved", "deleted", "refused", "failed", "bytes", "requests", "seconds", "findings")
	b.keys(sync["requests"], "source", "destination")
	if sync["copied"] != json.Number("2") || sync["findings"] == nil {
		t.Errorf("sync %v", sync)
	}
	if got := b.registries["us"].Tags("team/app")["v1"]; got != d {
		t.Errorf("us has %s", got)
	}
	if plan := b.json(exitDone, "plan", "--exit-code"); len(plan["actions"].([]any)) != 0 || plan["actions"] == nil {
		t.Errorf("the second plan is not empty: %v", plan)
	}
	if again := b.json(exitDone, "sync"); again["copied"] != json.Number("0") || again["bytes"] != json.Number("0") {
		t.Errorf("the second sync did something: %v", again)
	}

	status := b.json(exitDone, "status")
	b.keys(status, "daemon", "routes")
	if status["daemon"] != nil {
		t.Errorf("daemon %v", status["daemon"])
	}
	route := status["routes"].([]any)[0].(map[string]any)
	for _, key := range []string{
		"route", "destination", "lag", "rpo", "state", "waiting", "running", "failed", "refused", "held", "proven", "remaining",
		"lastSweep", "lastProof", "paused",
	} {
		if _, ok := route[key]; !ok {
			t.Errorf("status has no %q", key)
		}
	}
	if route["state"] != "met" || route["rpo"] != json.Number("300") || route["proven"] != json.Number("2") {
		t.Errorf("status %v", route)
	}
	if behind := b.json(exitDone, "status", "--behind"); behind["behind"] == nil || len(behind["behind"].([]any)) != 0 {
		t.Errorf("behind %v", behind)
	}
	jobs := b.json(exitDone, "jobs", "list")
	b.keys(jobs, "jobs", "next")
	job := jobs["jobs"].([]any)[0].(map[string]any)
	for _, key := range []string{
		"id", "route", "destination", "repository", "tag", "digest", "state", "lane", "attempts", "nextAttempt", "pushedAt", "error",
	} {
		if _, ok := job[key]; !ok {
			t.Errorf("a job has no %q", key)
		}
	}
	if job["state"] != "done" || job["nextAttempt"] != nil || job["error"] != nil {
		t.Errorf("job %v", job)
	}
	if shown := b.json(exitDone, "jobs", "show", job["id"].(string)); shown["id"] != job["id"] {
		t.Errorf("show %v", shown)
	}
	if findings := b.json(exitDone, "findings", "list"); len(findings["findings"].([]any)) != 0 {
		t.Errorf("findings %v", findings)
	}
	history := b.json(exitDone, "history", "us/team/app:v1")
	if state := history["history"].([]any)[0].(map[string]any); state["digest"] != d.String() {
		t.Errorf("history %v", history)
	}
	if before := b.json(exitDone, "history", "us/team/app:v1", "--at", "2020-01-01T00:00:00Z"); len(before["history"].([]any)) != 0 {
		t.Errorf("history before there was any: %v", before)
	}
	verify := b.json(exitDone, "verify", "--deep")
	b.keys(verify, "checked", "missing", "corrupt")
	if verify["checked"] != json.Number("2") || verify["missing"] == nil || verify["corrupt"] == nil {
		t.Errorf("verify %v", verify)
	}
}

func TestVerifyTellsOfDamage(t *testing.T) {
	b := newBench(t, starRoute, "eu", "us")
	b.image("eu", "team/app", "v1", "one")
	b.ends(exitDone, "sync")
	blob := digest.FromString("one")
	b.registries["us"].SetBlob("team/app", blob, []byte("two")) // the same size
	b.ends(exitDone, "verify")
	verify := b.json(exitFailed, "verify", "--deep")
	corrupt := verify["corrupt"].([]any)
	if len(corrupt) != 1 {
		t.Fatalf("verify %v", verify)
	}
	b.keys(corrupt[0], "registry", "repository", "tag", "digest")
	if c := corrupt[0].(map[string]any); c["registry"] != "us" || c["repository"] != "team/app" || c["tag"] != "v1" || c["digest"] != blob.String() {
		t.Errorf("corrupt %v", c)
	}
	findings := b.json(exitDone, "findings", "list", "--kind", "corrupt")["findings"].([]any)
	if len(findings) != 1 {
		t.Fatalf("findings %v", findings)
	}
	finding := findings[0].(map[string]any)
	for _, key := range []string{
		"id", "kind", "at", "route", "registry", "repository", "tag", "digest", "message", "hint", "acknowledged",
	} {
		if _, ok := finding[key]; !ok {
			t.Errorf("a finding has no %q", key)
		}
	}
	b.ends(exitDone, "findings", "ack", finding["id"].(string))
	if left := b.json(exitDone, "findings", "list", "--kind", "corrupt")["findings"].([]any); len(left) != 0 {
		t.Errorf("acknowledged, and still listed: %v", left)
	}
}

func TestADestinationThatIsDown(t *testing.T) {
	b := newBench(t, starRoute, "eu", "us")
	b.image("eu", "team/app", "v1", "one")
	b.servers["us"].Close()
	b.ends(exitFailed, "sync", "--retry-for", "10ms")
	b.ends(exitFailed, "plan")
	b.ends(exitFailed, "verify")
	b.ends(exitFailed, "status") // never compared: unknown
}

func TestARouteIsPaused(t *testing.T) {
	b := newBench(t, starRoute, "eu", "us")
	b.image("eu", "team/app", "v1", "one")
	if paused := b.json(exitDone, "pause", "prod"); paused["paused"] != true {
		t.Errorf("pause %v", paused)
	}
	out, _ := b.ends(exitFailed, "sync")
	if !strings.Contains(out, "paused") || b.registries["us"].Has("team/app") {
		t.Errorf("a paused route was synced: %s", out)
	}
	b.ends(exitDone, "resume", "prod")
	b.ends(exitDone, "sync")
}

func TestExitCodesOfUsage(t *testing.T) {
	b := newBench(t, starRoute, "eu", "us")
	b.ends(exitFailed, "status") // no journal yet
	b.image("eu", "team/app", "v1", "one")
	b.ends(exitDone, "sync")
	for _, test := range []struct {
		args string
		code int
		want string // in what is printed
	}{
		{"", exitDone, "Exit codes"},
		{"nope", exitUsage, `no command "nope"`},
		{"jobs nope", exitUsage, `no command "nope"`},
		{"stat", exitUsage, `did you mean "status"`},
		{"status extra", exitUsage, "takes no arguments"},
		{"status --nope", exitUsage, "unknown flag"},
		{"status --output yaml", exitUsage, "table or json"},
		{"status --behind --route nope", exitUsage, `no route "nope"`},
		{"status --route prod", exitUsage, "--behind"},
		{"status --behind --destination nope", exitUsage, `no registry "nope"`},
		{"sync nope", exitUsage, "no such route"},
		{"sync --retry-for 0s", exitUsage, "--retry-for"},
		{"sync --only UPPER", exitUsage, "REPOSITORY"},
		{"sync --only team/none", exitFailed, "no source has team/none"},
		{"sync --only team/app:none", exitFailed, "no source has team/app:none"},
		{"sync --only team/app:v1", exitDone, "in sync"},
		{"plan nope", exitUsage, "no such route"},
		{"verify nope", exitUsage, "no such route"},
		{"jobs list --route nope", exitUsage, `no route "nope"`},
		{"jobs list --destination nope", exitUsage, `no registry "nope"`},
		{"jobs list --state nope", exitUsage, "no job state"},
		{"jobs list --lane nope", exitUsage, "webhook, manual, sweep, backfill"},
		{"jobs list --limit 0", exitUsage, "limit"},
		{"jobs list --limit 1001", exitUsage, "limit"},
		{"jobs list --after nope", exitUsage, "nope"},
		{"jobs show nope", exitFailed, "no job nope"},
		{"jobs show", exitUsage, "one job's ID"},
		{"jobs retry", exitUsage, "--all"},
		{"jobs retry nope --all", exitUsage, "--all"},
		{"jobs retry nope --state failed", exitUsage, "filters go with --all"},
		{"jobs retry nope", exitFailed, "nope"},
		{"jobs cancel --all --route nope", exitUsage, `no route "nope"`},
		{"jobs cancel --all", exitDone, "0 changed"},
		{"findings list --kind nope", exitUsage, "no kind of finding"},
		{"findings list --registry nope", exitUsage, `no registry "nope"`},
		{"findings list --limit 0", exitUsage, "limit"},
		{"findings list --after nope", exitUsage, "nope"},
		{"findings ack", exitUsage, "IDs"},
		{"findings ack nope", exitFailed, "nope"},
		{"history", exitUsage, "REGISTRY/REPOSITORY:TAG"},
		{"history nope/team/app:v1", exitUsage, `no registry "nope"`},
		{"history us/team/app", exitUsage, "REGISTRY/REPOSITORY:TAG"},
		{"history us/team/app:v1 --at nope", exitUsage, "is no time"},
		{"history us/team/app:never", exitDone, "nothing is known"},
		{"pause", exitUsage, "one route's name"},
		{"pause nope", exitUsage, `no route "nope"`},
		{"resume nope", exitUsage, `no route "nope"`},
		{"resolve us/team/app:v1", exitUsage, "--prefer"},
		{"resolve us/team/app:v1 --prefer nope", exitUsage, `no registry "nope"`},
		{"validate", exitDone, "is valid: 2 registries, 1 routes"},
		{"version", exitDone, "twinport "},
		{"completion bash", exitDone, "bash"},
	} {
		stdout, stderr := b.ends(test.code, strings.Fields(test.args)...)
		if !strings.Contains(stdout+stderr, test.want) {
			t.Errorf("twinport %s: %s%s does not say %q", test.args, stdout, stderr, test.want)
		}
		if strings.Contains(stderr, "unknown: unknown") || strings.HasSuffix(strings.TrimSpace(stderr), ": unknown") {
			t.Errorf("twinport %s: clumsy words: %s", test.args, stderr)
		}
	}
}

func TestConfigFaultsExitTwo(t *testing.T) {
	b := newBench(t, starRoute, "eu", "us")
	config, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	b.write(string(bytes.Replace(config, []byte("anonymous: true"), []byte("username: a, password: {env: TWINPORT_TEST_UNSET}"), 1)))
	valid := b.json(exitDone, "validate")
	b.keys(valid, "valid", "registries", "routes", "warnings")
	if warnings := valid["warnings"].([]any); len(warnings) != 1 || !strings.Contains(warnings[0].(string), "TWINPORT_TEST_UNSET") {
		t.Errorf("validate %v", valid)
	}
	b.write(string(config) + "nope: 1\nlisten: 127.0.0.1:1\n")
	for _, command := range []string{"serve", "sync", "plan", "status", "verify", "validate", "jobs list", "pause prod"} {
		_, stderr := b.ends(exitUsage, strings.Fields(command)...)
		if !strings.Contains(stderr, "nope") || !strings.Contains(stderr, "listen") {
			t.Errorf("%s does not tell both faults: %s", command, stderr)
		}
	}
	b.config = filepath.Join(b.dir, "none.yaml")
	b.ends(exitUsage, "status")
}
