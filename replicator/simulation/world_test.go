package simulation

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// A world is what one history is played in: registries, their senders of
// webhooks, and a daemon that may be killed and started again. It lives in a
// bubble of synctest: its time passes only when nothing is left to do.
type world struct {
	history history
	chance  chance
	sites   map[string]*site
	dir     string // where the processes' directories are
	began   time.Time
	senders sync.WaitGroup
	booting sync.WaitGroup
	graves  sync.WaitGroup // of processes, the dead ones too

	mu       sync.Mutex
	p        *process // nil: no daemon runs
	config   setting
	dying    int // at which of the coming stages of the journal the daemon dies; 0: it does not
	deaths   int
	starts   int
	ending   bool
	hash     uint64
	lines    []string // of the trace, where it is kept
	verbose  bool
	faults   []string
	states   map[tagAt][]state
	reached  map[tagAt]int // how far a destination's tag has come along its source's
	accepted map[tagAt]int // the newest state whose event was answered 202, plus 1
	attached []attachment
	resolved map[tagAt]time.Time
}

// A tagAt is a tag of one registry.
type tagAt struct{ registry, repository, tag string }

func (t tagAt) String() string { return t.registry + "/" + t.repository + ":" + t.tag }

// A state is what a tag named from a time on.
type state struct {
	digest digest.Digest // empty: it was deleted
	at     time.Time
	user   bool // pushed, not copied
	// foreign: somebody moved a destination's tag; tardy: the daemon did, late.
	foreign, tardy bool
	kept           bool // and with `drift: keep` it stays
}

// An attachment is a referrer that a user pushed.
type attachment struct {
	registry, repository string
	subject, root        digest.Digest
	at                   time.Time
}

// An outcome is what came of a history.
type outcome struct {
	hash   uint64
	faults []string
	trace  []string
	took   time.Duration // of the world's time
}

// play plays a history to its end.
func play(t *testing.T, h history, verbose bool) (out outcome) {
	t.Helper()
	dir := scratch(t)
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			history: h, chance: chance{h.Seed, time.Now()}, sites: make(map[string]*site), dir: dir, began: time.Now(), verbose: verbose,
			states: make(map[tagAt][]state), reached: make(map[tagAt]int), accepted: make(map[tagAt]int), resolved: make(map[tagAt]time.Time),
		}
		for _, name := range h.Topology.registries() {
			w.sites[name] = newSite(w, name, h.options(name))
		}
		w.boot(filepath.Join(dir, "0"))
		for _, step := range h.Steps {
			time.Sleep(time.Until(w.began.Add(step.At)))
			w.trace("step %s", step)
			w.do(step)
		}
		w.calm()
		w.converge()
		w.stop()
		slices.Sort(w.lines) // within an instant they have no order
		out = outcome{hash: w.hash, faults: w.faults, trace: w.lines, took: time.Since(w.began)}
	})
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
	return out
}

// scratch is a directory in memory where there is one.
func scratch(t *testing.T) string {
	t.Helper()
	base := os.Getenv("TMPDIR")
	if info, err := os.Stat("/dev/shm"); base == "" && err == nil && info.IsDir() {
		base = "/dev/shm"
	}
	dir, err := os.MkdirTemp(base, "twinport-simulation-")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// trace adds a line to what two runs of a history must have in common.
func (w *world) trace(format string, args ...any) {
	line := fmt.Sprintf("%14.9f ", time.Since(w.began).Seconds()) + fmt.Sprintf(format, args...)
	h := fnv.New64a()
	_, _ = h.Write([]byte(line)) // never fails
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hash += mix(h.Sum64()) // what happens in one instant has no order
	if w.verbose {
		w.lines = append(w.lines, line)
	}
}

// fault notes a broken promise.
func (w *world) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) < 20 {
		w.faults = append(w.faults, fmt.Sprintf("%.3fs ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
	}
}

// do takes one step of the history.
func (w *world) do(s step) {
	switch s.Kind {
	case push:
		w.push(s)
	case remove:
		w.sites[s.Registry].SetTag(s.Repository, s.Tag, "")
		w.became(tagAt{s.Registry, s.Repository, s.Tag}, state{user: true})
		w.tell(s, 0, `{"timestamp":%q,"action":"delete","target":{"repository":%q,"tag":%q}}`, w.stamp(), s.Repository, s.Tag)
	case attach:
		w.attach(s)
	case ail:
		w.sites[s.Registry].ail(s.Trouble, s.PerMille, s.Length)
	case forget:
		w.forget(s)
	case crash:
		w.mu.Lock()
		w.dying = s.N
		w.mu.Unlock()
	case restart:
		w.restart()
	case reload:
		w.reload(setting{fingerprint: s.N})
	case narrow:
		w.reload(setting{fingerprint: s.N, without: s.Registry})
	case meddle:
		w.meddle(s)
	case pause, resume, cancel, retry, resolve:
		w.operate(s)
	}
}

func (w *world) stamp() string { return time.Now().UTC().Format(time.RFC3339Nano) }

// push has a user push a content and move a tag to it.
func (w *world) push(s step) {
	c := content(s.Content)
	w.sites[s.Registry].Push(s.Repository, s.Tag, c)
	n := w.became(tagAt{s.Registry, s.Repository, s.Tag}, state{digest: c.Digest(), user: true})
	w.tell(s, n, `{"timestamp":%q,"action":"push","target":{"mediaType":%q,"digest":%q,"repository":%q,"tag":%q}}`,
		w.stamp(), c.Root().MediaType, c.Digest(), s.Repository, s.Tag)
}

// attach has a user push an artifact that refers to a content.
func (w *world) attach(s step) {
	c := referrer(s.Content, s.N)
	site := w.sites[s.Registry]
	subject := content(s.Content).Digest()
	if _, ok := site.Manifest(s.Repository, subject.String()); !ok {
		return
	}
	site.Attach(s.Repository, c)
	w.mu.Lock()
	w.attached = append(w.attached, attachment{s.Registry, s.Repository, subject, c.Digest(), time.Now()})
	w.mu.Unlock()
	w.tell(s, 0, `{"timestamp":%q,"action":"push","target":{"mediaType":%q,"digest":%q,"repository":%q}}`,
		w.stamp(), c.Root().MediaType, c.Digest(), s.Repository)
	tag := oci.FallbackTag(subject)
	if index, ok := site.Manifest(s.Repository, tag); ok {
		w.tell(s, -1, `{"timestamp":%q,"action":"push","target":{"mediaType":%q,"digest":%q,"repository":%q,"tag":%q}}`,
			w.stamp(), index.MediaType, index.Digest, s.Repository, tag)
	}
}

// forget has a registry lose content that was copied there.
func (w *world) forget(s step) {
	site := w.sites[s.Registry]
	at := tagAt{s.Registry, s.Repository, s.Tag}
	root, ok := site.Manifest(s.Repository, s.Tag)
	if !ok {
		return
	}
	if w.history.Topology.twoWay() && s.N%4 != 0 {
		// What is nowhere else is lost for good, and no promise is about it.
		other := w.other(at)
		twin, ok := w.sites[other.registry].Manifest(other.repository, other.tag)
		if !ok || s.N%4 == 3 || twin.Digest != root.Digest || len(w.graph(w.sites[other.registry], other.repository, twin).missing) > 0 {
			return
		}
	}
	gone := func(d digest.Digest) {
		site.Remove(s.Repository, d)
		site.note(site.lost, s.Repository, d.String())
	}
	switch s.N % 4 {
	case 0: // the tag
		site.SetTag(s.Repository, s.Tag, "")
		site.note(site.lost, s.Repository, s.Tag)
		w.became(at, state{})
	case 1: // a blob
		if list := w.graph(site, s.Repository, root).blobs; len(list) > 0 {
			gone(list[s.N/4%len(list)].Digest)
		}
	case 2: // the manifest, and the tag dangles
		gone(root.Digest)
	case 3: // all
		for _, tag := range site.TagNames(s.Repository) {
			w.became(tagAt{s.Registry, s.Repository, tag}, state{})
		}
		site.note(site.lost, s.Repository, "")
		site.RemoveRepository(s.Repository)
	}
}

// became notes what a tag names now; it gives which state that is, from 1.
func (w *world) became(at tagAt, s state) int {
	s.at = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states[at] = append(w.states[at], s)
	return len(w.states[at])
}

// calm ends all faults: from here on everything is to come right.
func (w *world) calm() {
	for _, name := range w.history.Topology.registries() {
		w.sites[name].heal()
	}
	w.mu.Lock()
	w.dying = 0
	narrowed := w.config.without != ""
	w.mu.Unlock()
	w.booting.Wait() // a crash may still be under way
	if narrowed {
		w.reload(setting{fingerprint: 1 << 20})
	}
	w.letGo()
	w.trace("calm")
}

// stop ends the world.
func (w *world) stop() {
	w.mu.Lock()
	w.ending = true
	p := w.p
	w.mu.Unlock()
	w.booting.Wait()
	if p != nil {
		if err := p.end(); err != nil {
			w.fault("end the daemon: %v", err)
		}
	}
	w.graves.Wait()
	w.senders.Wait()
}

// describe shows what the daemon believes, for failures.
func (w *world) describe() string {
	var b strings.Builder
	jobs, findings := w.believed()
	for i, j := range jobs {
		if i >= 30 {
			fmt.Fprintf(&b, "\n  and %d jobs more", len(jobs)-i)
			break
		}
		fmt.Fprintf(&b, "\n  job %s → %s tag %q digest %.17s %s lane %s attempts %d next %s", j.Source, j.Destination, j.Tag, j.Digest, j.State, j.Lane, j.Attempts, time.Until(j.NextAttempt))
		if j.Error != nil {
			fmt.Fprintf(&b, " (%s: %s)", j.Error.Kind, j.Error.Message)
		}
	}
	for _, f := range findings {
		fmt.Fprintf(&b, "\n  finding %s %s/%s:%s ×%d: %s", f.Kind, f.Registry, f.Repository, f.Tag, f.Count, f.Message)
	}
	return b.String()
}

// process is the daemon that runs now, nil where there is none.
func (w *world) process() *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.p
}

// found tells whether there is a finding of a kind about a tag or digest.
func found(findings []replicator.Finding, kind replicator.FindingKind, match func(replicator.Finding) bool) bool {
	for _, f := range findings {
		if f.Kind == kind && match(f) {
			return true
		}
	}
	return false
}

var background = context.Background()
