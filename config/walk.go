package config

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// A walk goes over one file's nodes and the table of fields side by side.
type walk struct {
	*reader
	masker
	env   Environment
	dir   string
	marks map[string]mark // by path
	files map[string]bool // named by the config
}

// mark is where a path's key and value stand.
type mark struct{ key, value position }

// at is where a path's value stands, or where the nearest path above it does.
func (w *walk) at(path string) position {
	for path != "" {
		if m, ok := w.marks[path]; ok {
			return m.value
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			break
		}
		path = path[:cut]
	}
	return w.marks[""].value
}

// entry is where the thing at a path begins: its key, or the item itself.
func (w *walk) entry(path string) position {
	if m, ok := w.marks[path]; ok {
		return m.key
	}
	return w.at(path)
}

// given tells whether the file says something at a path.
func (w *walk) given(path string) bool {
	_, ok := w.marks[path]
	return ok
}

// resolve makes a path of the file absolute: it is relative to the file's
// directory.
func (w *walk) resolve(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(w.dir, path)
}

// A field is one key of the table.
type field struct {
	key  string
	kind kind
	// def is the default as YAML, read like a value of the file; shown is what
	// the reference says instead, where the default depends on something.
	def, shown string
	required   bool
	// only lists the registry kinds that know the field; none: all.
	only []string
	// doc says unit and effect.
	doc string
}

// A kind reads one sort of value and describes it.
type kind interface {
	// read checks n and stores it; what is wrong it reports itself.
	read(w *walk, n *node, path string, into reflect.Value)
	// word is the value's type in the reference.
	word() string
}

// An object is a mapping with known keys, stored in a struct whose fields have
// the keys' names but for case.
type object struct {
	name, doc string
	fields    []field
	// check looks at the fields together, once they are read.
	check func(w *walk, path string, into reflect.Value)
}

func (o *object) word() string { return "mapping" }

func (o *object) keys() []string {
	keys := make([]string, len(o.fields))
	for i, f := range o.fields {
		keys[i] = f.key
	}
	return keys
}

func (o *object) read(w *walk, n *node, path string, into reflect.Value) {
	if into.Kind() == reflect.Pointer {
		into.Set(reflect.New(into.Type().Elem()))
		into = into.Elem()
	}
	if n.shape != isMap {
		w.wrong(n, path, "a mapping", "its keys are "+strings.Join(o.keys(), ", "))
		return
	}
	seen := map[string]position{}
	for _, p := range n.pairs {
		at := join(path, p.key)
		if first, twice := seen[p.key]; twice {
			w.fault(p.at, fmt.Sprintf("it is given at line %d already; keep one", first.line), "%s: the key is given twice", at)
			continue
		}
		seen[p.key] = p.at
		i := slices.IndexFunc(o.fields, func(f field) bool { return f.key == p.key })
		if i < 0 {
			w.unknown(p, path, o.keys())
			continue
		}
		f := o.fields[i]
		w.marks[at] = mark{p.at, p.at}
		if p.value == nil {
			continue // refused while reading the YAML
		}
		w.marks[at] = mark{p.at, p.value.at}
		if p.value.shape == isNull {
			w.fault(p.value.at, "give it a value, or remove the key", "%s: empty", at)
			continue
		}
		f.kind.read(w, p.value, at, member(into, f.key))
	}
	for _, f := range o.fields {
		if _, ok := seen[f.key]; ok {
			continue
		}
		at := join(path, f.key)
		switch {
		case f.required:
			w.fault(w.entry(path), "add it: "+brief(f.doc), "%s: missing", at)
		case f.def != "":
			w.fallback(f, at, member(into, f.key))
		default:
			w.fill(f.kind, at, member(into, f.key))
		}
	}
	if o.check != nil {
		o.check(w, path, into)
	}
}

// brief is a doc's first sentence, for a hint.
func brief(doc string) string {
	if i := strings.Index(doc, ". "); i > 0 {
		doc = doc[:i]
	}
	doc = strings.TrimSuffix(plain(doc), ".")
	if len(doc) > 1 && doc[1] >= 'a' {
		doc = strings.ToLower(doc[:1]) + doc[1:]
	}
	return doc
}

// fallback reads a field's default as if the file said it.
func (w *walk) fallback(f field, path string, into reflect.Value) {
	r := &reader{spans: map[*node]span{}}
	n := r.read([]byte(f.def))
	quiet := &walk{reader: r, masker: masker{r.spans, map[*node]bool{}}, env: w.env, dir: w.dir,
		marks: map[string]mark{"": {}}, files: map[string]bool{}}
	f.kind.read(quiet, n, path, into)
	if len(r.faults) > 0 { // the table is wrong, not the file; its test says so first
		panic(fmt.Sprintf("default of %s: %v", path, r.faults))
	}
}

// fill sets the defaults inside an object that the file leaves out.
func (w *walk) fill(k kind, path string, into reflect.Value) {
	o, ok := k.(*object)
	if !ok || into.Kind() == reflect.Pointer {
		return
	}
	for _, f := range o.fields {
		if f.def != "" {
			w.fallback(f, join(path, f.key), member(into, f.key))
		} else {
			w.fill(f.kind, join(path, f.key), member(into, f.key))
		}
	}
}

// unknown reports a key that is not in the table.
func (w *walk) unknown(p pair, path string, keys []string) {
	shown := p.key
	if secretKey.MatchString(path) && (p.value == nil || p.value.shape == isNull) {
		// "{hunter2}" is a key without a value to YAML, and may be a secret.
		hide := &node{shape: isString, at: p.at}
		w.spans[hide] = span{p.at, position{p.at.line, p.at.column + len([]rune(p.key))}}
		w.hidden[hide] = true
		w.fault(p.at, "the keys are "+strings.Join(keys, ", "), "%s: an unknown key without a value", path)
		return
	}
	if r := []rune(shown); len(r) > 60 {
		shown = string(r[:60]) + "…"
	}
	w.fault(p.at, didYouMean(p.key, keys, "the keys here are "+strings.Join(keys, ", ")), "%s: unknown key", join(path, shown))
}

// wrong reports a value of the wrong shape, never the value.
func (w *walk) wrong(n *node, path, want, hint string) {
	if n.shape == isNull {
		w.fault(n.at, "give it a value, or remove it", "%s: empty", path)
		return
	}
	if path == "" {
		path = "the file"
	}
	w.fault(n.at, hint, "%s: %s, want %s", path, n.shape, want)
}

// join makes a path; keys that are no words are quoted.
func join(path, key string) string {
	if key == "" || strings.ContainsAny(key, " .[]\"'\n\t\\") || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		key = quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// member is the struct field that a key is stored in.
func member(into reflect.Value, key string) reflect.Value {
	return into.FieldByNameFunc(func(name string) bool { return strings.EqualFold(name, key) })
}
