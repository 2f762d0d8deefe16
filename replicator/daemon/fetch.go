package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/intake"
	"github.com/twinport/twinport/replicator/oci"
)

// A Queue is where a registry's events wait for a daemon that nothing can reach
// from outside.
type Queue interface {
	// Receive waits a while for messages; none is no error. What is not deleted
	// is handed out again later.
	Receive(ctx context.Context) ([]replicator.Message, error)
	// Delete takes away messages of one Receive for good.
	Delete(ctx context.Context, handles []string) error
}

const (
	// takeTime bounds the commit of what was fetched, and its deletion, each.
	takeTime = 10 * time.Second
	// firstFetch and lastFetch bound the wait after a queue that failed.
	firstFetch = time.Second
	lastFetch  = time.Minute
)

// fetch empties the registries' queues until ctx ends; a reload starts anew.
func (d *Daemon) fetch(ctx context.Context) error {
	for ctx.Err() == nil {
		reloaded := d.reloaded()
		fctx, cancel := context.WithCancel(ctx)
		var queues sync.WaitGroup
		for _, reg := range d.State().Registries {
			if reg.Queue != nil {
				queues.Go(func() { d.empty(fctx, reg) })
			}
		}
		select {
		case <-ctx.Done():
		case <-reloaded:
		}
		cancel()
		queues.Wait()
	}
	return nil
}

// empty takes in what one queue holds, and what comes.
func (d *Daemon) empty(ctx context.Context, reg *Registry) {
	log := d.log.With(zap.String("component", "fetch"), zap.String("registry", reg.Name))
	wait, told := firstFetch, false
	for ctx.Err() == nil {
		messages, err := reg.Queue.Receive(ctx)
		if err == nil {
			err = d.takeIn(ctx, reg, messages)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			wait, told = firstFetch, false
			continue
		}
		log.Warn("events cannot be fetched, will try again", zap.Duration("wait", wait), zap.Error(err))
		if !told && needsSomebody(err) {
			told = d.tellOfEvents(ctx, reg, "fetched", err) == nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = min(2*wait, lastFetch)
	}
}

// takeIn commits what messages told and then has them deleted: what is lost in
// between is handed out again. A message that says nothing of use is told as a
// finding and makes a sweep due; it stays only where the queue sets it aside.
func (d *Daemon) takeIn(ctx context.Context, reg *Registry, messages []replicator.Message) error {
	if len(messages) == 0 {
		return nil
	}
	var (
		door     = intake.Registry{Name: reg.Name, Prefix: reg.Prefix}
		events   []replicator.Event
		findings []replicator.Finding
		sweepDue []string
		handles  []string
	)
	for _, m := range messages {
		e, f, due := door.Told(m.Told, d.now())
		events, findings = append(events, e...), append(findings, f...)
		if len(due) > 0 && !m.Again {
			sweepDue = due
		}
		if len(f) == 0 || !m.SetsAside {
			handles = append(handles, m.Handle)
		}
	}
	// a stop does not come between a commit and its deletion
	ctx = context.WithoutCancel(ctx)
	commit, cancel := context.WithTimeout(ctx, takeTime)
	defer cancel()
	if _, err := d.Accept(commit, events, findings, sweepDue); err != nil {
		return fmt.Errorf("store %d messages: %w", len(messages), err)
	}
	gone, cancel := context.WithTimeout(ctx, takeTime)
	defer cancel()
	if err := reg.Queue.Delete(gone, handles); err != nil {
		return fmt.Errorf("take %d messages away: %w", len(handles), err)
	}
	return nil
}

// needsSomebody tells whether waiting does not help.
func needsSomebody(err error) bool {
	return errors.Is(err, oci.ErrDenied) || errors.Is(err, oci.ErrNotFound) || errors.Is(err, oci.ErrRefused)
}

// tellOfEvents makes a queue, or a registry, that is closed to us a finding:
// pushes are then found by the sweep alone.
func (d *Daemon) tellOfEvents(ctx context.Context, reg *Registry, how string, why error) error {
	e := jobError(why)
	_, err := d.Accept(ctx, nil, []replicator.Finding{{
		Kind: replicator.FindingConfig, At: d.now(), Registry: reg.Name,
		Message: "events cannot be " + how + ": " + e.Message, Hint: e.Hint,
	}}, []string{reg.Name})
	return err
}
