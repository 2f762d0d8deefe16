package replicator_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// module is the path every import of ours begins with.
const module = "github.com/twinport/twinport"

// rooms is who may import whom of our own packages, ground floor first. A
// package belongs to the longest room its path begins with, and packages of
// one room may import each other. "replicator/..." stands for every room
// below replicator.
var rooms = map[string][]string{
	"replicator/oci":        {},
	"replicator":            {"replicator/oci"},
	"replicator/limit":      {"replicator/oci"},
	"replicator/intake":     {"replicator/oci", "replicator"},
	"replicator/plan":       {"replicator/oci", "replicator"},
	"replicator/journal":    {"replicator/oci", "replicator"},
	"replicator/transfer":   {"replicator/oci", "replicator"},
	"replicator/verify":     {"replicator/oci", "replicator"},
	"replicator/sweep":      {"replicator/oci", "replicator"},
	"replicator/check":      {"replicator/oci"},
	"replicator/failover":   {"replicator/oci", "replicator"},
	"replicator/api":        {"replicator/oci", "replicator", "replicator/journal"},
	"replicator/daemon":     {"replicator/..."},
	"replicator/simulation": {},
	"providers":             {"replicator/oci", "replicator", "providers/..."},
	"providers/generic":     {"replicator/oci", "replicator"},
	"providers/acr":         {"replicator/oci", "replicator", "providers/generic"},
	"providers/ecr":         {"replicator/oci", "replicator", "providers/generic"},
	"providers/gcr":         {"replicator/oci", "replicator", "providers/generic"},
	"providers/harbor":      {"replicator/oci", "replicator", "providers/generic"},
	"providers/artifactory": {"replicator/oci", "replicator", "providers/generic"},
	"providers/dockerhub":   {"replicator/oci", "replicator", "providers/generic"},
	"providers/ghcr":        {"replicator/oci", "replicator", "providers/generic"},
	"providers/gitea":       {"replicator/oci", "replicator", "providers/generic"},
	"providers/gitlab":      {"replicator/oci", "replicator", "providers/generic"},
	"providers/nexus":       {"replicator/oci", "replicator", "providers/generic"},
	"providers/quay":        {"replicator/oci", "replicator", "providers/generic"},
	"providers/zot":         {"replicator/oci", "replicator", "providers/generic"},
	"config":                {},
	"cmd/twinport":          {"replicator/...", "providers/...", "config"},
	"integration":           {"providers/providertest"},
}

// words is where a third party's word is spoken: the rooms that may import a
// path that begins with the key. A module that is not named here has no room,
// and whoever needs a new one decides here where it lives.
var words = map[string][]string{
	"github.com/opencontainers/image-spec":   {"replicator/...", "providers/...", "cmd/twinport"},
	"github.com/opencontainers/go-digest":    {"replicator/...", "providers/...", "cmd/twinport"},
	"github.com/google/go-containerregistry": {"providers/..."},
	"github.com/bmatcuk/doublestar/v4":       {"replicator/plan", "config"},
	"github.com/Masterminds/semver/v3":       {"replicator/plan", "config"},
	"modernc.org/sqlite":                     {"replicator/journal"},
	"github.com/jackc/pgx/v5":                {"replicator/journal"},
	"github.com/pressly/goose/v3":            {"replicator/journal"},
	"database/sql":                           {"replicator/journal"},
	"github.com/prometheus/client_golang":    {"replicator/limit", "replicator/api"},
	"github.com/goccy/go-yaml":               {"config"},
	"github.com/spf13/cobra":                 {"cmd/twinport"},
	"github.com/vbauerster/mpb/v8":           {"cmd/twinport"},
	"golang.org/x/term":                      {"cmd/twinport"},
	"golang.org/x/time":                      {"replicator/limit"},
	"golang.org/x/sys":                       {"replicator/journal", "replicator/transfer", "replicator/daemon", "cmd/twinport"},
	"golang.org/x/sync":                      {"replicator/...", "providers/...", "cmd/twinport"},
	"go.uber.org/zap":                        {"replicator/...", "providers/...", "cmd/twinport"},
	"github.com/aws/aws-sdk-go-v2":           {"providers/..."},
	"github.com/aws/smithy-go":               {"providers/..."},
	"github.com/Azure/azure-sdk-for-go":      {"providers/..."},
	"cloud.google.com/go":                    {"providers/..."},
}

// silent names what a room has to do without though the tables above would
// allow it: the ground floor, plan and verify return values and do not log,
// and plan asks neither the network nor the disk.
var silent = map[string][]string{
	"replicator/oci":    {"go.uber.org/zap", "log", "log/slog", "golang.org/x/sync"},
	"replicator":        {"go.uber.org/zap", "log", "log/slog", "golang.org/x/sync", "net", "net/http", "os"},
	"replicator/plan":   {"go.uber.org/zap", "log", "log/slog", "golang.org/x/sync", "net", "net/http", "os", "os/exec", "io/fs", "math/rand", "math/rand/v2"},
	"replicator/verify": {"go.uber.org/zap", "log", "log/slog"},
	"config":            {"log", "log/slog", "net/http"},
}

// TestLayers reads the imports of every package of both modules, tests
// excepted, and holds them to the tables above.
func TestLayers(t *testing.T) {
	t.Parallel()
	root := moduleRoot(t)
	seen := map[string]bool{}
	for _, file := range sourceFiles(t, root) {
		dir := filepath.ToSlash(filepath.Dir(file))
		seen[roomOf(dir)] = true
		for _, imported := range importsOf(t, filepath.Join(root, file)) {
			if fault := check(dir, imported); fault != "" {
				t.Errorf("%s: %s", file, fault)
			}
		}
	}
	if !seen["replicator"] || !seen["replicator/oci"] {
		t.Fatalf("found no source below %s: the walk is wrong", root)
	}
}

// TestLayersRefuses shows that each kind of breach is noticed.
func TestLayersRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ dir, imported, want string }{
		{"replicator/oci", module + "/replicator", "room replicator/oci may not import replicator; it may import nothing of ours"},
		{"replicator/plan", module + "/replicator/journal", "room replicator/plan may not import replicator/journal; it may import replicator/oci, replicator"},
		{"replicator/daemon", module + "/providers/generic", "room replicator/daemon may not import providers/generic; it may import replicator/..."},
		{"replicator/daemon", module + "/replicator/sweep", ""},
		{"replicator/journal/sqlite", module + "/replicator/journal", ""},
		{"replicator/journal/sqlite", "modernc.org/sqlite", ""},
		{"replicator/sweep", "modernc.org/sqlite/lib", "room replicator/sweep may not import modernc.org/sqlite/lib; that word is spoken in replicator/journal"},
		{"replicator/sweep", "github.com/unheard/of", "github.com/unheard/of has no room; name the rooms that may import it in layers_test.go"},
		{"replicator/transfer", "github.com/google/go-containerregistry/pkg/name", "room replicator/transfer may not import github.com/google/go-containerregistry/pkg/name; that word is spoken in providers/..."},
		{"replicator/plan", "net/http", "room replicator/plan has to do without net/http"},
		{"replicator/plan", "strings", ""},
		{"replicator/verify", "go.uber.org/zap", "room replicator/verify has to do without go.uber.org/zap"},
		{"providers/zot", module + "/providers/harbor", "room providers/zot may not import providers/harbor; it may import replicator/oci, replicator, providers/generic"},
		{"providers/nowhere", "strings", "providers/nowhere is no room; name it and what it may import in layers_test.go"},
		{"replicator/util", "strings", "replicator/util is no room; name it and what it may import in layers_test.go"},
		{"cmd/twinport", module + "/replicator/oci/ocitest", "replicator/oci/ocitest is a helper of tests; only tests may import it"},
		{"providers/providertest", module + "/replicator/daemon", ""},
		{"integration/demo", module + "/replicator/oci", "room integration may not import replicator/oci; it may import providers/providertest"},
		{"integration/demo", module + "/providers/providertest", ""},
		{"integration/demo", "github.com/unheard/of", ""},
		{"config", "C", "cgo has no room: the product is static"},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, check(test.dir, test.imported)); diff != "" {
			t.Errorf("check(%q, %q) (-want +got):\n%s", test.dir, test.imported, diff)
		}
	}
}

// check returns what is wrong with one import of a package by its directory
// below the root of the module, or "".
func check(dir, imported string) string {
	if helper(dir) {
		return ""
	}
	room := roomOf(dir)
	if room == "" {
		return fmt.Sprintf("%s is no room; name it and what it may import in layers_test.go", dir)
	}
	if imported == "C" {
		return "cgo has no room: the product is static"
	}
	if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
		return checkOurs(room, ours)
	}
	if room == "integration" {
		return "" // its own go.mod says what it needs
	}
	for _, word := range silent[room] {
		if imported == word || strings.Contains(word, ".") && below(imported, word) {
			return fmt.Sprintf("room %s has to do without %s", room, imported)
		}
	}
	return checkWord(room, imported)
}

func checkOurs(room, ours string) string {
	may := rooms[room]
	switch {
	case helper(ours) && room != "integration":
		return ours + " is a helper of tests; only tests may import it"
	case helper(ours) && slices.Contains(may, ours):
		return ""
	case roomOf(ours) == room, named(roomOf(ours), may):
		return ""
	case len(may) == 0:
		return fmt.Sprintf("room %s may not import %s; it may import nothing of ours", room, ours)
	}
	return fmt.Sprintf("room %s may not import %s; it may import %s", room, ours, strings.Join(may, ", "))
}

func checkWord(room, imported string) string {
	for word, where := range words {
		if below(imported, word) && !named(room, where) {
			return fmt.Sprintf("room %s may not import %s; that word is spoken in %s", room, imported, strings.Join(where, ", "))
		}
		if below(imported, word) {
			return ""
		}
	}
	if first, _, _ := strings.Cut(imported, "/"); strings.Contains(first, ".") {
		return imported + " has no room; name the rooms that may import it in layers_test.go"
	}
	return ""
}

// helper tells whether a package exists for tests alone, by its name.
func helper(dir string) bool { return strings.HasSuffix(dir, "test") }

// roomOf returns the longest room that holds a directory, or "". The rooms
// that have rooms below them hold only themselves: a new package beside them
// has to be named.
func roomOf(dir string) string {
	best := ""
	for room := range rooms {
		if below(dir, room) && len(room) > len(best) {
			best = room
		}
	}
	if (best == "replicator" || best == "providers") && best != dir && !helper(dir) {
		return ""
	}
	return best
}

// named tells whether a room is in a list whose "x/..." stands for x and all below it.
func named(room string, list []string) bool {
	return slices.ContainsFunc(list, func(entry string) bool {
		prefix, all := strings.CutSuffix(entry, "/...")
		return room != "" && (room == entry || all && below(room, prefix))
	})
}

// below tells whether a slash-separated path is another or lies below it.
func below(path, other string) bool {
	return path == other || strings.HasPrefix(path, other+"/")
}

// moduleRoot is the directory that holds the product's go.mod.
func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// sourceFiles lists the Go files of both modules relative to the root, without
// tests, test data and hidden directories.
func sourceFiles(t *testing.T, root string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != root && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := filepath.Rel(root, path)
		files = append(files, file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func importsOf(t *testing.T, file string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, spec := range parsed.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}
