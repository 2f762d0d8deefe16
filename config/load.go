package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// An Environment is what a config asks of the machine; nil functions ask the
// real one.
type Environment struct {
	// Env looks up an environment variable.
	Env func(name string) (string, bool)
	// ReadFile reads a secret or certificate.
	ReadFile func(path string) ([]byte, error)
}

// Load reads and checks a file for running: every fault of it, unset
// environment variables among them, comes as one Faults.
func Load(path string) (*Config, error) {
	c, warnings, err := Check(path)
	var faults Faults
	if err != nil && !errors.As(err, &faults) {
		return nil, err
	}
	for _, w := range warnings {
		if w.Unset {
			faults = append(faults, w)
		}
	}
	if len(faults) > 0 {
		return nil, faults.sorted()
	}
	return c, nil
}

// Check is Load for a look from outside: what only the machine that runs can
// have (environment variables) comes as warnings.
func Check(path string) (*Config, []Fault, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read config %s: %w", path, cause(err))
	}
	return Parse(path, data, Environment{})
}

// Parse checks a file's content. Relative paths start at the directory of
// file. The error is a Faults; warnings come with and without one, sorted too.
func Parse(file string, data []byte, env Environment) (*Config, []Fault, error) {
	w, c, err := newWalk(file, env)
	if err != nil {
		return nil, nil, err
	}
	root := w.walk(data, c)
	faults, warnings := w.told(file, data, root)
	if len(faults) > 0 {
		return nil, warnings, faults
	}
	c.Files = slices.Sorted(maps.Keys(w.files))
	return c, warnings, nil
}

func newWalk(file string, env Environment) (*walk, *Config, error) {
	if env.Env == nil {
		env.Env = os.LookupEnv
	}
	if env.ReadFile == nil {
		env.ReadFile = readFile
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, nil, fmt.Errorf("find the directory of %s: %w", file, err)
	}
	r := &reader{spans: map[*node]span{}}
	return &walk{reader: r, masker: masker{r.spans, map[*node]bool{}}, env: env, dir: dir,
		marks: map[string]mark{}, files: map[string]bool{}}, &Config{File: file}, nil
}

// walk reads a file's content into c; nil where it is no YAML.
func (w *walk) walk(data []byte, c *Config) *node {
	root := w.reader.read(data)
	if root != nil {
		w.marks[""] = mark{root.at, root.at}
		w.suspect(root, false)
		table.read(w, root, "", reflect.ValueOf(c).Elem())
	}
	return root
}

// told gives the faults their file and text, and takes the warnings out.
func (w *walk) told(file string, data []byte, root *node) (faults, warnings Faults) {
	var lines []string
	if len(data) <= maxFile {
		text := strings.ToValidUTF8(strings.TrimPrefix(string(data), "\ufeff"), "?")
		text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
		lines = strings.Split(text, "\n")
		if root == nil {
			maskUnparsed(lines)
		} else {
			w.apply(lines)
		}
	}
	for _, l := range w.faults {
		f := Fault{File: file, Line: l.at.line, Column: l.at.column, What: l.what, Hint: l.hint, Unset: l.unset}
		if l.at.line >= 1 && l.at.line <= len(lines) {
			f.Text = lines[l.at.line-1]
		}
		if f.Unset {
			warnings = append(warnings, f)
		} else {
			faults = append(faults, f)
		}
	}
	return faults.sorted(), warnings.sorted()
}

// cause is an I/O error without the path, which the message names itself.
func cause(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}
