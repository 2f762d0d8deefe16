package config

import (
	"regexp"
	"strings"
)

// secretKey is a key whose value, or anything below it, may be a secret:
// judged generously, since mistyped keys carry secrets too.
var secretKey = regexp.MustCompile(`(?i)pass|pwd|pw$|token|secret|credential|auth|key|webhook|hook|database|dsn|^api$`)

// secretLine is secretKey on a line that was not parsed.
var secretLine = regexp.MustCompile(`(?i)(pass|pwd|token|secret|credential|auth|key|hook|database|dsn|\bapi)[\w-]*["']?\s*:`)

// A masker hides secrets in the lines that faults show.
type masker struct {
	stands map[*node]span
	hidden map[*node]bool
}

// suspect hides every scalar below keys that may hold secrets.
func (m *masker) suspect(n *node, below bool) {
	if n == nil {
		return
	}
	if below && len(n.items) == 0 && len(n.pairs) == 0 {
		m.hidden[n] = true
	}
	for _, item := range n.items {
		m.suspect(item, below)
	}
	for _, p := range n.pairs {
		m.suspect(p.value, below || secretKey.MatchString(p.key))
	}
}

// show says that a scalar turned out to be no secret.
func (m *masker) show(n *node) { delete(m.hidden, n) }

// apply masks the file's lines, in place.
func (m *masker) apply(lines []string) {
	for n := range m.hidden {
		s, ok := m.stands[n]
		if !ok || n.shape == isNull {
			continue
		}
		for line := s.from.line; line <= s.to.line && line <= len(lines); line++ {
			from, to := 1, 1<<30
			if line == s.from.line {
				from = s.from.column
			}
			if line == s.to.line {
				to = s.to.column
			}
			lines[line-1] = maskRange(lines[line-1], from, to)
		}
	}
}

// maskRange replaces columns [from, to) with as many asterisks, so that carets
// stay right; spaces at the end, closing brackets and commas stay.
func maskRange(line string, from, to int) string {
	runes := []rune(line)
	from, to = max(from-1, 0), min(to-1, len(runes))
	for to > from && strings.ContainsRune(" \t", runes[to-1]) {
		to--
	}
	for i := from; i < to; i++ {
		runes[i] = '*'
	}
	return string(runes)
}

// maskUnparsed hides what may be a secret in a file without a syntax tree:
// what follows such a key on its line, and all lines indented deeper.
func maskUnparsed(lines []string) {
	under := -1 // indentation of the key whose block is hidden
	for i, line := range lines {
		trimmed := strings.TrimLeft(line, " \t")
		if trimmed == "" {
			continue
		}
		depth := len(line) - len(trimmed)
		if under >= 0 && depth > under {
			lines[i] = line[:depth] + strings.Repeat("*", len([]rune(trimmed)))
			continue
		}
		under = -1
		if at := secretLine.FindStringIndex(line); at != nil {
			under = depth
			rest := strings.TrimLeft(line[at[1]:], " \t")
			start := len(line) - len(rest)
			lines[i] = line[:start] + strings.Repeat("*", len([]rune(rest)))
		}
	}
}
