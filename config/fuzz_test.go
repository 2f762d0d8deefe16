package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FuzzParse: no input panics or takes long, and each gives a config or faults
// that stand inside the file.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/design.yaml", "../deploy/examples/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	cases, err := os.ReadFile("testdata/faults.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, section := range strings.Split(string(cases), "=== ")[1:] {
		_, rest, _ := strings.Cut(section, "\n")
		input, _, _ := strings.Cut(rest, ">>>\n")
		f.Add([]byte(short.Replace(input)))
	}
	env := pretend()
	f.Fuzz(func(t *testing.T, data []byte) {
		start := time.Now()
		c, warnings, err := Parse("/etc/twinport/t.yaml", data, env)
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
		var faults Faults
		switch {
		case err == nil:
			if c == nil || len(c.Registries) == 0 {
				t.Error("neither config nor faults")
			}
		case !errors.As(err, &faults) || len(faults) == 0 || c != nil:
			t.Errorf("got %v and %v", c, err)
		}
		lines := strings.Count(strings.ReplaceAll(string(data), "\r", "\n"), "\n") + 1
		for _, fault := range append(faults, warnings...) {
			if fault.Line < 1 || fault.Column < 1 || fault.Line > lines || fault.What == "" || fault.Hint == "" {
				t.Errorf("fault %+v in %d lines", fault, lines)
			}
			_ = fault.Show()
		}
	})
}

// TestBounds: what would cost too much is refused before it does.
func TestBounds(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"size":       {strings.Repeat("# filler\n", 120_000), "larger than 1 MiB"},
		"flow":       {"a: " + strings.Repeat("[", 100_000), "levels deep"},
		"mappings":   {"a: " + strings.Repeat("{a: ", 1000), "levels deep"},
		"dashes":     {strings.Repeat("- ", 100_000), "levels deep"},
		"questions":  {strings.Repeat("? ", 1000), "levels deep"},
		"indents":    {deep(40), "levels deep"},
		"keys":       {strings.Repeat("a: b\n", 30_000), "more than 20000 keys"},
		"pieces":     {"a: [" + strings.Repeat("a,", 200_000) + "]", "pieces"},
		"no text":    {"data: \xff\n", "no UTF-8"},
		"control":    {"data: a\x00b\n", "control character"},
		"aliases":    {"a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]\n", "anchors and aliases"},
		"directives": {"%YAML 1.2\n---\ndata: x\n", "directives"},
	} {
		_, _, err := Parse("t.yaml", []byte(tt.text), pretend())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %.200v, want %s", name, err, tt.want)
		}
	}
}

func deep(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}
