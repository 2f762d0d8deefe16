package daemon

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
)

// later gives a job back untouched: the present config does not serve it.
func (r *run) later(j replicator.Job, why string) {
	r.set(journal.Outcome{
		ID: j.ID, Generation: j.Generation, State: replicator.Waiting,
		NextAttempt: r.now().Add(time.Minute),
		Error:       &replicator.JobError{Kind: "config", Message: why},
	})
}

// gone ends a job that has nothing left to prove.
func (r *run) gone(j replicator.Job, why string) {
	r.set(journal.Outcome{
		ID: j.ID, Generation: j.Generation, State: replicator.Superseded,
		Error: &replicator.JobError{Kind: "gone", Message: why},
	})
}

// fail gives a job the outcome its error deserves.
func (r *run) fail(ctx context.Context, j replicator.Job, err error) {
	err = cause(ctx, err)
	if errors.Is(err, errHandedBack) {
		r.set(journal.Outcome{ID: j.ID, Generation: j.Generation, State: replicator.Waiting, NextAttempt: r.now()})
		return
	}
	if errors.Is(err, oci.ErrSourceIncomplete) && r.pending(j, bounded(err.Error())) {
		return
	}
	out := retry(j, err, r.now(), r.breakerOpen(j))
	if errors.Is(err, oci.ErrBlobUnknown) {
		// What was believed to be there is not: believe nothing of it.
		out.Void = []replicator.Place{j.Destination}
	}
	if out.State != replicator.Waiting || errors.Is(err, oci.ErrDenied) {
		if kind, ok := findingFor(err); ok && !r.told(j, kind) {
			out.Findings = append(out.Findings, r.finding(j, kind, out.Error.Message, out.Error.Hint))
		}
	}
	r.set(out)
}

// told tells whether a finding of the job has said the same already: the rooms
// below know better what is wrong, and where.
func (r *run) told(j replicator.Job, kind replicator.FindingKind) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.outcomes[j.ID]
	return o != nil && slices.ContainsFunc(o.Findings, func(f replicator.Finding) bool {
		return f.Kind == kind || kind == replicator.FindingMismatch && f.Kind == replicator.FindingCorrupt
	})
}

func (r *run) breakerOpen(j replicator.Job) bool {
	for _, name := range []string{j.Source.Registry, j.Destination.Registry} {
		if reg, ok := r.state.Registries[name]; ok {
			if _, down := reg.Gate.Down(); down {
				return true
			}
		}
	}
	return false
}

// finding fills in whose finding it is.
func (r *run) finding(j replicator.Job, kind replicator.FindingKind, message, hint string) replicator.Finding {
	return replicator.Finding{
		Kind: kind, At: r.now(), Route: j.Wants[0].Route,
		Registry: j.Destination.Registry, Repository: j.Destination.Repository, Tag: j.Tag, Digest: j.Digest,
		Message: bounded(message), Hint: hint,
	}
}

// set writes an outcome; findings and distrust gathered before it are kept.
func (r *run) set(o journal.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was := r.outcomes[o.ID]; was != nil {
		o.Findings = append(was.Findings, o.Findings...)
		o.Distrust = append(was.Distrust, o.Distrust...)
	}
	r.outcomes[o.ID] = &o
}

// outcome is a job's outcome, nil while it has none.
func (r *run) outcome(j replicator.Job) *journal.Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.outcomes[j.ID]; o != nil && o.State != "" {
		return o
	}
	return nil
}

// note keeps findings for a job that goes on.
func (r *run) note(j replicator.Job, findings ...replicator.Finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.begun(j)
	o.Findings = append(o.Findings, findings...)
}

// distrust has nothing of a registry believed once the job ends, however.
func (r *run) distrust(j replicator.Job, identity string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.begun(j)
	o.Distrust = append(o.Distrust, identity)
}

// begun is a job's outcome as far as it is known; the lock is held.
func (r *run) begun(j replicator.Job) *journal.Outcome {
	o := r.outcomes[j.ID]
	if o == nil {
		o = &journal.Outcome{ID: j.ID, Generation: j.Generation}
		r.outcomes[j.ID] = o
	}
	return o
}

func (r *run) list() []journal.Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]journal.Outcome, 0, len(r.outcomes))
	for _, j := range r.claim.Jobs {
		if o := r.outcomes[j.ID]; o != nil {
			list = append(list, *o)
		}
	}
	return list
}
