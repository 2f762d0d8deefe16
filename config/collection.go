package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A list is a list of values of one kind.
type list struct {
	of   kind
	some bool // at least one
}

func (l list) word() string { return "list of " + l.of.word() }

func (l list) read(w *walk, n *node, path string, into reflect.Value) {
	if n.shape != isList {
		hint := "begin each item with a dash, or write [a, b]"
		if n.shape == isString || n.shape == isNumber {
			hint = "put brackets around it: [...]"
		}
		w.wrong(n, path, "a list", hint)
		return
	}
	if len(n.items) == 0 && l.some {
		w.fault(n.at, "name at least one", "%s: an empty list", path)
	}
	out := reflect.MakeSlice(into.Type(), 0, len(n.items))
	seen := map[string]bool{}
	for i, item := range n.items {
		at := fmt.Sprintf("%s[%d]", path, i)
		w.marks[at] = mark{item.at, item.at}
		if item.shape == isString && !w.hidden[item] {
			if seen[item.text] {
				w.fault(item.at, "keep one of them", "%s: %s is given twice", at, quote(item.text))
			}
			seen[item.text] = true
		}
		v := reflect.New(into.Type().Elem()).Elem()
		l.of.read(w, item, at, v)
		out = reflect.Append(out, v)
	}
	into.Set(out)
}

// A named is a mapping from names to objects, kept in the file's order in a
// slice whose elements have a Name.
type named struct {
	of *object
}

func (m named) word() string { return "`NAME:` mapping, for each" }

func (m named) read(w *walk, n *node, path string, into reflect.Value) {
	if n.shape == isList {
		w.wrong(n, path, "a mapping", "write NAME: {kind: …, address: …} without dashes")
		return
	}
	if n.shape != isMap {
		w.wrong(n, path, "a mapping", "write NAME: {…}, one for each")
		return
	}
	if len(n.pairs) == 0 {
		w.fault(n.at, "add at least one", "%s: none", path)
	}
	out := reflect.MakeSlice(into.Type(), 0, len(n.pairs))
	seen := map[string]position{}
	for _, p := range n.pairs {
		at := join(path, p.key)
		if first, twice := seen[p.key]; twice {
			w.fault(p.at, fmt.Sprintf("it is given at line %d already; rename one", first.line), "%s: the name is given twice", at)
			continue
		}
		seen[p.key] = p.at
		if what, hint := checkName(p.key); what != "" {
			w.fault(p.at, hint, "%s: %s", at, what)
		}
		w.marks[at] = mark{p.at, p.at}
		if p.value == nil {
			continue
		}
		w.marks[at] = mark{p.at, p.value.at}
		v := reflect.New(into.Type().Elem()).Elem()
		v.FieldByName("Name").SetString(p.key)
		value := p.value
		if value.shape == isNull {
			value = &node{shape: isMap, at: p.at} // all that is missing is said
		}
		m.of.read(w, value, at, v)
		out = reflect.Append(out, v)
	}
	into.Set(out)
}

// A labels is a mapping of strings to strings.
type labels struct{}

func (labels) word() string { return "mapping of strings" }

func (labels) read(w *walk, n *node, path string, into reflect.Value) {
	if n.shape != isMap {
		w.wrong(n, path, "a mapping", "write {key: value}")
		return
	}
	out := map[string]string{}
	for _, p := range n.pairs {
		at := join(path, p.key)
		if _, twice := out[p.key]; twice {
			w.fault(p.at, "keep one of them", "%s: the key is given twice", at)
			continue
		}
		if p.value == nil {
			continue
		}
		if p.value.shape != isString {
			w.wrong(p.value, at, "a string", "put it in quotes")
			continue
		}
		out[p.key] = p.value.text
	}
	into.Set(reflect.ValueOf(out))
}

// A choice reads by shape: a scalar one way, a list or a mapping another; each
// way may store into a field of the value.
type choice []way

type way struct {
	shapes []shape
	into   string // a field of the value, empty: the value itself
	kind   kind
}

func (c choice) word() string {
	words := make([]string, len(c))
	for i, o := range c {
		words[i] = o.kind.word()
	}
	return strings.Join(words, " or ")
}

func (c choice) read(w *walk, n *node, path string, into reflect.Value) {
	for _, o := range c {
		if slices.Contains(o.shapes, n.shape) {
			if o.into != "" {
				into = into.FieldByName(o.into)
			}
			o.kind.read(w, n, path, into)
			return
		}
	}
	w.wrong(n, path, c.word(), "see the reference of the key")
}

// An oneOrMore is a list, or one value without the brackets.
type oneOrMore struct {
	of kind
}

func (o oneOrMore) word() string { return o.of.word() + ", or a list of them" }

func (o oneOrMore) read(w *walk, n *node, path string, into reflect.Value) {
	if n.shape == isList {
		list{of: o.of, some: true}.read(w, n, path, into)
		return
	}
	v := reflect.New(into.Type().Elem()).Elem()
	o.of.read(w, n, path, v)
	into.Set(reflect.Append(into, v))
}
