package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

func checkGlob(s string) (what, hint string) {
	if !doublestar.ValidatePattern(s) {
		return quote(s) + " is no glob", "close brackets and braces; \\ before a character takes it as it is"
	}
	if strings.HasPrefix(s, "!") {
		return quote(s) + " can match nothing", "to leave names out, list them under exclude"
	}
	return "", ""
}

// checkRepositoryGlob refuses globs that no repository name can match.
func checkRepositoryGlob(s string) (what, hint string) {
	if what, hint = checkGlob(s); what != "" {
		return what, hint
	}
	plain := literals.ReplaceAllString(s, "")
	switch {
	case strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/") || strings.Contains(s, "//"):
		return quote(s) + " can match no repository", "remove the slash too many"
	case strings.ContainsAny(plain, " :@"):
		return quote(s) + " can match no repository", "give repository names without registry and tag; tags have their own filter"
	case plain != strings.ToLower(plain):
		return quote(s) + " can match no repository", "repository names are in lower case"
	}
	return "", ""
}

// literals is what of a glob is not literal: classes and escapes.
var literals = regexp.MustCompile(`\\.|\[[^\]]*\]`)

// checkTagGlob refuses globs that no tag can match.
func checkTagGlob(s string) (what, hint string) {
	if what, hint = checkGlob(s); what != "" {
		return what, hint
	}
	if strings.ContainsAny(literals.ReplaceAllString(s, ""), " :@/") {
		return quote(s) + " can match no tag", "tags are letters, digits, dots, dashes and underscores"
	}
	return "", ""
}

// matches tells whether a filter takes a name.
func (f Filter) matches(name string) bool {
	return matchesAny(f.Include, name) && !matchesAny(f.Exclude, name)
}

func matchesAny(globs []string, name string) bool {
	for _, g := range globs {
		if ok, err := doublestar.Match(g, name); ok && err == nil {
			return true
		}
	}
	return false
}

// isLiteral tells that a glob names one thing only.
func isLiteral(glob string) bool { return !strings.ContainsAny(glob, `*?[]{}\`) }

// maxAlternatives bounds what the braces of one glob stand for.
const maxAlternatives = 128

// expand writes a glob's braces out; ok is false when there are too many.
func expand(glob string) (out []string, ok bool) {
	open, depth := -1, 0
	var commas []int
	class := false
	for i := 0; i < len(glob); i++ {
		switch c := glob[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '{':
			if depth++; depth == 1 {
				open = i
			}
		case c == ',' && depth == 1:
			commas = append(commas, i)
		case c == '}' && depth > 0:
			if depth--; depth > 0 {
				continue
			}
			start := open + 1
			for _, end := range append(commas, i) {
				more, ok := expand(glob[:open] + glob[start:end] + glob[i+1:])
				if out = append(out, more...); !ok || len(out) > maxAlternatives {
					return nil, false
				}
				start = end + 1
			}
			return out, true
		}
	}
	return []string{glob}, true
}

// globExpression is a regular expression for what a glob matches, or more
// where the glob has too many alternatives.
func globExpression(glob string) string {
	alternatives, ok := expand(glob)
	if !ok {
		return `.*`
	}
	for i, a := range alternatives {
		alternatives[i] = plainExpression(a)
	}
	return either(alternatives)
}

func either(expressions []string) string { return `(?:` + strings.Join(expressions, `|`) + `)` }

// plainExpression is globExpression without braces.
func plainExpression(glob string) string {
	var b strings.Builder
	parts := slices.CompactFunc(strings.Split(glob, "/"), func(a, b string) bool { return a == "**" && b == "**" })
	last := len(parts) - 1
	for i, part := range parts {
		switch {
		case part == "**" && last == 0:
			b.WriteString(`.*`)
		case part == "**" && i == last:
			b.WriteString(`(?:/.*)?`) // "a/**" takes "a" as well
		case part == "**" && i == 0:
			b.WriteString(`(?:[^/]+/)*`)
		case part == "**":
			b.WriteString(`/(?:[^/]+/)*`)
		default:
			if i > 0 && parts[i-1] != "**" {
				b.WriteByte('/')
			}
			b.WriteString(partExpression(part))
		}
	}
	return b.String()
}

func partExpression(part string) string {
	var b strings.Builder
	for i := 0; i < len(part); i++ {
		switch c := part[i]; c {
		case '*':
			b.WriteString(`[^/]*`)
		case '?':
			b.WriteString(`[^/]`)
		case '\\':
			if i++; i < len(part) {
				b.WriteString(regexp.QuoteMeta(part[i : i+1]))
			}
		case '[':
			end := i + 1
			for end < len(part) && part[end] != ']' {
				if part[end] == '\\' {
					end++
				}
				end++
			}
			if end >= len(part) {
				return `[^/]*`
			}
			b.WriteString(classExpression(part[i+1 : end]))
			i = end
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	return b.String()
}

// classExpression translates what stands between brackets.
func classExpression(class string) string {
	var b strings.Builder
	b.WriteByte('[')
	rest, negated := strings.CutPrefix(class, "^")
	if !negated {
		rest, negated = strings.CutPrefix(class, "!")
	}
	if negated {
		b.WriteString(`^/`)
	}
	for i := 0; i < len(rest); i++ {
		c := rest[i]
		if c == '-' && i > 0 && i < len(rest)-1 {
			b.WriteByte('-')
			continue
		}
		if c == '\\' && i+1 < len(rest) {
			i++
			c = rest[i]
		}
		b.WriteByte('\\')
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80 {
			out := b.String()
			b.Reset()
			b.WriteString(out[:len(out)-1])
		}
		b.WriteByte(c)
	}
	b.WriteByte(']')
	return b.String()
}
