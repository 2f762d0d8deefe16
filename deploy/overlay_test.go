package deploy_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/config"
)

const overlay = "kubernetes/overlays/postgres/"

// built is what kustomize makes of the overlay, by kind and name.
func built(t *testing.T) map[string]doc {
	t.Helper()
	program, err := filepath.Abs("../.cache/bin/kustomize")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Skip("no kustomize; .ci/build-tools kustomize builds it")
	}
	out, err := exec.Command(program, "build", overlay).Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]doc{}
	decoder := yaml.NewDecoder(bytes.NewReader(out))
	for {
		var d doc
		if err := decoder.Decode(&d); err != nil {
			break
		}
		all[at(d, "kind").(string)+"/"+at(d, "metadata", "name").(string)] = d
	}
	return all
}

// TestPostgresOverlay holds what makes several replicas of one journal.
func TestPostgresOverlay(t *testing.T) {
	t.Parallel()
	all := built(t)
	deployment := all["Deployment/twinport"]
	pod := at(deployment, "spec", "template", "spec")
	budget := all["PodDisruptionBudget/twinport"]
	own := map[string]any{"app.kubernetes.io/name": "twinport"}
	tests := []struct {
		what      string
		got, want any
	}{
		{"replicas", at(deployment, "spec", "replicas"), uint64(3)},
		{"strategy", at(deployment, "spec", "strategy", "type"), "RollingUpdate"},
		{"drains", at(budget, "spec", "maxUnavailable"), uint64(1)},
		{"whose drains", at(budget, "spec", "selector", "matchLabels"), any(own)},
		{"pods", at(deployment, "spec", "template", "metadata", "labels"), any(own)},
		{"zones", at(pod, "topologySpreadConstraints", 0, "topologyKey"), "topology.kubernetes.io/zone"},
		{"zones of whom", at(pod, "topologySpreadConstraints", 0, "labelSelector", "matchLabels"), any(own)},
		{"nodes", at(pod, "topologySpreadConstraints", 1, "topologyKey"), "kubernetes.io/hostname"},
		{"data", at(pod, "volumes", 0, "emptyDir", "sizeLimit"), "12Gi"},
		{"grace", at(pod, "terminationGracePeriodSeconds"), uint64(60)},
		{"read-only root", at(pod, "containers", 0, "securityContext", "readOnlyRootFilesystem"), true},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, test.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.what, diff)
		}
	}
	for name := range all {
		if strings.HasPrefix(name, "PersistentVolumeClaim/") {
			t.Errorf("%s: three replicas cannot share a volume", name)
		}
	}
	egress := at(all["NetworkPolicy/twinport"], "spec", "egress").([]any)
	if !slices.ContainsFunc(egress, func(rule any) bool { return at(rule, "ports", 0, "port") == uint64(5432) }) {
		t.Error("the network policy lets nobody reach PostgreSQL")
	}
	shown := at(all["ConfigMap/twinport"], "data", "twinport.yaml").(string)
	file, err := os.ReadFile(overlay + "twinport.yaml")
	if err != nil || shown != string(file) {
		t.Errorf("the ConfigMap is not the overlay's twinport.yaml: %v", err)
	}
}

// TestPostgresOverlayConfig: the overlay's config is the base's, with a
// database for all and a directory for each.
func TestPostgresOverlayConfig(t *testing.T) {
	t.Parallel()
	cfg, _, err := config.Check(overlay + "twinport.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if origin := cfg.Database.Origin(); origin != "env TWINPORT_DATABASE" {
		t.Errorf("database comes from %s", origin)
	}
	ours, theirs := read(t, overlay+"twinport.yaml")[0], read(t, base+"twinport.yaml")[0]
	delete(ours, "database")
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Errorf("the rest differs from the base's (-base +overlay):\n%s", diff)
	}
}
