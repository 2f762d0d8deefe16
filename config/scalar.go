package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A text is a string that passes a check.
type text struct {
	name    string // in the reference: "name", "glob", "host[:port]", …
	check   func(s string) (what, hint string)
	pattern string // for the schema
	most    int    // characters, 0: 1024
}

func (t text) word() string {
	if t.name != "" {
		return t.name
	}
	return "string"
}

func (t text) read(w *walk, n *node, path string, into reflect.Value) {
	if n.shape == isNumber || n.shape == isBool {
		w.wrong(n, path, "a string", `put it in quotes`)
		return
	}
	if n.shape != isString {
		w.wrong(n, path, "a string", "write one word or a quoted text")
		return
	}
	w.show(n) // texts are no secrets: those have a kind of their own
	most := t.most
	if most == 0 {
		most = 1024
	}
	what, hint := "", ""
	switch {
	case strings.TrimSpace(n.text) == "":
		what, hint = "empty", "give it a value, or remove the key"
	case len(n.text) > most:
		what, hint = fmt.Sprintf("longer than %d characters", most), "shorten it"
	case strings.ContainsFunc(n.text, func(r rune) bool { return r < ' ' || r == 0x7f }):
		what, hint = "a line break or control character", "write it on one line"
	case t.check != nil:
		what, hint = t.check(n.text)
	}
	if what != "" {
		w.fault(n.at, hint, "%s: %s", path, what)
		return
	}
	into.SetString(n.text)
}

// A words is one of a few, stored as a string or by set.
type words struct {
	of   []string
	also string // what else the key takes, for hints
	set  func(into reflect.Value, word string)
}

func (k words) word() string { return "`" + strings.Join(k.of, "`, `") + "`" }

func (k words) read(w *walk, n *node, path string, into reflect.Value) {
	text := n.text
	if n.shape == isBool {
		text = strings.ToLower(text)
	}
	list := strings.Join(k.of, ", ") + k.also
	if n.shape != isString && n.shape != isBool {
		w.wrong(n, path, "one of "+list, "choose one of "+list)
		return
	}
	switch {
	case slices.Contains(k.of, text):
		if k.set != nil {
			k.set(into, text)
		} else {
			into.SetString(text)
		}
	default:
		w.fault(n.at, didYouMean(text, k.of, "one of "+list), "%s: unknown value %s", path, quote(text))
	}
}

// A truth is true or false.
type truth struct{}

func (truth) word() string { return "true or false" }

func (truth) read(w *walk, n *node, path string, into reflect.Value) {
	if n.shape != isBool {
		hint := "write true or false"
		if n.shape == isString && slices.Contains([]string{"true", "false"}, n.text) {
			hint = "remove the quotes"
		}
		w.wrong(n, path, "true or false", hint)
		return
	}
	into.SetBool(strings.EqualFold(n.text, "true"))
}

// A number lies between bounds, whole unless stored in a float.
type number struct {
	min, max float64
	whole    bool
}

func (k number) word() string { return "number" }

func (k number) read(w *walk, n *node, path string, into reflect.Value) {
	if n.shape != isNumber {
		hint := "write a number"
		if n.shape == isString && n.text != "" && n.text[0] >= '0' && n.text[0] <= '9' {
			hint = "write the number alone, without quotes or unit"
		}
		w.wrong(n, path, "a number", hint)
		return
	}
	v, err := strconv.ParseFloat(n.text, 64)
	switch {
	case err != nil || math.IsNaN(v) || math.IsInf(v, 0):
		w.fault(n.at, "write it in decimal digits", "%s: %s is no plain number", path, quote(n.text))
	case k.whole && v != math.Trunc(v):
		w.fault(n.at, "write it without a fraction", "%s: %s is no whole number", path, quote(n.text))
	case v < k.min || v > k.max:
		w.fault(n.at, "give a number from "+strconv.FormatFloat(k.min, 'f', -1, 64)+" to "+strconv.FormatFloat(k.max, 'f', -1, 64), "%s: %s is out of range", path, quote(n.text))
	case into.CanFloat():
		into.SetFloat(v)
	default:
		into.SetInt(int64(v))
	}
}

// A measure is a text that is parsed: duration, size, percentage, time of day.
type measure[T any] struct {
	name  string
	parse func(string) (T, error)
	hint  string
	// zero is a word for none, or empty.
	zero string
	// ok refuses values that parse; nil takes all.
	ok      func(T) string
	pattern string
}

func (k measure[T]) word() string {
	if k.zero != "" {
		return k.name + " or `" + k.zero + "`"
	}
	return k.name
}

func (k measure[T]) read(w *walk, n *node, path string, into reflect.Value) {
	if n.shape == isNumber {
		w.fault(n.at, k.hint, "%s: a number without a unit, want a %s", path, k.name)
		return
	}
	if n.shape != isString {
		w.wrong(n, path, "a "+k.name, k.hint)
		return
	}
	if k.zero != "" && n.text == k.zero {
		return
	}
	v, err := k.parse(n.text)
	if err != nil {
		why := ""
		if !errors.Is(err, errPlain) {
			why = " (" + err.Error() + ")"
		}
		w.fault(n.at, k.hint, "%s: %s is no %s%s", path, quote(n.text), k.name, why)
		return
	}
	if k.ok != nil {
		if what := k.ok(v); what != "" {
			w.fault(n.at, k.hint, "%s: %s is %s", path, quote(n.text), what)
			return
		}
	}
	into.Set(reflect.ValueOf(v))
}

// duration is a positive one, with a word for none where that is possible.
func duration(zero string) kind {
	hint := "write it like 30s, 5m, 72h or 30d"
	if zero != "" {
		hint += ", or " + zero
	}
	return measure[time.Duration]{name: "duration", parse: parseDuration, hint: hint, zero: zero,
		ok: func(d time.Duration) string {
			if d <= 0 {
				return "not above zero"
			}
			return ""
		}, pattern: `^\+?([0-9]*\.?[0-9]+(ns|us|µs|ms|s|m|h|d))+$`}
}

func positive(v int64) string {
	if v <= 0 {
		return "not above zero"
	}
	return ""
}

var (
	size = measure[int64]{name: "size", parse: parseSize, ok: positive,
		hint: "write it like 512KiB, 100MiB or 10GiB (B, kB, KiB, MB, MiB, GB, GiB)", pattern: sizePattern}
	rate = measure[int64]{name: "size per second", parse: parseSize, ok: positive,
		hint: "write a size per second like 100MiB (B, kB, KiB, MB, MiB, GB, GiB)", pattern: sizePattern}
	percentage = measure[float64]{name: "percentage", parse: parsePercent,
		hint: "write it like 5%, above 0 and at most 100%", pattern: `^[0-9]*\.?[0-9]+ ?%$`}
	clock = measure[time.Duration]{name: "time of day", parse: parseClock,
		hint: `write it like "08:00", from "00:00" to "24:00"`, pattern: `^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$`}
	timezone = measure[*time.Location]{name: "time zone", parse: location,
		hint: "write a name of the IANA database, like Europe/Berlin or UTC"}
)

// location finds a time zone that is the same on every machine.
func location(name string) (*time.Location, error) {
	if name == "Local" {
		return nil, errors.New("it differs between machines")
	}
	return time.LoadLocation(name)
}

const sizePattern = `^[0-9]*\.?[0-9]+ ?(B|kB|KiB|MB|MiB|GB|GiB)$`

// A pathname is a file or directory, relative to the config's directory.
type pathname struct {
	// there: it has to be a file that can be read now.
	there bool
}

func (pathname) word() string { return "path" }

func (k pathname) read(w *walk, n *node, path string, into reflect.Value) {
	before := len(w.faults)
	text{}.read(w, n, path, into)
	if len(w.faults) > before {
		return
	}
	into.SetString(w.resolve(n.text))
	if k.there {
		w.load(n, path, into.String())
	}
}

// load reads a file the config names; nil when it cannot be.
func (w *walk) load(n *node, path, file string) []byte {
	w.files[file] = true
	data, err := w.env.ReadFile(file)
	switch {
	case err != nil:
		w.fault(n.at, "create the file, or correct the path (relative ones start at the config's directory)", "%s: cannot read %s: %v", path, quote(file), cause(err))
	case len(data) == 0:
		w.fault(n.at, "fill it", "%s: %s is empty", path, quote(file))
	default:
		return data
	}
	return nil
}

// A secret is a literal, {env: NAME} or {file: PATH}.
type secret struct{}

func (secret) word() string { return "secret" }

const secretHint = "write {env: NAME}, {file: PATH} or the secret itself in quotes"

func (secret) read(w *walk, n *node, path string, into reflect.Value) {
	switch n.shape {
	case isString:
		if strings.TrimSpace(n.text) == "" {
			w.fault(n.at, secretHint, "%s: an empty secret", path)
			return
		}
		if len(n.text) > maxSecret {
			w.fault(n.at, secretHint, "%s: a secret longer than %d KiB", path, maxSecret>>10)
			return
		}
		into.Set(reflect.ValueOf(NewSecret(n.text)))
	case isMap:
		readSecretMap(w, n, path, into)
	case isNumber, isBool:
		w.wrong(n, path, "a secret", "put it in quotes")
	default:
		w.wrong(n, path, "a secret", secretHint)
	}
}

func readSecretMap(w *walk, n *node, path string, into reflect.Value) {
	if len(n.pairs) != 1 || (n.pairs[0].key != "env" && n.pairs[0].key != "file") {
		for _, p := range n.pairs {
			if p.key != "env" && p.key != "file" {
				w.unknown(p, path, []string{"env", "file"})
				return
			}
		}
		w.fault(n.at, secretHint, "%s: want exactly one of env and file", path)
		return
	}
	p := n.pairs[0]
	at := join(path, p.key)
	if p.value == nil {
		return
	}
	w.marks[at] = mark{p.at, p.value.at}
	if p.value.shape != isString || strings.TrimSpace(p.value.text) == "" {
		w.wrong(p.value, at, map[string]string{"env": "the name of an environment variable", "file": "a path"}[p.key], secretHint)
		return
	}
	if p.key == "file" {
		w.show(p.value)
		readSecretFile(w, p.value, at, into)
		return
	}
	name := p.value.text
	if what, hint := checkEnv(name); what != "" {
		w.fault(p.value.at, hint, "%s: %s", at, what)
		return
	}
	w.show(p.value)
	value, ok := w.env.Env(name)
	if strings.TrimSpace(value) == "" {
		what := "is not set"
		if ok {
			what = "is empty"
		}
		w.faults = append(w.faults, located{at: p.value.at, unset: true,
			what: fmt.Sprintf("%s: the environment variable %s %s", at, name, what),
			hint: "set it where the daemon starts"})
		value = ""
	}
	into.Set(reflect.ValueOf(envSecret(name, value)))
}

func readSecretFile(w *walk, n *node, path string, into reflect.Value) {
	file := w.resolve(n.text)
	w.files[file] = true
	value, err := readSecret(file, w.env.ReadFile)
	if err != nil {
		w.fault(n.at, "create the file with the secret in it, or correct the path (relative ones start at the config's directory)",
			"%s: cannot use %s: %v", path, quote(file), cause(err))
		return
	}
	into.Set(reflect.ValueOf(fileSecret(file, value)))
}
