package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Schema is the JSON Schema (draft 7) of a config, for editors. It takes what
// the walk takes, as far as a schema can say it.
func Schema() []byte {
	d := &definitions{made: map[string]any{}}
	root := d.object(table)
	out := map[string]any{
		"$schema":     "http://json-schema.org/draft-07/schema#",
		"title":       "Twinport's config",
		"definitions": d.made,
	}
	maps.Copy(out, root)
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(out); err != nil { // maps, slices and strings only
		panic(err)
	}
	return b.Bytes()
}

// definitions collects what is referred to by name.
type definitions struct{ made map[string]any }

func (d *definitions) refer(name string, describe func() any) any {
	name = strings.ReplaceAll(name, " ", "-")
	if _, ok := d.made[name]; !ok {
		d.made[name] = true // a table may mention itself
		d.made[name] = describe()
	}
	return map[string]any{"$ref": "#/definitions/" + name}
}

func (d *definitions) object(o *object) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, f := range o.fields {
		properties[f.key] = d.field(f)
		if f.required {
			required = append(required, f.key)
		}
	}
	out := map[string]any{"type": "object", "additionalProperties": false, "properties": properties, "description": plain(o.doc)}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

func (d *definitions) field(f field) any {
	value := d.kind(f.kind)
	out := map[string]any{"description": plain(f.doc)}
	if _, refers := value["$ref"]; refers {
		out["allOf"] = []any{value} // beside a $ref draft 7 ignores everything
	} else {
		maps.Copy(out, value)
		out["description"] = plain(f.doc)
	}
	if f.def != "" {
		r := &reader{spans: map[*node]span{}}
		out["default"] = plainValue(r.read([]byte(f.def)))
	}
	return out
}

// kind describes a value.
func (d *definitions) kind(k kind) map[string]any {
	switch k := k.(type) {
	case *object:
		return d.refer(k.name, func() any { return d.object(k) }).(map[string]any)
	case named:
		return map[string]any{"type": "object", "minProperties": 1, "additionalProperties": d.kind(k.of),
			"propertyNames": map[string]any{"pattern": namePattern}}
	case list:
		out := map[string]any{"type": "array", "items": d.kind(k.of)}
		if k.some {
			out["minItems"] = 1
		}
		return out
	case oneOrMore:
		return map[string]any{"oneOf": []any{d.kind(k.of), d.kind(list{of: k.of, some: true})}}
	case choice:
		ways := make([]any, len(k))
		for i, o := range k {
			ways[i] = d.kind(o.kind)
		}
		return map[string]any{"oneOf": ways}
	case labels:
		return map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}}
	case words:
		values := []any{}
		for _, w := range k.of {
			if w == "true" || w == "false" {
				values = append(values, w == "true")
			}
			values = append(values, w)
		}
		return map[string]any{"enum": values}
	case truth:
		return map[string]any{"type": "boolean"}
	case number:
		out := map[string]any{"type": "number", "minimum": k.min, "maximum": k.max}
		if k.whole {
			out["type"] = "integer"
		}
		return out
	case text:
		most := k.most
		if most == 0 {
			most = 1024
		}
		return matching(map[string]any{"type": "string", "minLength": 1, "maxLength": most}, k.pattern)
	case pathname:
		return map[string]any{"type": "string", "minLength": 1}
	case orEmpty:
		return map[string]any{"type": "string"}
	case secret:
		return d.refer("secret", func() any {
			one := func(key, doc string) any {
				return map[string]any{"type": "object", "additionalProperties": false, "required": []string{key},
					"properties": map[string]any{key: map[string]any{"type": "string", "minLength": 1, "description": doc}}}
			}
			return map[string]any{"oneOf": []any{
				one("env", "Name of an environment variable."),
				one("file", "Path of a file; it is read again when it changes."),
				map[string]any{"type": "string", "minLength": 1, "description": "The secret itself."},
			}}
		}).(map[string]any)
	case measureOf:
		return k.schema()
	}
	panic(fmt.Sprintf("no schema for %T", k))
}

// measureOf is any measure.
type measureOf interface{ schema() map[string]any }

func (k measure[T]) schema() map[string]any {
	out := matching(map[string]any{"type": "string"}, k.pattern)
	if k.zero != "" {
		return map[string]any{"anyOf": []any{map[string]any{"const": k.zero}, out}}
	}
	return out
}

func matching(out map[string]any, pattern string) map[string]any {
	if pattern != "" {
		out["pattern"] = pattern
	}
	return out
}

// plain is a doc without Markdown.
func plain(doc string) string { return strings.ReplaceAll(doc, "`", "") }

// plainValue is a default as JSON has it.
func plainValue(n *node) any {
	switch n.shape {
	case isBool:
		return n.text == "true"
	case isList:
		out := []any{}
		for _, item := range n.items {
			out = append(out, plainValue(item))
		}
		return out
	default:
		return n.text
	}
}

// Reference is the config's reference page, in Markdown.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString(referenceHead)
	seen := map[*object]bool{}
	queue := []*object{table}
	for len(queue) > 0 {
		o := queue[0]
		queue = queue[1:]
		if seen[o] {
			continue
		}
		seen[o] = true
		below := writeObject(&b, o)
		queue = append(slices.Clone(below), queue...) // what is inside comes next
	}
	return b.Bytes()
}

const referenceHead = `# Config reference

<!-- Made from the table of fields in the config package by "go generate ./config"; edits here are lost. -->

One YAML file, ` + "`twinport.yaml`" + ` unless ` + "`--config`" + ` says otherwise. Every fault of it is reported at once, with line, column and a hint; unknown keys are faults. [` + "`config/twinport.schema.json`" + `](../../config/twinport.schema.json) tells editors the same: begin the file with

` + "```yaml" + `
# yaml-language-server: $schema=https://raw.githubusercontent.com/twinport/twinport/main/config/twinport.schema.json
` + "```" + `

| value | how it is written |
|---|---|
| duration | Go's, with ` + "`d`" + ` for 24 hours: ` + "`30s`, `5m`, `1h30m`, `30d`" + ` |
| size | a number with B, kB, KiB, MB, MiB, GB or GiB: ` + "`512KiB`, `10GiB`" + ` |
| secret | ` + "`{env: NAME}`, `{file: PATH}`" + ` (read again when it changes) or the secret itself; it prints as ` + "`<redacted>`" + ` |
| path | relative ones start at the directory of the config file |
| glob | ` + "`*`" + ` within one part of a name, ` + "`**`" + ` over parts, ` + "`?`, `[a-z]`, `{a,b}`" + ` |

YAML anchors, aliases, tags and further documents are refused.
`

// writeObject writes one table and lists the objects its fields lead to.
func writeObject(b *bytes.Buffer, o *object) (below []*object) {
	if o == table {
		b.WriteString("\n## The file\n\n")
	} else {
		fmt.Fprintf(b, "\n## %s\n\n%s\n\n", o.name, o.doc)
	}
	b.WriteString("| key | value | default | meaning |\n|---|---|---|---|\n")
	for _, f := range o.fields {
		def := f.shown
		switch {
		case f.required:
			def = "required"
		case f.def != "":
			def = "`" + strings.Trim(f.def, `"`) + "`"
		case def == "":
			def = "none"
		}
		doc := f.doc
		if len(f.only) > 0 {
			doc += " Only for `" + strings.Join(f.only, "`, `") + "`."
		}
		word := f.kind.word()
		inner := objects(f.kind)
		for _, in := range inner {
			word = strings.Replace(word, "mapping", "["+in.name+"](#"+strings.ReplaceAll(strings.ToLower(in.name), " ", "-")+")", 1)
		}
		below = append(below, inner...)
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", f.key, cell(word), cell(def), cell(doc))
	}
	return below
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// objects are those that a kind leads to.
func objects(k kind) (out []*object) {
	switch k := k.(type) {
	case *object:
		return []*object{k}
	case named:
		return []*object{k.of}
	case list:
		return objects(k.of)
	case oneOrMore:
		return objects(k.of)
	case choice:
		for _, o := range k {
			out = append(out, objects(o.kind)...)
		}
	}
	return out
}
