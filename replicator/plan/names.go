package plan

import (
	"regexp"
	"strings"

	"github.com/twinport/twinport/replicator/oci"
)

// MayWrite tells whether a repository at a destination could be one that the
// route writes. Where a rename loses part of a name it goes by the rename's
// shape alone.
func (r *Rules) MayWrite(route, destination string) bool {
	ru := r.byName[route]
	if ru == nil {
		return false
	}
	if ru.rename.parts == nil {
		ok, _ := ru.selects(destination)
		return ok
	}
	return ru.rename.shape().MatchString(destination)
}

// shape matches what the template can make.
func (rn rename) shape() *regexp.Regexp {
	var b strings.Builder
	b.WriteString("^")
	for i, p := range rn.parts {
		switch {
		case !p.placeholder:
			text := regexp.QuoteMeta(p.text)
			if i > 0 && rn.parts[i-1].placeholder && rn.parts[i-1].text == "namespace" {
				if rest, ok := strings.CutPrefix(text, "/"); ok { // goes with an empty namespace
					text = "/?" + rest
				}
			}
			b.WriteString(text)
		case p.text == "namespace":
			b.WriteString("(?:.*)")
		case p.text == "name", p.text == "flat":
			b.WriteString("[^/]+")
		case p.text == "registry":
			b.WriteString(regexp.QuoteMeta(rn.registry))
		default:
			b.WriteString(".+")
		}
	}
	b.WriteString("$")
	return regexp.MustCompile(b.String())
}

// Example makes up a source repository that the route takes, with the word in
// its name where patterns leave room for one; false where none was found.
func (r *Rules) Example(route, word string) (string, bool) {
	ru := r.byName[route]
	if ru == nil {
		return "", false
	}
	patterns := ru.Repositories.Include
	if len(patterns) == 0 {
		patterns = []string{"**"}
	}
	for _, pattern := range patterns {
		name := fill(pattern, word)
		if ok, _ := ru.selects(name); ok && oci.CheckRepository(name) == nil {
			return name, true
		}
	}
	return "", false
}

// fill makes a name of a pattern. It need not understand all that patterns can
// say: who asks looks whether the name fits.
func fill(pattern, word string) string {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '*':
			for i+1 < len(pattern) && pattern[i+1] == '*' {
				i++
			}
			b.WriteString(word)
		case '?':
			b.WriteString("x")
		case '[':
			end := strings.IndexByte(pattern[i:], ']')
			if end < 2 {
				return ""
			}
			b.WriteByte(pattern[i+1])
			i += end
		case '{':
			end := strings.IndexByte(pattern[i:], '}')
			if end < 0 {
				return ""
			}
			first, _, _ := strings.Cut(pattern[i+1:i+end], ",")
			b.WriteString(fill(first, word))
			i += end
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
