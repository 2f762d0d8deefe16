package daemon

import (
	"context"

	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
)

// closeRepaired closes findings of content that was missing and has been
// proven since: by the tag's record, or, where a registry as a whole had lost
// trust, once all its routes are compared and nothing is left to prove. It runs
// after complete sweeps and syncs, so that a loss is open for a while however
// fast it was repaired.
func (d *Daemon) closeRepaired(ctx context.Context) {
	var repaired []string
	filter := journal.FindingFilter{Kind: replicator.FindingMissing, Acknowledged: new(bool), Limit: 1000}
	for {
		page, next, err := d.journal.Findings(ctx, filter)
		if err != nil {
			return // the next sweep asks again
		}
		for _, f := range page {
			if d.isRepaired(ctx, f) {
				repaired = append(repaired, f.ID)
			}
		}
		if next == "" {
			break
		}
		filter.After = next
	}
	if err := d.journal.CloseFindings(ctx, repaired, "proven again"); err != nil && ctx.Err() == nil {
		d.log.Warn("close findings of what was repaired", zap.Error(err))
	}
}

func (d *Daemon) isRepaired(ctx context.Context, f replicator.Finding) bool {
	st := d.State()
	reg, ok := st.Registries[f.Registry]
	if !ok {
		return false
	}
	identity := reg.Client.Identity()
	if f.Repository == "" {
		return d.provenAgain(ctx, st, f)
	}
	reference := f.Tag
	if reference == "" {
		reference = f.Digest.String()
	}
	record, known, err := d.journal.Record(ctx, identity, f.Repository, reference)
	return err == nil && known && record.ProvenAt.After(f.At)
}

// provenAgain tells whether everything wanted at the registry of a finding has
// been compared since, and proven.
func (d *Daemon) provenAgain(ctx context.Context, st *State, f replicator.Finding) bool {
	standings, err := d.journal.Standings(ctx)
	if err != nil {
		return false
	}
	wanted := false
	for _, route := range st.Rules.Routes() {
		for _, to := range route.To {
			if to != f.Registry {
				continue
			}
			wanted = true
			s, err := d.journal.SweepState(ctx, route.Name, to)
			if err != nil || !s.CompleteStart.After(f.At) {
				return false
			}
		}
	}
	for _, s := range standings {
		if s.Destination != f.Registry {
			continue
		}
		for _, state := range []replicator.JobState{replicator.Waiting, replicator.Running, replicator.Failed, replicator.Refused} {
			if s.Counts[state] > 0 {
				return false
			}
		}
	}
	return wanted
}
