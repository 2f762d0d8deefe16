package config

import (
	"context"
	"crypto/sha256"
	"maps"
	"slices"
	"time"
)

// watchEvery is the time between two looks of Watch.
const watchEvery = time.Second

// Watch calls changed after the content of the config file, or of a file it
// names, has changed, until ctx ends. It looks at contents once a second, which
// sees what notifications do not: config maps that swap links, and network
// file systems. A change counts once it has stood still for one look, and a
// file that is away is waited for, so that none is taken half-written. Begin it
// before Load: a change in between is then seen at worst twice, never missed.
// changed runs on Watch's own goroutine, no two at a time.
func Watch(ctx context.Context, path string, changed func()) {
	v := newVigil(path)
	ticks := time.NewTicker(watchEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			if v.look() {
				changed()
			}
		}
	}
}

// A vigil remembers what was seen of one config.
type vigil struct {
	path   string
	parsed [sha256.Size]byte // the config's content that files come from
	files  []string          // that it named when it was last YAML
	taken  string            // what was last told of, or there at first
	seen   string            // at the last look
}

func newVigil(path string) *vigil {
	v := &vigil{path: path}
	v.seen, _ = v.sum()
	v.taken = v.seen
	return v
}

// look tells that there is something new that has stood still.
func (v *vigil) look() bool {
	sum, ok := v.sum()
	if !ok {
		v.seen = ""
		return false
	}
	still := sum == v.seen
	v.seen = sum
	if v.taken == "" && still { // the file was away at first
		v.taken = sum
		return true
	}
	if !still || sum == v.taken {
		return false
	}
	v.taken = sum
	return true
}

// sum stands for the content of all files; not ok while the config is away.
func (v *vigil) sum() (string, bool) {
	data, err := readFile(v.path)
	if err != nil || len(data) == 0 {
		return "", false
	}
	part := sha256.Sum256(data)
	if part != v.parsed {
		v.parsed = part
		if files, ok := mentioned(v.path, data); ok {
			v.files = files
		}
	}
	h := sha256.New()
	h.Write(part[:])
	for _, f := range v.files {
		h.Write([]byte(f + "\x00"))
		if content, err := readFile(f); err == nil {
			part = sha256.Sum256(content)
			h.Write(part[:])
		}
	}
	return string(h.Sum(nil)), true
}

// mentioned lists the files that a config names, a faulty one too, so that the
// missing one is seen when it comes; not ok where it cannot be read as YAML.
func mentioned(file string, data []byte) ([]string, bool) {
	w, _, err := newWalk(file, Environment{})
	if err != nil {
		return nil, false
	}
	if w.walk(data, &Config{}) == nil {
		return nil, false
	}
	return slices.Sorted(maps.Keys(w.files)), true
}
