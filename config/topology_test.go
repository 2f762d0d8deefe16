package config

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bmatcuk/doublestar/v4"
)

// TestTopologies: what is legal, and what is not, by the routes alone.
func TestTopologies(t *testing.T) {
	for name, tt := range map[string]struct {
		routes string
		want   string // empty: legal
	}{
		"star":                   {`{name: a, from: eu, to: [us, ap]}`, ""},
		"chain":                  {`{name: a, from: eu, to: [us]}, {name: b, from: us, to: [ap]}`, ""},
		"pair":                   {`{name: a, from: eu, to: [us]}, {name: b, from: us, to: [eu]}`, ""},
		"ring":                   {`{name: a, from: eu, to: [us]}, {name: b, from: us, to: [ap]}, {name: c, from: ap, to: [eu]}`, ""},
		"same source and rename": {`{name: a, from: eu, to: [us], tags: {include: ["v*"]}}, {name: b, from: eu, to: [us, ap], tags: {include: ["*"]}}`, ""},
		"one renamed, written otherwise": {`{name: a, from: eu, to: [us]},
			{name: b, from: eu, to: [us], rename: "{namespace}/{name}", tags: {include: ["v*"]}}`, ""},
		"sources apart by repository": {`{name: a, from: eu, to: [ap], repositories: {include: ["team-a/**"]}},
			{name: b, from: us, to: [ap], repositories: {include: ["team-b/**"]}}`, ""},
		"sources apart by exclude": {`{name: a, from: eu, to: [ap], repositories: {exclude: ["us/**"]}},
			{name: b, from: us, to: [ap], repositories: {include: ["us/**"]}}`, ""},
		"sources apart by rename": {`{name: a, from: eu, to: [ap], rename: "{registry}/{repository}"},
			{name: b, from: us, to: [ap], rename: "{registry}/{repository}"}`, ""},
		"sources apart by tag": {`{name: a, from: eu, to: [ap], tags: {include: ["v*"]}},
			{name: b, from: us, to: [ap], tags: {exclude: ["v*"]}}`, ""},
		"literals apart after a lossy rename": {`{name: a, from: eu, to: [ap], repositories: {include: ["x/app"]}, rename: "all/{name}"},
			{name: b, from: us, to: [ap], repositories: {include: ["x/web"]}, rename: "all/{name}"}`, ""},
		"literals that meet after a lossy rename": {`{name: a, from: eu, to: [ap], repositories: {include: ["x/app"]}, rename: "all/{name}"},
			{name: b, from: us, to: [ap], repositories: {include: ["y/app"]}, rename: "all/{name}"}`, `can both write ap, like "all/app"`},
		"globs that meet in the middle": {`{name: a, from: eu, to: [ap], repositories: {include: ["a*"]}},
			{name: b, from: us, to: [ap], repositories: {include: ["*b"]}}`, `like "ab"`},
		"braces that meet": {`{name: a, from: eu, to: [ap], repositories: {include: ["{x,y}/app"]}},
			{name: b, from: us, to: [ap], repositories: {include: ["[yz]/*"]}}`, `like "y/app"`},
		"different renames of one source meet": {`{name: a, from: eu, to: [us]}, {name: b, from: eu, to: [us], rename: "dr/{repository}"}`, `like "dr/b"`},
		"different renames of one source apart": {`{name: a, from: eu, to: [us], repositories: {exclude: ["dr/**"]}},
			{name: b, from: eu, to: [us], rename: "dr/{repository}"}`, ""},
		"cycle cut by an exclude": {`{name: a, from: eu, to: [us], rename: "dr/{repository}"},
			{name: b, from: us, to: [eu], repositories: {exclude: ["dr/**"]}}`, ""},
		"cycle cut by an include": {`{name: a, from: eu, to: [us], rename: "dr/{repository}"},
			{name: b, from: us, to: [eu], repositories: {include: ["team/**"]}}`, ""},
		"cycle cut by tags": {`{name: a, from: eu, to: [us], rename: "dr/{repository}", tags: {include: ["v*"]}},
			{name: b, from: us, to: [eu], tags: {exclude: ["v*"]}}`, ""},
		"cross-wise with names of their own": {`{name: a, from: eu, to: [us], rename: "{registry}/{repository}", repositories: {exclude: ["us/**"]}},
			{name: b, from: us, to: [eu], rename: "{registry}/{repository}", repositories: {exclude: ["eu/**"]}}`, ""},
		"cycle whose renames come back": {`{name: a, from: eu, to: [us], repositories: {include: ["*"]}, rename: "dr/{repository}"},
			{name: b, from: us, to: [eu], repositories: {include: ["dr/*"]}, rename: "{name}"}`, ""},
		"cycle whose renames come back for some": {`{name: a, from: eu, to: [us], rename: "dr/{repository}"},
			{name: b, from: us, to: [eu], repositories: {include: ["dr/**"]}, rename: "{name}"}`, "do not come back"},
		"cycle over a special glob": {`{name: a, from: eu, to: [us], repositories: {include: ["a*", "dr/a*"]}, rename: "dr/{repository}"},
			{name: b, from: us, to: [eu], repositories: {include: ["dr/*b"]}}`, "do not come back"},
		"ring with one rename": {`{name: a, from: eu, to: [us]}, {name: b, from: us, to: [ap]},
			{name: c, from: ap, to: [eu], rename: "x/{repository}"}`, "do not come back"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Parse("t.yaml", []byte(three+"routes: ["+tt.routes+"]\n"), pretend())
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// TestTopologyIsBounded: many routes take seconds at most, however they look.
func TestTopologyIsBounded(t *testing.T) {
	build := func(n int, glob func(i int) string) string {
		var b strings.Builder
		b.WriteString("registries:\n  dst: {kind: oci, address: dst.example.com}\n")
		for i := range n {
			fmt.Fprintf(&b, "  r%d: {kind: oci, address: r%d.example.com}\n", i, i)
		}
		b.WriteString("routes:\n")
		for i := range n {
			fmt.Fprintf(&b, "  - {name: r%d, from: r%d, to: [dst], repositories: {include: [%q]}}\n", i, i, glob(i))
		}
		return b.String()
	}
	for name, tt := range map[string]struct {
		text  string
		fault string
	}{
		"teams":   {build(300, func(i int) string { return fmt.Sprintf("team-%d/**", i) }), ""},
		"endings": {build(150, func(i int) string { return fmt.Sprintf("**/*a*b*c*d*e*f*g-%d", i) }), "too many to tell"},
	} {
		start := time.Now()
		_, _, err := Parse("t.yaml", []byte(tt.text), pretend())
		if tt.fault == "" && err != nil || tt.fault != "" && (err == nil || !strings.Contains(err.Error(), tt.fault)) {
			t.Errorf("%s: got %.200v, want %q", name, err, tt.fault)
		}
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
}

// TestGlobExpression holds our reading of globs to doublestar's.
func TestGlobExpression(t *testing.T) {
	globs := []string{"**", "*", "a", "a/*", "a/**", "**/a", "a/**/b", "**/a/**", "a*", "*a*", "a?b", "[ab]", "[!a]b", "[^a]", "[a-c]x", "{a,b}", "{a,b/*}/c",
		"{a/**,b}", `a\*`, "a**b", "**/**", "a/*/b", "{a,{b,c}}x", "[a\\-z]", "**/", "a.b", "a-*"}
	names := []string{"a", "b", "c", "z", "-", "ab", "ba", "aab", "axb", "bx", "ax", "cx", "a/b", "a/a", "a/b/c", "a/x/b", "a/x/y/b", "x/a", "x/y/a", "x/a/y",
		"b/c", "b/x/c", "a/c", "b", "a.b", "axb", "a-", "a-b", "c/x", "x/y/z", "a*"}
	s := newSearch()
	for _, g := range globs {
		if !doublestar.ValidatePattern(g) {
			t.Fatalf("%s is no glob", g)
		}
		m, ok := s.matcher(globExpression(g))
		if !ok {
			t.Errorf("%s: expression %s", g, globExpression(g))
			continue
		}
		for _, name := range names {
			want, _ := doublestar.Match(g, name)
			at := m.start
			for i := range len(name) {
				at, _ = m.step(at, name[i])
			}
			if got := m.accepts[at]; got != want {
				t.Errorf("%s of %s: got %v, want %v (%s)", g, name, got, want, globExpression(g))
			}
		}
	}
}

func TestFill(t *testing.T) {
	for _, tt := range []struct{ template, repository, want string }{
		{"{repository}", "team/app", "team/app"},
		{"dr/{repository}", "team/app", "dr/team/app"},
		{"{namespace}/{name}", "team/sub/app", "team/sub/app"},
		{"{namespace}/{name}", "app", "app"},
		{"x/{namespace}/y/{name}", "app", "x/y/app"},
		{"x/{namespace}/y/{name}", "t/app", "x/t/y/app"},
		{"{name}/{namespace}", "app", "app"},
		{"x/{namespace}{name}", "app", "x/app"},
		{"{name}/{namespace}", "t/app", "app/t"},
		{"{registry}/{flat}", "team/sub/app", "eu/team-sub-app"},
	} {
		pieces, what, _ := parseTemplate(tt.template)
		if what != "" {
			t.Fatalf("%s: %s", tt.template, what)
		}
		if got := fill(pieces, "eu", tt.repository); got != tt.want {
			t.Errorf("%s of %s: got %s, want %s", tt.template, tt.repository, got, tt.want)
		}
	}
}
