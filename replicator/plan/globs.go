package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// globs are the include and exclude patterns of one filter.
type globs struct {
	include, exclude []glob
	// shown is the include list as reasons name it, bounded.
	shown string
}

// all tells whether every name matches.
func (gs *globs) all() bool {
	return len(gs.exclude) == 0 &&
		(len(gs.include) == 0 || slices.ContainsFunc(gs.include, func(g glob) bool { return g.shape == everything }))
}

// A glob is one pattern; the plain shapes that nearly all are skip the matcher.
type glob struct {
	pattern string
	shape   shape
	// text is the literal part of all shapes but general.
	text string
}

type shape int

const (
	general shape = iota
	everything
	literal
	below  // text/**: text itself and all below it
	prefix // text*, where names have no slash
	suffix // *text, where names have no slash
)

// compileGlobs reads patterns; no include means everything. Names with slashes
// are repositories, those without are tags.
func compileGlobs(include, exclude []string, slashes bool) (globs, error) {
	if len(include) == 0 {
		include = []string{"*"}
		if slashes {
			include = []string{"**"}
		}
	}
	var faults []error
	compile := func(key string, patterns []string) []glob {
		compiled := make([]glob, 0, len(patterns))
		for _, pattern := range patterns {
			g, err := compileGlob(pattern, slashes)
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", key, err))
				continue
			}
			compiled = append(compiled, g)
		}
		return compiled
	}
	return globs{
		include: compile("include", include),
		exclude: compile("exclude", exclude),
		shown:   show(include),
	}, errors.Join(faults...)
}

const meta = `*?[]{}\`

func compileGlob(pattern string, slashes bool) (glob, error) {
	switch {
	case pattern == "":
		return glob{}, errors.New("an empty pattern matches nothing")
	case !doublestar.ValidatePattern(pattern):
		return glob{}, fmt.Errorf("%q is no valid pattern", pattern)
	case !slashes && strings.Contains(pattern, "/"):
		return glob{}, fmt.Errorf("%q has a slash, and tags have none", pattern)
	}
	isLiteral := func(s string) bool { return !strings.ContainsAny(s, meta) }
	g := glob{pattern: pattern}
	switch {
	case pattern == "**", pattern == "*" && !slashes:
		g.shape = everything
	case isLiteral(pattern):
		g.shape, g.text = literal, pattern
	case strings.HasSuffix(pattern, "/**") && isLiteral(pattern[:len(pattern)-3]):
		g.shape, g.text = below, pattern[:len(pattern)-3]
	case !slashes && strings.HasSuffix(pattern, "*") && isLiteral(pattern[:len(pattern)-1]):
		g.shape, g.text = prefix, pattern[:len(pattern)-1]
	case !slashes && strings.HasPrefix(pattern, "*") && isLiteral(pattern[1:]):
		g.shape, g.text = suffix, pattern[1:]
	}
	return g, nil
}

func (g glob) match(name string) bool {
	switch g.shape {
	case everything:
		return true
	case literal:
		return name == g.text
	case below:
		rest, ok := strings.CutPrefix(name, g.text)
		return ok && (rest == "" || rest[0] == '/')
	case prefix:
		return strings.HasPrefix(name, g.text)
	case suffix:
		return strings.HasSuffix(name, g.text)
	}
	return doublestar.MatchUnvalidated(g.pattern, name)
}

// match tells whether a name is included, and by which pattern it is excluded.
func (gs *globs) match(name string) (included bool, excludedBy string) {
	if !slices.ContainsFunc(gs.include, func(g glob) bool { return g.match(name) }) {
		return false, ""
	}
	for i := range gs.exclude {
		if gs.exclude[i].match(name) {
			return true, gs.exclude[i].pattern
		}
	}
	return true, ""
}

// literals are the included names, sorted, where all includes are names.
func (gs *globs) literals() ([]string, bool) {
	names := make([]string, 0, len(gs.include))
	for _, g := range gs.include {
		if g.shape != literal {
			return nil, false
		}
		names = append(names, g.text)
	}
	slices.Sort(names)
	return slices.Compact(names), true
}

// show lists patterns for a reason, at most about 200 bytes of them.
func show(patterns []string) string {
	var b strings.Builder
	for i, pattern := range patterns {
		if i > 0 && b.Len()+len(pattern) > 200 {
			fmt.Fprintf(&b, " and %d more", len(patterns)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(pattern)
	}
	return b.String()
}
