package config

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Fault is one thing wrong with a config, where it is.
type Fault struct {
	File string
	// Line and Column count from 1, columns in characters.
	Line   int
	Column int
	// What is wrong, beginning with the key's path; Hint says what to do.
	What string
	Hint string
	// Text is the offending line with its secrets masked; may be empty.
	Text string
	// Unset says that only an environment variable is missing: a fault for what
	// runs, a warning for what merely checks.
	Unset bool
}

// Error is one line, without the text.
func (f Fault) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, f.What)
	if f.Hint != "" {
		s += "; " + f.Hint
	}
	return s
}

// Show is Error with the offending line and a caret below it.
func (f Fault) Show() string {
	if strings.TrimSpace(f.Text) == "" {
		return f.Error()
	}
	number := fmt.Sprintf("%5d | ", f.Line)
	text, column := shorten(f.Text, f.Column)
	return f.Error() + "\n" + number + text + "\n" +
		strings.Repeat(" ", len(number)-2) + "| " + indent(text, column) + "^"
}

// shorten cuts a long line to what stands around the column.
func shorten(text string, column int) (string, int) {
	const most, before = 160, 60
	runes := []rune(text)
	column = max(1, min(column, len(runes)+1))
	from := 0
	if len(runes) > most && column > before {
		from = column - before
	}
	cut := runes[from:min(len(runes), from+most)]
	out := make([]rune, 0, len(cut))
	for _, r := range cut {
		if r != '\t' && (r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029) {
			r = '?' // nothing of a file moves the reader's terminal
		}
		out = append(out, r)
	}
	if from > 0 {
		out[0] = '…'
	}
	if from+len(cut) < len(runes) {
		out[len(out)-1] = '…'
	}
	return string(out), column - from
}

// indent is what leads to a column, tabs kept so that the caret stands right.
func indent(text string, column int) string {
	var b strings.Builder
	for i, r := range []rune(text) {
		if i >= column-1 {
			break
		}
		if r != '\t' {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Faults is everything wrong with one config, sorted by position.
type Faults []Fault

// Error shows every fault, each with its line.
func (f Faults) Error() string {
	shown := make([]string, len(f))
	for i := range f {
		shown[i] = f[i].Show()
	}
	return strings.Join(shown, "\n")
}

// Unwrap lists the faults as errors of their own.
func (f Faults) Unwrap() []error {
	errs := make([]error, len(f))
	for i := range f {
		errs[i] = f[i]
	}
	return errs
}

// sorted orders by position and drops what was said twice.
func (f Faults) sorted() Faults {
	slices.SortStableFunc(f, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.CompactFunc(f, func(a, b Fault) bool {
		return a.Line == b.Line && a.Column == b.Column && a.What == b.What
	})
}

// quote shows a value of the file in a message, bounded.
func quote(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return fmt.Sprintf("%q", s)
}

// meant guesses what a mistyped word was to be; empty where nothing is near.
func meant(word string, words []string) string {
	if len(word) > 64 {
		return ""
	}
	best, nearest := "", 4*(1+max(1, len(word)/3))
	for _, w := range words {
		if len(word) >= 3 && strings.HasPrefix(strings.ToLower(w), strings.ToLower(word)) {
			return w
		}
		d := distance(strings.ToLower(word), strings.ToLower(w))
		if d >= len(w) {
			continue
		}
		score := 4 * d // then the same letters, then the same first one
		if sameLetters(word, w) {
			score -= 2
		}
		if word[:min(1, len(word))] == w[:1] {
			score--
		}
		if score < nearest {
			best, nearest = w, score
		}
	}
	return best
}

// sameLetters tells that one word is the other in another order.
func sameLetters(a, b string) bool {
	x, y := []byte(strings.ToLower(a)), []byte(strings.ToLower(b))
	slices.Sort(x)
	slices.Sort(y)
	return bytes.Equal(x, y)
}

// didYouMean is meant as a hint, else the list of what there is.
func didYouMean(word string, words []string, otherwise string) string {
	if w := meant(word, words); w != "" {
		return "did you mean " + w + "?"
	}
	return otherwise
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours between two words.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(x)][len(y)]
}
