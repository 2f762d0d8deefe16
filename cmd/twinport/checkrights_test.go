package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/check"
)

// between is a config in which a registry x is one route's destination and
// another's source; lines are x's own.
func between(b *bench, x, lines, include string) {
	config := fmt.Sprintf("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\ndata: %s\nregistries:\n", filepath.Join(b.dir, "data"))
	for _, name := range []string{"eu", "us"} {
		config += fmt.Sprintf("  %s: {kind: oci, address: %q, plainHTTP: true, auth: {anonymous: true}}\n", name, b.servers[name].Listener.Addr())
	}
	config += fmt.Sprintf("  x: {%s, address: %q, plainHTTP: %v, webhook: {secret: hook}}\nroutes:\n", lines, x, !strings.Contains(lines, "tls:"))
	config += "  - {name: in, from: eu, to: [x], repositories: {include: [team/app, team/web]}}\n"
	config += "  - {name: out, from: x, to: [us], repositories: {include: [" + include + "]}}\n"
	b.write(config)
}

// expect holds one check of x, and that all the others are fine.
func (b *bench) expect(name string, want check.State, words ...string) {
	b.Helper()
	b.expectWith("", name, want, words...)
}

// expectWith lets another check come to what it comes to.
func (b *bench) expectWith(also, name string, want check.State, words ...string) {
	b.Helper()
	code := exitDone
	if want == check.Failed {
		code = exitFailed
	}
	told := b.look(code, "x")
	got := told["x"][name]
	if got.State != want {
		b.Errorf("%s: %+v, want %s", name, got, want)
	}
	for _, word := range words {
		if !strings.Contains(got.Hint, word) {
			b.Errorf("%s: %+v does not tell %q", name, got, word)
		}
	}
	for other, state := range told.states("x") {
		if other != name && other != also {
			b.Errorf("%s is %s, too: %+v", other, state, told["x"][other])
		}
	}
}

// tagged is what a fake holds but for blobs that no manifest names: not all
// registries delete those when they are asked to.
func tagged(f *providertest.Fake) string {
	var b strings.Builder
	for _, repo := range f.Repos() {
		manifests, _, sessions := f.Left(repo)
		fmt.Fprintln(&b, repo, f.Tags(repo), manifests, sessions)
	}
	return b.String()
}

// TestCheckRights takes single rights of an account away and looks whether the
// one that is missing is named, with what to grant.
func TestCheckRights(t *testing.T) {
	const password = "password-of-robot"
	literal := `team/app, team/web`
	harbor := func(f *providertest.Fake) http.Handler {
		return &providertest.Harbor{Fake: f, Projects: []string{"team"}, Admin: true}
	}
	quay := func(f *providertest.Fake) http.Handler { return &providertest.Quay{Fake: f} }
	ghcr := func(f *providertest.Fake) http.Handler {
		return &providertest.GHCR{Fake: f, Referrers: http.StatusNotFound}
	}
	hub := func(f *providertest.Fake) http.Handler { return &providertest.DockerHub{Fake: f} }
	gitlab := func(f *providertest.Fake) http.Handler {
		return &providertest.GitLab{Fake: f, Projects: []string{"team"}}
	}
	gitea := func(f *providertest.Fake) http.Handler { return &providertest.Gitea{Fake: f, Owners: []string{"team"}} }
	nexus := func(f *providertest.Fake) http.Handler { return &providertest.Nexus{Fake: f} }
	artifactory := func(f *providertest.Fake) http.Handler {
		return &providertest.Artifactory{Fake: f, Keys: []string{"team"}}
	}
	plainly := func(f *providertest.Fake) http.Handler { return f }
	for _, c := range []struct {
		kind, include string
		front         func(*providertest.Fake) http.Handler
		deny          string
		check         string
		state         check.State
		words         []string
	}{
		{"oci", `"team/**"`, plainly, "", "push", check.OK, nil},
		{"oci", `"team/**"`, plainly, "push", "push", check.Failed, []string{"right to push"}},
		{"oci", `"team/**"`, plainly, "pull", "list", check.Failed, []string{"right to pull"}},
		{"oci", `"team/**"`, plainly, "catalog", "list", check.Failed, []string{"repositories.include", "read the catalog"}},
		{"oci", literal, plainly, "catalog", "list", check.OK, nil},
		{"oci", `"team/**"`, plainly, "delete", "delete", check.Skipped, []string{"right to delete"}},
		{"zot", `"team/**"`, plainly, "", "push", check.OK, nil},
		{"zot", `"team/**"`, plainly, "push", "push", check.Failed, []string{`"create"`, "accessControl"}},
		{"zot", `"team/**"`, plainly, "pull", "list", check.Failed, []string{`"read"`, "accessControl"}},
		{"zot", `"team/**"`, plainly, "delete", "delete", check.Skipped, []string{`"delete"`, "accessControl"}},
		{"harbor", `"team/**"`, harbor, "", "push", check.OK, nil},
		{"harbor", `"team/**"`, harbor, "push", "push", check.Failed, []string{"Repository: Push", "Developer"}},
		{"harbor", `"team/**"`, harbor, "pull", "pull", check.Failed, []string{"Repository: Pull", "Limited Guest"}},
		{"harbor", `"team/**"`, harbor, "delete", "delete", check.Skipped, []string{"Artifact: Delete", "Maintainer"}},
		{"quay", `"team/**"`, quay, "", "push", check.OK, nil},
		{"quay", `"team/**"`, quay, "push", "push", check.Failed, []string{"write permission"}},
		{"quay", `"team/**"`, quay, "delete", "delete", check.Skipped, []string{"write permission"}},
		{"ghcr", literal, ghcr, "", "push", check.OK, nil},
		{"ghcr", literal, ghcr, "push", "push", check.Failed, []string{"write:packages"}},
		{"ghcr", literal, ghcr, "pull", "list", check.Failed, []string{"read:packages"}},
		{"dockerhub", literal, hub, "", "push", check.OK, nil},
		{"dockerhub", literal, hub, "push", "push", check.Failed, []string{"Read & Write"}},
		{"dockerhub", literal, hub, "pull", "pull", check.Failed, []string{"access"}},
		{"dockerhub", literal, hub, "delete", "delete", check.Skipped, []string{"delete"}},
		{"gitlab", `"team/**"`, gitlab, "", "push", check.OK, nil},
		{"gitlab", `"team/**"`, gitlab, "push", "push", check.Failed, []string{"write_registry", "Developer"}},
		{"gitlab", `"team/**"`, gitlab, "pull", "list", check.Failed, []string{"read_registry"}},
		{"gitlab", `"team/**"`, gitlab, "delete", "delete", check.Skipped, []string{"Maintainer"}},
		{"gitea", `"team/**"`, gitea, "", "push", check.OK, nil},
		{"gitea", `"team/**"`, gitea, "push", "push", check.Failed, []string{"write:package"}},
		{"gitea", `"team/**"`, gitea, "pull", "list", check.Failed, []string{"read:package"}},
		{"gitea", `"team/**"`, gitea, "delete", "delete", check.Skipped, []string{"write:package"}},
		{"nexus", `"team/**"`, nexus, "", "push", check.OK, nil},
		{"nexus", `"team/**"`, nexus, "push", "push", check.Failed, []string{"-add", "-edit"}},
		{"nexus", `"team/**"`, nexus, "pull", "list", check.Failed, []string{"-read", "-browse"}},
		{"nexus", `"team/**"`, nexus, "delete", "delete", check.Skipped, []string{"-delete"}},
		{"artifactory", literal, artifactory, "", "push", check.OK, nil},
		{"artifactory", literal, artifactory, "push", "push", check.Failed, []string{"Deploy/Cache"}},
		{"artifactory", literal, artifactory, "pull", "list", check.Failed, []string{"Read on the repository"}},
		{"artifactory", literal, artifactory, "delete", "delete", check.Skipped, []string{"Delete/Overwrite"}},
	} {
		t.Run(c.kind+" "+c.deny+" "+c.check, func(t *testing.T) {
			b := newBench(t, starRoute, "eu", "us")
			f := &providertest.Fake{Username: "robot", Password: password, Tokens: c.kind != "nexus"}
			b.registries["x"] = f
			b.image("x", "team/app", "v1", "one")
			b.image("x", "team/web", "v1", "two")
			before := tagged(f)
			f.Deny(c.deny)
			server := httptest.NewServer(c.front(f))
			t.Cleanup(server.Close)
			between(b, server.Listener.Addr().String(), fmt.Sprintf("kind: %s, auth: {username: robot, password: %s}", c.kind, password), c.include)
			b.expect(c.check, c.state, c.words...)
			if after := tagged(f); after != before {
				t.Errorf("it held\n%sand now\n%s", before, after)
			}
		})
	}
}

// TestCheckHarbor: projects that may not be made, those that are missing, and
// rules that would keep a probe's tag.
func TestCheckHarbor(t *testing.T) {
	const password = "password-of-robot"
	for name, c := range map[string]struct {
		harbor providertest.Harbor
		create bool
		check  string
		state  check.State
		detail string
		word   string
	}{
		"may make projects": {providertest.Harbor{Projects: []string{"team"}, Admin: true}, true, "create", check.OK, "may make", ""},
		"may not":           {providertest.Harbor{Projects: []string{"team"}}, true, "create", check.Failed, "403", "right to create projects"},
		"need not":          {providertest.Harbor{Projects: []string{"team"}}, false, "create", check.Skipped, "not needed", ""},
		"a rule keeps tags": {providertest.Harbor{Projects: []string{"team"}, Rule: "team"}, false, "push", check.OK, "no tag", ""},
		"no rule":           {providertest.Harbor{Projects: []string{"team"}}, false, "push", check.OK, ":twinport-check-", ""},
		"a full project":    {providertest.Harbor{Projects: []string{"team"}, Quota: "team"}, false, "push", check.Failed, "quota", "quota"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, starRoute, "eu", "us")
			f := &providertest.Fake{Username: "robot", Password: password, Tokens: true}
			b.registries["x"] = f
			b.image("x", "team/app", "v1", "one")
			b.image("x", "team/web", "v1", "two")
			c.harbor.Fake = f
			server := httptest.NewServer(&c.harbor)
			t.Cleanup(server.Close)
			lines := fmt.Sprintf("kind: harbor, auth: {username: robot, password: %s}", password)
			if c.create {
				lines += ", create: {missing: true}"
			}
			between(b, server.Listener.Addr().String(), lines, `"team/**"`)
			before := tagged(f)
			got := b.look(exitOf(c.state), "x")["x"][c.check]
			if got.State != c.state || !strings.Contains(got.Detail, c.detail) || !strings.Contains(got.Hint, c.word) {
				t.Errorf("%+v", got)
			}
			if after := tagged(f); after != before {
				t.Errorf("it held\n%sand now\n%s", before, after)
			}
		})
	}
	b := newBench(t, starRoute, "eu", "us")
	b.image("eu", "other/app", "v1", "one")
	server := httptest.NewServer(&providertest.Harbor{Fake: &providertest.Fake{}, Projects: []string{"team"}})
	t.Cleanup(server.Close)
	between(b, server.Listener.Addr().String(), "kind: harbor, auth: {anonymous: true}", `"team/**"`)
	config, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	b.write(strings.Replace(string(config), "[team/app, team/web]", `["other/**"]`, 1))
	told := b.look(exitFailed, "x")["x"]
	if got := told["create"]; got.State != check.Warning || !strings.Contains(got.Hint, "create the project") {
		t.Errorf("a project that nobody makes: %+v", got)
	}
	if got := told["push"]; got.State != check.Failed || !strings.Contains(got.Hint, "create the project") {
		t.Errorf("a push to it: %+v", got)
	}
}
