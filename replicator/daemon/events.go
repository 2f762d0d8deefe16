package daemon

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
)

// What tag history says of where a state was learnt. causeTimed marks those
// whose time is the sender's own.
const (
	causeTimed    = "push"
	causeReceived = "push, time of receipt"
	// causeVerify: the event asks for what a destination lost, by its record.
	causeVerify = "verify"
	// causeSweep begins those of a sweep, which has read what it tells.
	causeSweep = "sweep: "
)

// sightingAge is how old what a sweep has read may be when it is told of.
const sightingAge = time.Minute

// Accept is the door for every event, told by a webhook or found by a sweep:
// it plans the jobs and commits them before it returns. accepted counts the
// events that made or renewed a job.
func (d *Daemon) Accept(ctx context.Context, events []replicator.Event, findings []replicator.Finding, sweepDue []string) (accepted int, err error) {
	in := journal.Intake{Findings: findings, SweepDue: sweepDue}
	st := d.State()
	var unnamed []replicator.Event
	for _, ev := range events {
		if err := d.originTime(ctx, st, &ev); err != nil {
			return 0, err
		}
		decision := st.Rules.Jobs(ev)
		if len(decision.Jobs) > 0 {
			accepted++
			if ev.Digest == "" {
				unnamed = append(unnamed, ev)
			}
		}
		in.Jobs = append(in.Jobs, decision.Jobs...)
		in.Jobs = append(in.Jobs, byDigest(st, ev, decision.Jobs)...)
		if ev.Tag == "" || len(decision.Jobs) == 0 && ev.Action != replicator.Delete {
			continue
		}
		if ev.Digest == "" && ev.Action == replicator.Push || ev.Cause == causeVerify {
			continue // it tells nothing of what the source's tag names
		}
		reg, ok := st.Registries[ev.Registry]
		if !ok {
			continue
		}
		state := replicator.TagState{
			Place: replicator.Place{Registry: ev.Registry, Identity: reg.Client.Identity(), Repository: ev.Repository},
			Tag:   ev.Tag, Digest: ev.Digest, At: ev.PushedAt, Cause: ev.Cause,
		}
		switch {
		case strings.HasPrefix(ev.Cause, causeSweep):
			state.SeenAt = ev.ReceivedAt.Add(-sightingAge)
		case ev.Cause == causePoll, ev.Cause == causeLook:
			state.SeenAt = ev.ReceivedAt // compared with what was known a moment ago
		}
		if ev.Action == replicator.Delete {
			state.Digest, state.Cause = "", "deleted"
		} else if ev.Cause == "webhook" {
			state.Cause = causeReceived
			if ev.SenderTime {
				state.Cause = causeTimed
			}
		}
		in.History = append(in.History, state)
	}
	if len(in.Jobs)+len(in.History)+len(in.Findings)+len(in.SweepDue) == 0 {
		return 0, nil
	}
	if _, err := d.journal.Accept(ctx, in); err != nil {
		return 0, err
	}
	d.lookForNews(st, unnamed)
	return accepted, nil
}

// byDigest are the jobs that want a tagged push for itself too: where a route
// copies untagged manifests, a digest is not lost when the next push takes its
// tag before it was copied.
func byDigest(st *State, ev replicator.Event, tagged []replicator.Job) []replicator.Job {
	if _, _, companion := oci.CompanionSubject(ev.Tag); ev.Tag == "" || ev.Digest == "" || companion || ev.Lane != replicator.LaneWebhook {
		return nil
	}
	wanted := func(w replicator.Want) bool {
		return slices.ContainsFunc(tagged, func(j replicator.Job) bool { return slices.Contains(j.Wants, w) })
	}
	ev.Tag, ev.MayRefer = "", false
	return slices.DeleteFunc(st.Rules.Jobs(ev).Jobs, func(j replicator.Job) bool { return !slices.ContainsFunc(j.Wants, wanted) })
}

// originTime gives an event of our own doing the time of the push that began
// it: along a chain the origin's time travels on.
func (d *Daemon) originTime(ctx context.Context, st *State, ev *replicator.Event) error {
	reg, ok := st.Registries[ev.Registry]
	if !ok || !st.Fed[ev.Registry] || ev.Tag == "" || ev.Digest == "" || ev.Action != replicator.Push {
		return nil
	}
	identity := reg.Client.Identity()
	pushedAt, ours := d.arrivals.pushedAt(identity, ev.Repository, ev.Tag, ev.Digest)
	if !ours {
		record, known, err := d.journal.Record(ctx, identity, ev.Repository, ev.Tag)
		if err != nil {
			return err
		}
		pushedAt, ours = record.PushedAt, known && record.Wrote && record.Digest == ev.Digest
	}
	if ours && !pushedAt.IsZero() && pushedAt.Before(ev.PushedAt) {
		ev.PushedAt = pushedAt
	}
	return nil
}

// acceptPatiently waits for a journal that is busy: a sweep is not answered
// 503, it is slowed down.
func (d *Daemon) acceptPatiently(ctx context.Context, events []replicator.Event) error {
	wait := firstBusy
	for {
		_, err := d.Accept(ctx, events, nil, nil)
		if !errors.Is(err, journal.ErrBusy) {
			return err
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
		wait = min(2*wait, lastBusy)
	}
}
