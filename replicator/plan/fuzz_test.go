package plan

import (
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/twinport/twinport/replicator/oci"
)

// The plain shapes must say what the matcher says.
func FuzzGlob(f *testing.F) {
	for _, seed := range [][2]string{
		{"**", "a/b"}, {"*", "a"}, {"team/**", "team"}, {"team/**", "team/x"}, {"team/**", "teams"}, {"a", "a"},
		{"*-dev", "-dev"}, {"v*", "v"}, {"{a,b}/*", "b/x"}, {"[a-c]?", "bz"}, {"/**", "a"}, {"**/x", "x"}, {"a**", "ab"}, {`\*`, "*"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 64 || len(name) > 255 {
			t.Skip()
		}
		for _, slashes := range []bool{true, false} {
			if slashes && oci.CheckRepository(name) != nil || !slashes && oci.CheckTag(name) != nil {
				continue
			}
			g, err := compileGlob(pattern, slashes)
			if err != nil {
				continue
			}
			want, err := doublestar.Match(pattern, name)
			if err != nil {
				t.Fatalf("%q passed the check: %v", pattern, err)
			}
			if got := g.match(name); got != want {
				t.Errorf("%q on %q (slashes %v, shape %d): got %v, the matcher says %v", pattern, name, slashes, g.shape, got, want)
			}
		}
	})
}

// A rename gives a repository name or an error, and never leaves a brace.
func FuzzRename(f *testing.F) {
	for _, template := range []string{"", "dr/{repository}", "{namespace}/{name}", "{name}/{namespace}", "{flat}", "{registry}-{name}", "{", "}", "{{name}}", "a{namespace}b{name}"} {
		f.Add(template, "team/app")
		f.Add(template, "app")
	}
	f.Fuzz(func(t *testing.T, template, repository string) {
		if len(template) > 256 || oci.CheckRepository(repository) != nil {
			t.Skip()
		}
		rn, err := compileRename(template, "eu")
		if err != nil {
			return
		}
		name, err := rn.apply(repository)
		if err == nil && (oci.CheckRepository(name) != nil || strings.ContainsAny(name, "{}")) {
			t.Errorf("%q on %q gives %q", template, repository, name)
		}
		if again, _ := rn.apply(repository); again != name {
			t.Errorf("%q on %q gives %q, then %q", template, repository, name, again)
		}
	})
}

// A tag is a version or none, and its constraint answers without a panic.
func FuzzSelectsTag(f *testing.F) {
	for _, tag := range []string{"v1.2.3", "1", "latest", "1.2.3_x", "v1.2-rc.1", "00.1", "v"} {
		f.Add(tag)
	}
	rules := newRules(f, Route{Tags: TagFilter{Include: []string{"*"}, Exclude: []string{"*-dev"}, Semver: ">=1.2, <3 || 7.x"}})
	f.Fuzz(func(t *testing.T, tag string) {
		if ok, reason := rules.SelectsTag("prod", tag); ok != (reason == "") {
			t.Errorf("%q: %v for reason %q", tag, ok, reason)
		}
	})
}
