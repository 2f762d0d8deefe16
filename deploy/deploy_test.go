// Package deploy_test holds what is shipped beside the binary to what it says:
// files that parse, manifests whose parts fit, alerts that someone can act on,
// guides whose links lead somewhere.
package deploy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/config"
)

// A doc is one decoded YAML document.
type doc = map[string]any

// read decodes every document of a YAML file; a duplicate key is a fault.
func read(t *testing.T, path string) []doc {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var docs []doc
	for decoder := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var d doc
		err := decoder.Decode(&d)
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if d != nil {
			docs = append(docs, d)
		}
	}
}

// at walks keys and list indexes down to a value, nil where there is none.
func at(value any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := value.(doc)
			value = m[step]
		case int:
			list, _ := value.([]any)
			if step >= len(list) {
				return nil
			}
			value = list[step]
		}
	}
	return value
}

// files lists what below the directory ends in one of the suffixes.
func files(t *testing.T, suffixes ...string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && slices.Contains(suffixes, filepath.Ext(path)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatalf("no %v files: the walk is wrong", suffixes)
	}
	return found
}

func TestFilesParse(t *testing.T) {
	t.Parallel()
	for _, path := range files(t, ".yaml", ".yml") {
		if docs := read(t, path); len(docs) == 0 {
			t.Errorf("%s: holds no document", path)
		}
	}
	for _, path := range files(t, ".json") {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(data) {
			t.Errorf("%s: not JSON", path)
		}
	}
}

const base = "kubernetes/base/"

// manifests reads what kustomization.yaml lists, by kind and name.
func manifests(t *testing.T) map[string]doc {
	t.Helper()
	all := map[string]doc{}
	listed := []string{"kustomization.yaml", "twinport.yaml", "secret.example.yaml"}
	for _, name := range at(read(t, base+"kustomization.yaml")[0], "resources").([]any) {
		listed = append(listed, name.(string))
		for _, d := range read(t, base+name.(string)) {
			all[at(d, "kind").(string)+"/"+at(d, "metadata", "name").(string)] = d
		}
	}
	for _, path := range files(t, ".yaml") {
		if name, ok := strings.CutPrefix(path, base); ok && !slices.Contains(listed, name) {
			t.Errorf("%s is not in kustomization.yaml", path)
		}
	}
	return all
}

// TestKubernetesDeployment holds what keeps one journal to one daemon, gives a
// stop its time, and leaves the pod no rights.
func TestKubernetesDeployment(t *testing.T) {
	t.Parallel()
	all := manifests(t)
	deployment := all["Deployment/twinport"]
	pod := at(deployment, "spec", "template", "spec")
	container := at(pod, "containers", 0)
	tests := []struct {
		what      string
		got, want any
	}{
		{"replicas", at(deployment, "spec", "replicas"), uint64(1)},
		{"strategy", at(deployment, "spec", "strategy", "type"), "Recreate"},
		{"grace", at(pod, "terminationGracePeriodSeconds"), uint64(60)},
		{"token", at(pod, "automountServiceAccountToken"), false},
		{"service links, which would set TWINPORT_ variables", at(pod, "enableServiceLinks"), false},
		{"non-root", at(pod, "securityContext", "runAsNonRoot"), true},
		{"seccomp", at(pod, "securityContext", "seccompProfile", "type"), "RuntimeDefault"},
		{"read-only root", at(container, "securityContext", "readOnlyRootFilesystem"), true},
		{"escalation", at(container, "securityContext", "allowPrivilegeEscalation"), false},
		{"capabilities", at(container, "securityContext", "capabilities", "drop"), []any{"ALL"}},
		{"liveness", at(container, "livenessProbe", "httpGet", "path"), "/healthz"},
		{"readiness", at(container, "readinessProbe", "httpGet", "path"), "/readyz"},
		{"claim", at(all["PersistentVolumeClaim/"+at(pod, "volumes", 0, "persistentVolumeClaim", "claimName").(string)], "kind"), "PersistentVolumeClaim"},
		{"account", at(all["ServiceAccount/"+at(pod, "serviceAccountName").(string)], "automountServiceAccountToken"), false},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, test.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.what, diff)
		}
	}
	for kind := range all {
		if strings.HasPrefix(kind, "PodDisruptionBudget/") {
			t.Errorf("%s: on one replica it only blocks drains", kind)
		}
	}
}

// TestKubernetesNames: what one manifest calls another exists.
func TestKubernetesNames(t *testing.T) {
	t.Parallel()
	all := manifests(t)
	pod := at(all["Deployment/twinport"], "spec", "template", "spec")
	container := at(pod, "containers", 0)
	ports := map[string]uint64{}
	for _, port := range at(container, "ports").([]any) {
		ports[at(port, "name").(string)] = at(port, "containerPort").(uint64)
	}
	for _, name := range []string{"Service/twinport", "Service/twinport-admin"} {
		if target := at(all[name], "spec", "ports", 0, "targetPort"); ports[target.(string)] == 0 {
			t.Errorf("%s: the pod has no port %v", name, target)
		}
	}
	if hooks, admin := at(all["Service/twinport"], "spec", "ports", 0, "targetPort"), at(all["Service/twinport-admin"], "spec", "ports", 0, "targetPort"); hooks != "hooks" || admin != "admin" {
		t.Errorf("webhooks and admin share a service: %v, %v", hooks, admin)
	}
	file := read(t, base+"twinport.yaml")[0]
	for key, port := range map[string]string{"listen": "0.0.0.0:8480", "admin": "0.0.0.0:8481"} {
		if at(file, key) != port {
			t.Errorf("%s is %v, the pod's port says %s", key, at(file, key), port)
		}
	}
	if ports["hooks"] != 8480 || ports["admin"] != 8481 {
		t.Errorf("the pod's ports are %v", ports)
	}
	var volumes, mounts []string
	for _, volume := range at(pod, "volumes").([]any) {
		volumes = append(volumes, at(volume, "name").(string))
	}
	for _, mount := range at(container, "volumeMounts").([]any) {
		mounts = append(mounts, at(mount, "name").(string))
	}
	if diff := cmp.Diff(volumes, mounts); diff != "" {
		t.Errorf("volumes and mounts differ (-volumes +mounts):\n%s", diff)
	}
}

// TestKubernetesSecrets: the config asks for what the example Secret has.
func TestKubernetesSecrets(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(base + "twinport.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var asked, given []string
	for _, match := range regexp.MustCompile(`\{env: ([A-Z_]+)\}`).FindAllStringSubmatch(string(data), -1) {
		asked = append(asked, match[1])
	}
	for key := range at(read(t, base+"secret.example.yaml")[0], "stringData").(doc) {
		given = append(given, key)
	}
	slices.Sort(asked)
	slices.Sort(given)
	if diff := cmp.Diff(asked, given); diff != "" {
		t.Errorf("twinport.yaml and secret.example.yaml (-asked +given):\n%s", diff)
	}
}

// TestExamples: each config that is shipped is valid, but for secrets that
// only the machine which runs it has.
func TestExamples(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Glob("examples/*.yaml")
	if err != nil || len(examples) < 5 {
		t.Fatalf("found %v: %v", examples, err)
	}
	for _, path := range append(examples, base+"twinport.yaml") {
		_, warnings, err := config.Check(path)
		if err != nil {
			t.Error(err)
		}
		for _, warning := range warnings {
			if !warning.Unset {
				t.Error(warning.Error())
			}
		}
	}
}

// TestAlerts: each alert has whom to tell and what to do.
func TestAlerts(t *testing.T) {
	t.Parallel()
	alerts := 0
	for _, group := range at(read(t, "prometheus/alerts.yaml")[0], "groups").([]any) {
		for _, rule := range at(group, "rules").([]any) {
			name := at(rule, "alert")
			if name == nil {
				continue
			}
			alerts++
			for _, path := range [][]any{{"labels", "severity"}, {"labels", "owner"}, {"labels", "contact"}, {"annotations", "summary"}, {"annotations", "action"}} {
				if text, _ := at(rule, path...).(string); text == "" {
					t.Errorf("%v: no %v", name, path)
				}
			}
			if severity := at(rule, "labels", "severity"); severity != "page" && severity != "ticket" {
				t.Errorf("%v: severity %v", name, severity)
			}
		}
	}
	if alerts < 8 {
		t.Errorf("%d alerts", alerts)
	}
}

// TestAlertMetrics: alerts speak of metrics that the daemon has. A metric is
// declared with its whole name, or through a helper that puts twinport_ before.
func TestAlertMetrics(t *testing.T) {
	t.Parallel()
	var source []byte
	for _, pattern := range []string{"../replicator/api/*.go", "../replicator/limit/*.go"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %v, %v", pattern, paths, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			source = append(source, text...)
		}
	}
	rules, err := os.ReadFile("prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`\btwinport_([a-z_]+)`).FindAllSubmatch(rules, -1)
	if len(names) == 0 {
		t.Fatal("alerts name no metric")
	}
	for _, name := range names {
		if !bytes.Contains(source, []byte(`"twinport_`+string(name[1])+`"`)) && !bytes.Contains(source, []byte(`desc("`+string(name[1])+`"`)) {
			t.Errorf("no metric %s in the daemon", name[0])
		}
	}
}

// TestAlertRules asks Prometheus' own tool.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	promtool := tool(t, "promtool")
	for _, args := range [][]string{
		{"check", "rules", "alerts.yaml"},
		{"test", "rules", "alerts_test.yaml"},
		{"check", "config", "--syntax-only", "scrape.yaml"},
	} {
		run(t, "prometheus", promtool, args...)
	}
}

// TestSystemdUnit asks systemd's own tool, which wants the binary to be there.
func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	analyze := tool(t, "systemd-analyze")
	unit, err := os.ReadFile("systemd/twinport.service")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "twinport.service")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.ReplaceAll(unit, []byte("/usr/local/bin/twinport"), []byte(self))
	if bytes.Equal(changed, unit) {
		t.Fatal("the unit does not start /usr/local/bin/twinport")
	}
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	// It also tells of other units of this machine; those are not ours.
	for line := range strings.Lines(run(t, ".", analyze, "verify", path)) {
		if strings.Contains(line, "twinport") {
			t.Error(line)
		}
	}
	// Exposure in tenths: 1.5 of 10.
	run(t, ".", analyze, "security", "--offline=yes", "--threshold=15", path)
}

// TestLinks: what the guides point to is there.
func TestLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
	for _, path := range files(t, ".md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), match[1])); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

// tool finds a program that the machine may lack; the test is left out then.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no %s on this machine", name)
	}
	return path
}

// run returns what a command that has to succeed says.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out)
}
