package config

import (
	"regexp"
	"strings"
)

var placeholders = []string{"repository", "namespace", "name", "registry", "flat"}

// A piece of a template is text, or a placeholder where name is set.
type piece struct{ text, name string }

// parseTemplate takes a rename apart. "{namespace}/{name}" is "{repository}".
func parseTemplate(s string) (pieces []piece, what, hint string) {
	s = strings.ReplaceAll(s, "{namespace}/{name}", "{repository}")
	const want = "the placeholders are {repository} {namespace} {name} {registry} {flat}"
	for s != "" {
		open := strings.IndexAny(s, "{}")
		if open < 0 {
			return append(pieces, piece{text: s}), "", ""
		}
		end := strings.IndexAny(s[open+1:], "{}")
		if s[open] == '}' || end < 0 || s[open+1+end] == '{' {
			return nil, "a brace without its partner", want
		}
		name := s[open+1 : open+1+end]
		known := false
		for _, p := range placeholders {
			known = known || p == name
		}
		if !known {
			return nil, "unknown placeholder " + quote("{"+name+"}"), didYouMean(name, placeholders, want)
		}
		if open > 0 {
			pieces = append(pieces, piece{text: s[:open]})
		}
		pieces = append(pieces, piece{name: name})
		s = s[open+end+2:]
	}
	return pieces, "", ""
}

var templateText = regexp.MustCompile(`^[a-z0-9._/-]*$`)

// checkTemplate looks at a rename alone.
func checkTemplate(s string) (what, hint string) {
	pieces, what, hint := parseTemplate(s)
	if what != "" {
		return what, hint
	}
	for i, p := range pieces {
		switch {
		case !templateText.MatchString(p.text):
			return quote(p.text) + " can be in no repository name", "use lower-case letters, digits, dots, dashes, underscores and slashes"
		case strings.Contains(p.text, "//"), i == 0 && strings.HasPrefix(p.text, "/"), i == len(pieces)-1 && strings.HasSuffix(p.text, "/"):
			return quote(s) + " has a slash too many", "remove it"
		}
	}
	return "", ""
}

// fill puts a repository's name into a template. An empty {namespace} takes one
// slash with it: the one after it, or, at the template's end, the one before.
func fill(pieces []piece, registry, repository string) string {
	namespace, name := "", repository
	if i := strings.LastIndexByte(repository, '/'); i >= 0 {
		namespace, name = repository[:i], repository[i+1:]
	}
	out, drop := "", false // drop: the slash after an empty namespace
	for i, p := range pieces {
		text := p.text
		if drop {
			text = strings.TrimPrefix(text, "/")
			drop = false
		}
		switch p.name {
		case "repository":
			text = repository
		case "namespace":
			if text = namespace; namespace == "" {
				if drop = i+1 < len(pieces); !drop {
					out = strings.TrimSuffix(out, "/")
				}
			}
		case "name":
			text = name
		case "registry":
			text = registry
		case "flat":
			text = strings.ReplaceAll(repository, "/", "-")
		}
		out += text
	}
	return out
}

// affixes tells that a template only puts text before and after the whole
// name; then what it gives can be told exactly.
func affixes(pieces []piece, registry string) (before, after string, ok bool) {
	for _, p := range pieces {
		text := p.text
		switch p.name {
		case "registry":
			text = registry
		case "repository":
			if ok {
				return "", "", false
			}
			ok = true
			continue
		case "":
		default:
			return "", "", false
		}
		if ok {
			after += text
		} else {
			before += text
		}
	}
	return before, after, ok
}

// distinguishes tells that a template keeps what tells repositories apart, at
// least within one namespace.
func distinguishes(pieces []piece) bool {
	for _, p := range pieces {
		if p.name == "repository" || p.name == "name" || p.name == "flat" {
			return true
		}
	}
	return false
}
