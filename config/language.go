package config

import (
	"encoding/binary"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// A language is a set of names, as regular expressions: all of must match and
// none of not does.
type language struct{ must, not []string }

const tagPattern = `[a-zA-Z0-9_][a-zA-Z0-9._-]*`

// repositoryGrammarExpression is a repository name without anchors.
var repositoryGrammarExpression = strings.Trim(repositoryPattern, "^$")

// takes is the language of a filter over names of a grammar.
func (f Filter) takes(grammar string) language {
	l := language{must: []string{grammar, globsExpression(f.Include)}}
	if len(f.Exclude) > 0 {
		l.not = []string{globsExpression(f.Exclude)}
	}
	return l
}

func globsExpression(globs []string) string {
	out := make([]string, len(globs))
	for i, g := range globs {
		out[i] = globExpression(g)
	}
	return either(out)
}

// and is what is in both.
func (l language) and(o language) language {
	return language{slices.Concat(l.must, o.must), slices.Concat(l.not, o.not)}
}

// within puts text around every name.
func (l language) within(before, after string) language {
	wrap := func(in []string) []string {
		out := make([]string, len(in))
		for i, e := range in {
			out[i] = regexp.QuoteMeta(before) + `(?:` + e + `)` + regexp.QuoteMeta(after)
		}
		return out
	}
	return language{wrap(l.must), wrap(l.not)}
}

// written is what a route writes below a registry's host: exact for renames
// that only put text around the name, else rather too much.
func written(f Filter, pieces []piece, registry, prefix string) language {
	if prefix != "" {
		prefix += "/"
	}
	if before, after, ok := affixes(pieces, registry); ok {
		return f.takes(repositoryGrammarExpression).within(prefix+before, after)
	}
	var out []string
	for _, glob := range f.Include {
		alternatives, ok := expand(glob)
		if !ok {
			alternatives = []string{"**"}
		}
		for _, a := range alternatives {
			if isLiteral(a) {
				if !matchesAny(f.Exclude, a) {
					out = append(out, regexp.QuoteMeta(fill(pieces, registry, a)))
				}
				continue
			}
			out = append(out, templateExpression(pieces, registry, a))
		}
	}
	if len(out) == 0 {
		out = []string{`[^\x00-\x{10FFFF}]`} // nothing
	}
	return language{must: []string{repositoryGrammarExpression, either(out)}}.within(prefix, "")
}

// templateExpression is what a template makes of the names a glob takes, each
// placeholder for itself.
func templateExpression(pieces []piece, registry, glob string) string {
	name := `[^/]+`
	if last := glob[strings.LastIndexByte(glob, '/')+1:]; last != "**" {
		name = partExpression(last)
	}
	var b strings.Builder
	for i, p := range pieces {
		switch p.name {
		case "repository":
			b.WriteString(`(?:` + plainExpression(glob) + `)`)
		case "namespace":
			b.WriteString(`.*`)
		case "name":
			b.WriteString(`(?:` + name + `)`)
		case "registry":
			b.WriteString(regexp.QuoteMeta(registry))
		case "flat":
			b.WriteString(`(?:` + flatExpression(glob) + `)`)
		default:
			text := p.text
			// An empty namespace takes a slash with it.
			if i > 0 && pieces[i-1].name == "namespace" && strings.HasPrefix(text, "/") {
				b.WriteString(`/?`)
				text = text[1:]
			}
			if i+1 < len(pieces) && pieces[i+1].name == "namespace" && strings.HasSuffix(text, "/") {
				b.WriteString(regexp.QuoteMeta(text[:len(text)-1]) + `/?`)
				continue
			}
			b.WriteString(regexp.QuoteMeta(text))
		}
	}
	return b.String()
}

// flatExpression is a glob with its slashes become dashes.
func flatExpression(glob string) string {
	var b strings.Builder
	parts := strings.Split(glob, "/")
	for i, part := range parts {
		if part == "**" {
			b.WriteString(`[^/]*`)
			continue
		}
		if i > 0 && parts[i-1] != "**" {
			b.WriteByte('-')
		}
		b.WriteString(partExpression(part))
	}
	return b.String()
}

// A matcher runs one expression over a word, letter by letter.
type matcher struct{ prog *syntax.Prog }

func newMatcher(expression string) (matcher, error) {
	parsed, err := syntax.Parse(expression, syntax.Perl|syntax.DotNL)
	if err != nil {
		return matcher{}, err
	}
	prog, err := syntax.Compile(parsed.Simplify())
	return matcher{prog}, err
}

func (m matcher) start() []uint32 { return m.close([]uint32{uint32(m.prog.Start)}) }

// close follows what needs no letter; the result is sorted.
func (m matcher) close(states []uint32) []uint32 {
	seen := map[uint32]bool{}
	var out []uint32
	for len(states) > 0 {
		pc := states[len(states)-1]
		states = states[:len(states)-1]
		if seen[pc] {
			continue
		}
		seen[pc] = true
		switch i := &m.prog.Inst[pc]; i.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			states = append(states, i.Out, i.Arg)
		case syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth:
			states = append(states, i.Out)
		case syntax.InstFail:
		default:
			out = append(out, pc)
		}
	}
	slices.Sort(out)
	return out
}

func (m matcher) step(states []uint32, letter rune) []uint32 {
	var out []uint32
	for _, pc := range states {
		if i := &m.prog.Inst[pc]; i.Op != syntax.InstMatch && i.MatchRune(letter) {
			out = append(out, i.Out)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return m.close(out)
}

func (m matcher) accepts(states []uint32) bool {
	return slices.ContainsFunc(states, func(pc uint32) bool { return m.prog.Inst[pc].Op == syntax.InstMatch })
}

// A search looks for names, with a bound on its work over a whole config.
type search struct {
	left  int
	cache map[string]matcher
}

func newSearch() *search { return &search{left: 400_000, cache: map[string]matcher{}} }

func (s *search) matcher(expression string) (matcher, bool) {
	if m, ok := s.cache[expression]; ok {
		return m, m.prog != nil
	}
	m, err := newMatcher(expression)
	if err != nil {
		m = matcher{}
	}
	s.cache[expression] = m
	return m, err == nil
}

// letters of repository names and tags, slash last; the first few are those
// that example names are made of.
const letters = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-._/"

// find gives a shortest name of a language. Sure is false when the search was
// given up: there may be one.
func (s *search) find(l language) (name string, found, sure bool) {
	matchers := make([]matcher, 0, len(l.must)+len(l.not))
	prefix := ""
	for i, e := range slices.Concat(l.must, l.not) {
		m, ok := s.matcher(e)
		if !ok {
			return "", false, false
		}
		matchers = append(matchers, m)
		if i < len(l.must) {
			p, _ := m.prog.Prefix()
			if n := min(len(p), len(prefix)); p[:n] != prefix[:n] {
				return "", false, true // the cheap way to tell team-a/** from team-b/**
			} else if len(p) > len(prefix) {
				prefix = p
			}
		}
	}
	type state struct {
		sets  [][]uint32
		from  int
		by    byte
		depth int // slashes so far
	}
	first := state{from: -1}
	for _, m := range matchers {
		first.sets = append(first.sets, m.start())
	}
	queue := []state{first}
	seen := map[string]bool{key(first.sets): true}
	for at := 0; at < len(queue); at++ {
		if s.left--; s.left < 0 {
			return "", false, false
		}
		now := queue[at]
		in := true
		for i, m := range matchers {
			in = in && m.accepts(now.sets[i]) == (i < len(l.must))
		}
		if in {
			var word []byte
			for i := at; queue[i].from >= 0; i = queue[i].from {
				word = append(word, queue[i].by)
			}
			slices.Reverse(word)
			return string(word), true, true
		}
	letter:
		for i := range len(letters) {
			by := letters[i]
			if i < 26 { // each part of a name begins at a letter of its own
				by = letters[(i+now.depth)%26]
			}
			next := state{from: at, by: by, depth: now.depth}
			if by == '/' {
				next.depth++
			}
			for j, m := range matchers {
				set := m.step(now.sets[j], rune(by))
				if len(set) == 0 && j < len(l.must) {
					continue letter
				}
				next.sets = append(next.sets, set)
			}
			if k := key(next.sets); !seen[k] {
				seen[k] = true
				queue = append(queue, next)
			}
		}
	}
	return "", false, true
}

// key makes state sets comparable.
func key(sets [][]uint32) string {
	var b []byte
	for _, set := range sets {
		b = binary.AppendUvarint(b, uint64(len(set)))
		for _, pc := range set {
			b = binary.AppendUvarint(b, uint64(pc))
		}
	}
	return string(b)
}
