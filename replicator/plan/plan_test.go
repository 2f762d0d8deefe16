package plan

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

var registries = []Registry{
	{"eu", "oci://eu.example.com"}, {"us", "oci://us.example.com"}, {"ap", "oci://ap.example.com"},
	{"old-eu", "oci://eu.example.com"}, {"bare", ""},
}

func newRules(t testing.TB, routes ...Route) *Rules {
	t.Helper()
	for i := range routes {
		if routes[i].Name == "" {
			routes[i].Name = "prod"
		}
		if routes[i].From == "" {
			routes[i].From = "eu"
		}
		if routes[i].To == nil {
			routes[i].To = []string{"us"}
		}
	}
	rules, err := New(routes, registries)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func include(patterns ...string) Filter { return Filter{Include: patterns} }

func TestSelects(t *testing.T) {
	team := Filter{Include: []string{"team/**", "base"}, Exclude: []string{"team/scratch/**", "**/tmp-*"}}
	for _, tt := range []struct {
		name, repository string
		filter           Filter
		reason           string // empty: selected
	}{
		{"no filter selects all", "any/thing", Filter{}, ""},
		{"double star crosses slashes", "team/a/b/c", team, ""},
		{"double star takes the folder itself", "team", team, ""},
		{"a name that only begins alike is another", "teams/a", team, "repository teams/a is not included by route prod (team/**, base)"},
		{"a literal is the whole name", "base/x", team, "repository base/x is not included by route prod (team/**, base)"},
		{"exclude has the last word", "team/scratch/x", team, "repository team/scratch/x is excluded by team/scratch/** of route prod"},
		{"exclude in any folder", "team/a/tmp-1", team, "repository team/a/tmp-1 is excluded by **/tmp-* of route prod"},
		{"a star stays in its folder", "team/a/b", include("team/*"), "repository team/a/b is not included by route prod (team/*)"},
		{"braces are alternatives", "b/x", include("{a,b}/*"), ""},
		{"classes", "r7", include("r[0-9]"), ""},
		{"excluding all selects none", "a", Filter{Exclude: []string{"**"}}, "repository a is excluded by ** of route prod"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ok, reason := newRules(t, Route{Repositories: tt.filter}).Selects("prod", tt.repository)
			if ok != (tt.reason == "") || reason != tt.reason {
				t.Errorf("got %v %q, want %q", ok, reason, tt.reason)
			}
		})
	}
	if ok, reason := newRules(t, Route{}).Selects("test", "a"); ok || reason != `no route "test"` {
		t.Errorf("unknown route: got %v %q", ok, reason)
	}
}

func TestReasonsStayShort(t *testing.T) {
	_, reason := newRules(t, Route{Repositories: include(slices.Repeat([]string{"team-with-a-name/**"}, 5000)...)}).Selects("prod", "x")
	if len(reason) > 400 || !strings.Contains(reason, " and 49") {
		t.Errorf("got %d bytes: %.500s", len(reason), reason)
	}
}

func TestSelectsTag(t *testing.T) {
	sig := "sha256-" + strings.Repeat("a", 64) + ".sig"
	fallback := "sha256-" + strings.Repeat("b", 64)
	for _, tt := range []struct {
		name, tag string
		route     Route
		reason    string
	}{
		{"no filter selects all", "latest", Route{}, ""},
		{"star", "latest", Route{Tags: TagFilter{Include: []string{"*"}}}, ""},
		{"excluded ending", "v1-dev", Route{Tags: TagFilter{Exclude: []string{"*-dev"}}}, "tag v1-dev is excluded by *-dev of route prod"},
		{"other ending", "v1", Route{Tags: TagFilter{Exclude: []string{"*-dev"}}}, ""},
		{"beginning", "release-1", Route{Tags: TagFilter{Include: []string{"release-*"}}}, ""},
		{"not included", "v1", Route{Tags: TagFilter{Include: []string{"release-*", "prod"}}}, "tag v1 is not included by route prod (release-*, prod)"},
		{"semver in range", "v1.2.3", Route{Tags: TagFilter{Semver: ">=1.2"}}, ""},
		{"semver without v and patch", "1.2", Route{Tags: TagFilter{Semver: ">=1.2"}}, ""},
		{"semver out of range", "v1.1.9", Route{Tags: TagFilter{Semver: ">=1.2"}}, `tag v1.1.9 is outside semver ">=1.2" of route prod`},
		{"semver drops what is no version", "latest", Route{Tags: TagFilter{Semver: ">=1.2"}}, `tag latest is no version, for semver ">=1.2" of route prod`},
		{"semver drops pre-releases", "v1.3.0-rc1", Route{Tags: TagFilter{Semver: ">=1.2"}}, `tag v1.3.0-rc1 is a pre-release, which semver ">=1.2" of route prod does not name`},
		{"semver old pre-release is outside", "v1.0.0-rc1", Route{Tags: TagFilter{Semver: ">=1.2"}}, `tag v1.0.0-rc1 is outside semver ">=1.2" of route prod`},
		{"semver that names pre-releases", "v1.3.0-rc1", Route{Tags: TagFilter{Semver: ">=1.2-0"}}, ""},
		{"semver of a Helm chart with build metadata", "1.2.3_abc", Route{Tags: TagFilter{Semver: "^1.2"}}, ""},
		{"semver with alternatives", "3.0.0", Route{Tags: TagFilter{Semver: "~1.2 || ^3"}}, ""},
		{"globs come before semver", "v1.2.3", Route{Tags: TagFilter{Include: []string{"r*"}, Semver: ">=1"}}, "tag v1.2.3 is not included by route prod (r*)"},
		{"signature passes the filter", sig, Route{Tags: TagFilter{Include: []string{"v*"}, Exclude: []string{"sha256-*"}, Semver: ">=1"}}, ""},
		{"a probe is nobody's", "twinport-check-0123456789abcdef", Route{}, "tag twinport-check-0123456789abcdef was pushed by twinport check to try whether it may, and is gone soon"},
		{"a tag that begins like a probe", "twinport-check-v1", Route{}, ""},
		{"fallback tag passes the filter", fallback, Route{Tags: TagFilter{Include: []string{"v*"}}}, ""},
		{"required carries referrers too", sig, Route{Tags: TagFilter{Include: []string{"v*"}}, Referrers: "required"}, ""},
		{"no companions without referrers", sig, Route{Referrers: "false"}, "tag " + sig + " belongs to a subject and route prod carries no referrers (referrers: false)"},
		{"age is not judged by name", "v1", Route{Tags: TagFilter{MaxAge: time.Hour, Newest: 1}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ok, reason := newRules(t, tt.route).SelectsTag("prod", tt.tag)
			if ok != (tt.reason == "") || reason != tt.reason {
				t.Errorf("got %v %q, want %q", ok, reason, tt.reason)
			}
		})
	}
}

func TestDestination(t *testing.T) {
	for _, tt := range []struct{ name, template, repository, want string }{
		{"default keeps the name", "", "team/app", "team/app"},
		{"repository", "dr/{repository}", "team/x/app", "dr/team/x/app"},
		{"namespace and name", "{namespace}/copy/{name}", "team/x/app", "team/x/copy/app"},
		{"registry", "{registry}/{repository}", "app", "eu/app"},
		{"flat", "dr/{flat}", "team/x/app", "dr/team-x-app"},
		{"no namespace drops its slash", "dr/{namespace}/{name}", "app", "dr/app"},
		{"no namespace at the start", "{namespace}/{name}", "app", "app"},
		{"no namespace at the end", "{name}/{namespace}", "app", "app"},
		{"a placeholder twice", "{name}/{name}", "a/b", "b/b"},
		{"no name at all is refused", "{name}-{namespace}", "app", ""},
		{"a name over 255 bytes is refused", "dr/{repository}", strings.Repeat("a", 254), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := newRules(t, Route{Rename: tt.template}).Destination("prod", tt.repository)
			if tt.want == "" {
				if !errors.Is(err, oci.ErrInvalid) {
					t.Errorf("got %q, %v, want ErrInvalid", got, err)
				}
				return
			}
			if got != tt.want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	if _, err := newRules(t, Route{}).Destination("test", "a"); err == nil {
		t.Error("an unknown route renames")
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		route Route
		want  string
	}{
		{"unknown source", Route{From: "xx"}, `route prod: from: no registry "xx"`},
		{"unknown destination", Route{To: []string{"xx"}}, `to: no registry "xx"`},
		{"no destination", Route{To: []string{}}, "to: no destination"},
		{"destination twice", Route{To: []string{"us", "us"}}, "to: us is named twice"},
		{"bad glob", Route{Repositories: include("a[")}, `repositories: include: "a[" is no valid pattern`},
		{"bad exclude", Route{Repositories: Filter{Exclude: []string{"{a"}}}, `repositories: exclude: "{a" is no valid pattern`},
		{"empty glob", Route{Repositories: include("")}, "an empty pattern matches nothing"},
		{"slash in a tag's glob", Route{Tags: TagFilter{Include: []string{"a/*"}}}, `tags: include: "a/*" has a slash`},
		{"bad semver", Route{Tags: TagFilter{Semver: "newest"}}, `tags.semver: "newest"`},
		{"negative newest", Route{Tags: TagFilter{Newest: -1}}, "tags.newest: -1 is negative"},
		{"negative age", Route{Tags: TagFilter{MaxAge: -time.Hour}}, "tags.maxAge: -1h0m0s is negative"},
		{"unknown placeholder", Route{Rename: "{tag}/{name}"}, "rename: {tag} is none of {repository} {namespace} {name} {registry} {flat}"},
		{"open brace", Route{Rename: "a/{name"}, `"a/{name" has a brace without its pair`},
		{"closing brace", Route{Rename: "a}/{name}"}, `has a brace without its pair`},
		{"capitals in a rename", Route{Rename: "DR/{repository}"}, `"DR/team/app" is no repository name`},
		{"many to one", Route{Rename: "archive"}, `"archive" gives many repositories one name`},
		{"referrers", Route{Referrers: "yes"}, `referrers: "yes" is none of true, required, false`},
		{"drift", Route{Drift: "x"}, `drift: "x" is none of keep, overwrite`},
		{"conflict", Route{Conflict: "x"}, `conflict: "x" is none of ask, newest, prefer`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.route.Name = "prod"
			if tt.route.From == "" {
				tt.route.From = "eu"
			}
			if tt.route.To == nil {
				tt.route.To = []string{"us"}
			}
			if _, err := New([]Route{tt.route}, registries); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	_, err := New([]Route{
		{Name: "a", From: "xx", To: []string{"yy"}, Rename: "{"}, {Name: "b", From: "eu", To: []string{"us"}}, {Name: "b", From: "eu", To: []string{"us"}},
		{From: "eu", To: []string{"us"}},
	}, append(registries, Registry{"eu", ""}, Registry{}))
	for _, want := range []string{`no registry "xx"`, `no registry "yy"`, "brace", "route b: named twice", "registry eu: named twice", "a registry has no name", "it has no name"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("all faults at once: %q is missing in %v", want, err)
		}
	}
	if _, err := New([]Route{{Name: "one", From: "eu", To: []string{"us"}, Repositories: include("team/app"), Rename: "archive/app"}}, registries); err != nil {
		t.Errorf("one repository may get a fixed name: %v", err)
	}
}

func TestLiteralRepositories(t *testing.T) {
	for _, tt := range []struct {
		name   string
		filter Filter
		want   []string
		ok     bool
	}{
		{"names alone", include("b", "a/x", "b"), []string{"a/x", "b"}, true},
		{"a pattern among them", include("b", "a/*"), nil, false},
		{"no include means all", Filter{}, nil, false},
		{"excluded ones are left out", Filter{Include: []string{"a/x", "b"}, Exclude: []string{"a/**"}}, []string{"b"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := newRules(t, Route{Repositories: tt.filter}).LiteralRepositories("prod")
			if ok != tt.ok || !slices.Equal(got, tt.want) {
				t.Errorf("got %q %v, want %q %v", got, ok, tt.want, tt.ok)
			}
		})
	}
	if _, ok := newRules(t, Route{}).LiteralRepositories("test"); ok {
		t.Error("an unknown route names repositories")
	}
}

func TestOwns(t *testing.T) {
	rules := newRules(t,
		Route{Name: "a", To: []string{"us", "ap"}, Repositories: include("team/**"), Rename: "dr/{repository}"},
		Route{Name: "b", From: "bare", To: []string{"us"}, Repositories: include("base")},
	)
	at := func(registry, repository string) replicator.Place {
		for _, reg := range registries {
			if reg.Name == registry {
				return replicator.Place{Registry: registry, Identity: reg.Identity, Repository: repository}
			}
		}
		return replicator.Place{Registry: registry, Repository: repository}
	}
	renamed := at("eu", "team/x")
	renamed.Registry = "what-it-was-called"
	for _, tt := range []struct {
		name        string
		source, dst replicator.Place
		want        bool
	}{
		{"the route's", at("eu", "team/x"), at("us", "dr/team/x"), true},
		{"its second destination", at("eu", "team/x"), at("ap", "dr/team/x"), true},
		{"another repository", at("eu", "team/y"), at("us", "dr/team/x"), false},
		{"not renamed", at("eu", "team/x"), at("us", "team/x"), false},
		{"not selected", at("eu", "base"), at("us", "dr/base"), false},
		{"another source", at("ap", "team/x"), at("us", "dr/team/x"), false},
		{"the other way", at("us", "dr/team/x"), at("eu", "team/x"), false},
		{"a renamed registry is the same by identity", renamed, at("us", "dr/team/x"), true},
		{"by name where nothing has an identity", at("bare", "base"), replicator.Place{Registry: "us", Repository: "base"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := rules.Owns(tt.source, tt.dst); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestRoutesAreCopies(t *testing.T) {
	given := []Route{{Name: "prod", From: "eu", To: []string{"us"}, Repositories: include("a")}, {Name: "b", From: "eu", To: []string{"us"}}}
	rules, err := New(given, registries)
	if err != nil {
		t.Fatal(err)
	}
	given[0].To[0], given[0].Repositories.Include[0] = "ap", "z"
	route, ok := rules.Route("prod")
	if !ok || route.To[0] != "us" || route.Repositories.Include[0] != "a" {
		t.Errorf("a caller's slice reaches the rules: %+v", route)
	}
	route.To[0] = "ap"
	if all := rules.Routes(); len(all) != 2 || all[0].Name != "prod" || all[0].To[0] != "us" || all[1].Name != "b" {
		t.Errorf("got %+v", all)
	}
	if _, ok := rules.Route("test"); ok {
		t.Error("an unknown route is known")
	}
}
