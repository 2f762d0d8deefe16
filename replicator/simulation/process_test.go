package simulation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/daemon"
	"github.com/twinport/twinport/replicator/intake"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/plan"
	"github.com/twinport/twinport/replicator/transfer"
)

// A process is one run of the daemon.
type process struct {
	w       *world
	number  int
	dir     string
	dead    atomic.Bool
	journal *journal.Journal
	daemon  *daemon.Daemon
	intake  *intake.Intake
	clients map[string]*client
	cancel  context.CancelFunc
	ended   chan error
	// answered is when the journal last answered: the committer's alone.
	answered time.Time
}

// A setting is what the config says now.
type setting struct {
	fingerprint int
	without     string // a destination that the routes leave out
}

// boot starts a daemon over a directory. A crash on the way is the next boot's.
func (w *world) boot(dir string) {
	w.mu.Lock()
	p := &process{w: w, number: w.starts, dir: dir, clients: make(map[string]*client), ended: make(chan error, 1)}
	w.starts++
	config := w.config
	w.mu.Unlock()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		w.fault("%v", err)
		return
	}
	if _, err := os.Stat(filepath.Join(dir, "journal.db")); err != nil {
		if err := os.WriteFile(filepath.Join(dir, "journal.db"), migrated(), 0o600); err != nil {
			w.fault("%v", err)
			return
		}
	}
	if err := p.start(config); err != nil {
		if !p.dead.Load() {
			w.fault("start the daemon: %v", err)
		}
		return
	}
	w.mu.Lock()
	if !p.dead.Load() {
		w.p = p
	}
	latest := w.config
	w.mu.Unlock()
	w.trace("daemon %d is up", p.number)
	if latest != config { // it was changed while this one started
		w.reload(latest)
	}
}

func (p *process) start(config setting) (err error) {
	ctx, cancel := context.WithCancel(background)
	p.cancel = cancel
	if p.journal, err = journal.Open(ctx, journal.Options{Dir: p.dir, Step: p.step}); err != nil {
		return err
	}
	jctx, endJournal := context.WithCancel(background)
	journalEnded := make(chan error, 1)
	go func() { journalEnded <- p.journal.Run(jctx) }()
	p.daemon = daemon.New(daemon.Options{Journal: p.journal, Copier: transfer.New(transfer.Options{})}, p.state(config))
	p.intake = intake.New(intake.Options{Accept: p.daemon.Accept})
	var doors []intake.Registry
	for _, name := range p.w.history.Topology.registries() {
		doors = append(doors, intake.Registry{Name: name, Decoder: generic.Webhook{}})
	}
	p.intake.Swap(doors)
	if err = p.daemon.Configure(background, "config"); err != nil {
		cancel()
	}
	p.w.graves.Go(func() {
		var err error
		if ctx.Err() == nil {
			err = p.daemon.Run(ctx, 30*time.Second)
		}
		endJournal()
		p.ended <- errors.Join(err, <-journalEnded, p.journal.Close())
	})
	return err
}

// state is what a config decides.
func (p *process) state(config setting) *daemon.State {
	h := p.w.history
	st := &daemon.State{Registries: make(map[string]*daemon.Registry), Fed: make(map[string]bool), Fingerprint: fmt.Sprint(config.fingerprint)}
	var named []plan.Registry
	for _, name := range h.Topology.registries() {
		c := p.clients[name]
		if c == nil {
			c = newClient(p.w.sites[name], p)
			p.clients[name] = c
		}
		st.Registries[name] = &daemon.Registry{Name: name, Client: c, Gate: c.gate, Print: name}
		named = append(named, plan.Registry{Name: name, Identity: c.Identity()})
	}
	var routes []plan.Route
	for _, route := range h.routes() {
		to := route.To
		route.To = nil
		for _, name := range to {
			if name != config.without {
				route.To = append(route.To, name)
				st.Fed[name] = true
			}
		}
		if len(route.To) > 0 {
			routes = append(routes, route)
		}
	}
	rules, err := plan.New(routes, named)
	if err != nil {
		p.w.fault("routes: %v", err)
		return st
	}
	st.Rules = rules
	return st
}

// step paces the journal, and is where a daemon dies.
func (p *process) step(ctx context.Context, stage journal.Stage) error {
	w := p.w
	if p.dead.Load() {
		return errors.Join(errDead, journal.ErrClosed)
	}
	name := fmt.Sprintf("journal %d %s", p.number, stage)
	if stage == journal.StageAsk {
		name += " " + asker() + " " + oci.JobOf(ctx)
	}
	d := w.chance.now(name)
	switch stage {
	case journal.StageAsk:
		time.Sleep(d.evenly(time.Microsecond, 100*time.Microsecond))
	case journal.StageBegin:
		time.Sleep(d.between(50*time.Microsecond, 3*time.Millisecond))
	}
	if p.dead.Load() {
		return errors.Join(errDead, journal.ErrClosed)
	}
	switch now := time.Now(); {
	case stage == journal.StageAsk:
		w.trace("%s", name)
		return nil
	case stage == journal.StageAnswer && now.Equal(p.answered):
		return nil // all that is answered in one instant is, or nothing
	case stage == journal.StageAnswer:
		p.answered = now
	}
	w.trace("journal %d %s", p.number, stage)
	w.mu.Lock()
	dies := w.dying == 1
	if w.dying > 0 {
		w.dying--
	}
	if dies { // under the lock: whoever lets nobody die any more waits for this one
		w.booting.Add(1)
	}
	w.mu.Unlock()
	if dies {
		p.die(stage)
		return errors.Join(errDead, journal.ErrClosed)
	}
	return nil
}

// asker is the exported method of the journal that was called.
func asker() string {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		if i := strings.LastIndex(f.Function, ".(*Journal)."); i >= 0 && f.Function[i+12] < 'a' {
			return f.Function[i+11:]
		}
		if !more {
			return ""
		}
	}
}

// die kills the process: from this instant nothing it does has any effect, and
// another one starts from what is on the disk now.
func (p *process) die(stage journal.Stage) {
	w := p.w
	w.mu.Lock()
	w.deaths++
	next := filepath.Join(w.dir, fmt.Sprint(w.deaths))
	w.p = nil
	w.mu.Unlock()
	w.trace("daemon %d dies at %s", p.number, stage)
	if err := copyJournal(p.dir, next); err != nil {
		w.fault("%v", err)
	}
	p.dead.Store(true)
	boot := of(w.history.Seed, "boot", uint64(p.number)).between(100*time.Millisecond, 5*time.Second)
	go func() {
		defer w.booting.Done()
		p.cancel()
		time.Sleep(boot)
		w.boot(next)
	}()
}

func copyJournal(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"journal.db", "journal.db-wal"} {
		data, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// restart ends the daemon in good order and starts it again.
func (w *world) restart() {
	w.mu.Lock()
	p := w.p
	w.p = nil
	w.mu.Unlock()
	if p == nil {
		return
	}
	w.booting.Go(func() {
		err := p.end()
		if p.dead.Load() {
			return // it died on the way
		}
		if err != nil {
			w.fault("end the daemon: %v", err)
		}
		w.boot(p.dir)
	})
}

// end stops the process in good order.
func (p *process) end() error {
	p.cancel()
	return <-p.ended
}

// reload gives the daemon another config.
func (w *world) reload(to setting) {
	w.mu.Lock()
	w.config = to
	p := w.p
	w.mu.Unlock()
	if p == nil {
		return // the next boot has it
	}
	if err := p.daemon.Swap(background, p.state(to), "config"); err != nil && !p.dead.Load() {
		w.fault("reload: %v", err)
	}
}

// believed are all jobs and findings on the daemon's record.
func (w *world) believed() ([]replicator.Job, []replicator.Finding) {
	p := w.process()
	if p == nil {
		return nil, nil
	}
	jobs, _, err := p.journal.Jobs(background, journal.JobFilter{Limit: 1000})
	if err != nil {
		w.fault("list jobs: %v", err)
	}
	findings, _, err := p.journal.Findings(background, journal.FindingFilter{Limit: 1000})
	if err != nil {
		w.fault("list findings: %v", err)
	}
	return jobs, findings
}

// migrated is an empty journal whose schema is made: making it takes longer
// than a history.
var migrated = sync.OnceValue(func() []byte {
	dir, err := os.MkdirTemp("", "twinport-simulation-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	j, err := journal.Open(background, journal.Options{Dir: dir})
	if err == nil {
		err = j.Close()
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(filepath.Join(dir, "journal.db"))
	}
	if err != nil {
		panic(err)
	}
	return data
})

// TestMain makes the journal to begin with outside of any bubble. Garbage lies
// for longer: worlds are short, and a fourth of their time went into collecting.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	migrated()
	os.Exit(m.Run())
}
