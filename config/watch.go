package config

import (
	"context"
	"crypto/sha256"
	"maps"
	"slices"
	"time"
)

// watchEvery is the time between two looks of a Watcher.
const watchEvery = time.Second

// A Watcher sees changes of the config file and of the files it names, from
// the moment it was made: it is made before Load, so that a change in between
// is seen at worst twice, never missed.
type Watcher struct{ vigil *vigil }

// NewWatcher looks at the files for the first time.
func NewWatcher(path string) *Watcher { return &Watcher{newVigil(path)} }

// Run calls changed after a content has changed, until ctx ends. It looks at
// contents once a second, which sees what notifications do not: config maps
// that swap links, and network file systems. A change counts once it has stood
// still for one look, and a file that is away is waited for, so that none is
// taken half-written. changed runs on Run's own goroutine, no two at a time.
func (w *Watcher) Run(ctx context.Context, changed func()) {
	ticks := time.NewTicker(watchEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			if w.vigil.look() {
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
