package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/twinport/twinport/config"
	"github.com/twinport/twinport/replicator/api"
	"github.com/twinport/twinport/replicator/daemon"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/transfer"
)

// handBack is how long jobs in flight may go on when a process is told to end:
// what they close then has to fit into 30 seconds, too.
const handBack = 20 * time.Second

// A door is an operator for one command, and what to close behind it.
type door struct {
	api.Operator
	close func() error
}

// openReading asks the daemon that holds the data directory; if none answers,
// it reads the journal itself.
func openReading(ctx context.Context, cfg *config.Config) (*door, error) {
	if c, err := dial(ctx, cfg); err == nil {
		return &door{c, func() error { return nil }}, nil
	}
	if !cfg.Database.IsZero() {
		d, err := openSharedReading(ctx, cfg)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errors.New("there is no journal in the database yet: start `twinport serve`, or run `twinport sync` once")
		}
		return d, err
	}
	if !hasJournal(cfg.Data) {
		return nil, fmt.Errorf("there is no journal in %s yet: start `twinport serve`, or run `twinport sync` once", cfg.Data)
	}
	j, err := journal.OpenReadOnly(ctx, cfg.Data)
	if err != nil {
		return nil, err
	}
	o, err := newOperator(cfg, j, newCopier(cfg))
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return &door{o, j.Close}, nil
}

// openSharedReading reads the journal that replicas share; what a plan asks
// registries is within one more replica's part of their budgets.
func openSharedReading(ctx context.Context, cfg *config.Config) (*door, error) {
	j, err := journal.OpenSharedReadOnly(ctx, journalOptions(cfg, journal.Steers))
	if err != nil {
		return nil, err
	}
	o, err := newOperator(cfg, j, newCopier(cfg))
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	o.Share()
	return &door{o, j.Close}, nil
}

// openPlanning is openReading for what needs no journal: without one, nothing
// is on record.
func openPlanning(ctx context.Context, cfg *config.Config) (*door, error) {
	if cfg.Database.IsZero() && hasJournal(cfg.Data) {
		return openReading(ctx, cfg)
	}
	if !cfg.Database.IsZero() {
		if c, err := dial(ctx, cfg); err == nil {
			return &door{c, func() error { return nil }}, nil
		}
		if d, err := openSharedReading(ctx, cfg); !errors.Is(err, fs.ErrNotExist) {
			return d, err
		}
	}
	dir, err := os.MkdirTemp("", "twinport-plan-")
	if err != nil {
		return nil, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	j, err := journal.Open(ctx, journal.Options{Dir: dir})
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	o, err := newOperator(cfg, j, newCopier(cfg))
	if err != nil {
		return nil, errors.Join(err, j.Close(), remove())
	}
	return &door{o, func() error { return errors.Join(j.Close(), remove()) }}, nil
}

// What a command that writes does.
type errand int

const (
	// steering changes what is in the journal.
	steering errand = iota
	// asking asks registries, too.
	asking
	// working runs jobs until the door is closed.
	working
)

// openWriting takes the journal, or asks the daemon that has it. Where replicas
// share it, the command is one more of them.
func openWriting(ctx context.Context, cfg *config.Config, what errand) (*door, error) {
	role := journal.Works
	if what == steering {
		role = journal.Steers
	}
	j, err := openJournal(ctx, cfg, journalOptions(cfg, role))
	if errors.Is(err, journal.ErrLocked) {
		c, derr := dial(ctx, cfg)
		if derr != nil {
			return nil, fmt.Errorf("%w, and %w", err, derr)
		}
		return &door{c, func() error { return nil }}, nil
	}
	if err != nil {
		return nil, err
	}
	copier, remove, err := newCommandCopier(cfg)
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	o, err := newOperator(cfg, j, copier)
	if err != nil {
		return nil, errors.Join(err, j.Close(), remove())
	}
	// The journal outlives what writes to it, and both outlive an interrupt
	// until what runs is handed back.
	base := context.WithoutCancel(ctx)
	jctx, endJournal := context.WithCancel(base)
	wctx, endWork := context.WithCancel(base)
	var journalDone, workDone sync.WaitGroup
	var journalErr, workErr error
	journalDone.Add(1)
	go func() {
		defer journalDone.Done()
		journalErr = j.Run(jctx)
	}()
	closeAll := func() error {
		endWork()
		workDone.Wait()
		endJournal()
		journalDone.Wait()
		return errors.Join(workErr, journalErr, j.Close(), remove())
	}
	if err := o.Configure(base, actorName()); err != nil {
		return nil, errors.Join(err, closeAll())
	}
	workDone.Add(1)
	go func() {
		defer workDone.Done()
		if what == working {
			workErr = o.Run(wctx, handBack)
		} else {
			o.Stay(wctx)
		}
	}()
	return &door{o, closeAll}, nil
}

// newOperator is a daemon that a command runs for itself.
func newOperator(cfg *config.Config, j *journal.Journal, copier *transfer.Copier) (daemon.Operator, error) {
	st, err := newState(cfg, nil, nil)
	if err != nil {
		return daemon.Operator{}, usage(err)
	}
	return daemon.Operator{Daemon: daemon.New(daemon.Options{
		Journal: j, Copier: copier, Log: zap.NewNop(), OneShot: true, History: cfg.History,
	}, st)}, nil
}

// with runs f behind a door and closes it; usage errors exit 2.
func with(d *door, err error, f func(api.Operator) error) error {
	if err != nil {
		return classified(err)
	}
	return classified(errors.Join(f(d.Operator), d.close()))
}

func classified(err error) error {
	var wrong *api.UsageError
	var exit exitError
	switch {
	case errors.As(err, &exit):
		return err
	case errors.As(err, &wrong):
		if wrong.Hint != "" {
			return usage(fmt.Errorf("%s; %s", wrong.Message, wrong.Hint))
		}
		return usage(err)
	}
	return err
}
