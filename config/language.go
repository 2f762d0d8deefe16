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

// A matcher is one expression as an automaton whose states are made when they
// are first reached.
type matcher struct {
	prog    *syntax.Prog
	prefix  string // that everything it takes begins with
	start   int
	sets    [][]uint32 // instructions, by state
	accepts []bool     // by state
	ids     map[string]int
	steps   map[int]int // by state and letter
	edges   [256]bool   // letters at which a class of alike ones may begin
}

// dead is the state that nothing leaves.
const dead = 0

func newMatcher(expression string) (*matcher, error) {
	parsed, err := syntax.Parse(expression, syntax.Perl|syntax.DotNL)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	m := &matcher{prog: prog, ids: map[string]int{}, steps: map[int]int{}}
	m.prefix, _ = prog.Prefix()
	m.state(nil)
	m.start = m.state(m.close([]uint32{uint32(prog.Start)}))
	for i := range prog.Inst {
		if in := &prog.Inst[i]; in.Op == syntax.InstRune || in.Op == syntax.InstRune1 {
			for j, r := range in.Rune {
				if end := j%2 == 1 || len(in.Rune) == 1; end && r < 255 {
					m.edges[r+1] = true
				}
				if r < 256 && (j%2 == 0) {
					m.edges[r] = true
				}
			}
		}
	}
	return m, nil
}

// state interns a set of instructions.
func (m *matcher) state(set []uint32) int {
	var k []byte
	accepts := false
	for _, pc := range set {
		k = binary.AppendUvarint(k, uint64(pc))
		accepts = accepts || m.prog.Inst[pc].Op == syntax.InstMatch
	}
	id, ok := m.ids[string(k)]
	if !ok {
		id = len(m.sets)
		m.ids[string(k)] = id
		m.sets, m.accepts = append(m.sets, set), append(m.accepts, accepts)
	}
	return id
}

// close follows what needs no letter; the result is sorted.
func (m *matcher) close(states []uint32) []uint32 {
	seen := make([]bool, len(m.prog.Inst))
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

// step goes on by a letter; cost is the work it took.
func (m *matcher) step(state int, letter byte) (next, cost int) {
	if state == dead {
		return dead, 0
	}
	k := state<<8 | int(letter)
	if next, ok := m.steps[k]; ok {
		return next, 1
	}
	var out []uint32
	for _, pc := range m.sets[state] {
		if i := &m.prog.Inst[pc]; i.Op != syntax.InstMatch && i.MatchRune(rune(letter)) {
			out = append(out, i.Out)
		}
	}
	if len(out) > 0 {
		next = m.state(m.close(out))
	}
	m.steps[k] = next
	return next, 10 + len(m.sets[state]) + len(m.prog.Inst)/8
}

// A search looks for names, with a bound on its work over a whole config.
type search struct {
	left  int
	cache map[string]*matcher
}

// patience is the work of a search: a second or two.
const patience = 12_000_000

func newSearch() *search { return &search{left: patience, cache: map[string]*matcher{}} }

func (s *search) matcher(expression string) (*matcher, bool) {
	m, ok := s.cache[expression]
	if !ok {
		m, _ = newMatcher(expression)
		s.cache[expression] = m
		s.left -= 20 * len(expression)
	}
	return m, m != nil
}

// letters of repository names and tags; examples are made of the first ones.
const letters = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-._/"

// classes groups the letters that no matcher tells apart.
func classes(matchers []*matcher) []string {
	var edges [256]bool
	for _, m := range matchers {
		for i, e := range m.edges {
			edges[i] = edges[i] || e
		}
	}
	byClass, order := map[int]string{}, []int{}
	class := [256]int{}
	for i := 1; i < 256; i++ {
		class[i] = class[i-1]
		if edges[i] {
			class[i] = i
		}
	}
	for i := range len(letters) {
		c := class[letters[i]]
		if byClass[c] == "" {
			order = append(order, c)
		}
		byClass[c] += letters[i : i+1]
	}
	out := make([]string, len(order))
	for i, c := range order {
		out[i] = byClass[c]
	}
	return out
}

// A trail is how far a search got with one name.
type trail struct {
	states []int // of each matcher
	from   int   // the trail it goes on from
	by     byte
	depth  int // slashes so far
}

// find gives a shortest name of a language. Sure is false when the search was
// given up: there may be one.
func (s *search) find(l language) (name string, found, sure bool) {
	matchers := make([]*matcher, 0, len(l.must)+len(l.not))
	first := trail{from: -1}
	prefix := ""
	for i, e := range slices.Concat(l.must, l.not) {
		m, ok := s.matcher(e)
		if !ok {
			return "", false, false
		}
		matchers = append(matchers, m)
		first.states = append(first.states, m.start)
		if i < len(l.must) {
			if n := min(len(m.prefix), len(prefix)); m.prefix[:n] != prefix[:n] {
				return "", false, true // the cheap way to tell team-a/** from team-b/**
			}
			prefix = max(prefix, m.prefix)
		}
	}
	alphabet := classes(matchers)
	trails := []trail{first}
	seen := map[string]bool{key(first.states): true}
	for at := 0; at < len(trails); at++ {
		now := trails[at]
		in := true
		for i, m := range matchers {
			in = in && m.accepts[now.states[i]] == (i < len(l.must))
		}
		if in {
			return spell(trails, at), true, true
		}
	letter:
		for _, alike := range alphabet {
			if s.left < 0 {
				return "", false, false
			}
			by := alike[now.depth%len(alike)] // each part of an example has a letter of its own
			next := trail{from: at, by: by, depth: now.depth, states: make([]int, len(matchers))}
			if by == '/' {
				next.depth++
			}
			for j, m := range matchers {
				state, cost := m.step(now.states[j], by)
				s.left -= cost + 3
				if state == dead && j < len(l.must) {
					continue letter
				}
				next.states[j] = state
			}
			if k := key(next.states); !seen[k] {
				seen[k] = true
				trails = append(trails, next)
				s.left -= 10
			}
		}
	}
	return "", false, true
}

// spell reads the name that a trail stands for.
func spell(trails []trail, at int) string {
	var word []byte
	for ; trails[at].from >= 0; at = trails[at].from {
		word = append(word, trails[at].by)
	}
	slices.Reverse(word)
	return string(word)
}

// key makes states comparable.
func key(states []int) string {
	b := make([]byte, 0, 2*len(states))
	for _, s := range states {
		b = binary.AppendUvarint(b, uint64(s))
	}
	return string(b)
}
