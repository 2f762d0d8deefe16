package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
)

// ErrNoConflict says that the two ends do not differ, or nothing joins them both ways.
var ErrNoConflict = errors.New("there is no conflict to resolve")

// Resolve settles a tag that both ends moved: the digest at the registry named
// prefer wins. The other's becomes the base, so that it counts as not moved,
// and the job is due at once.
func (d *Daemon) Resolve(ctx context.Context, registry, repository, tag, prefer, actor string) (digest.Digest, error) {
	st := d.State()
	now := d.now()
	decision := st.Rules.Jobs(replicator.Event{
		Action: replicator.Push, Registry: registry, Repository: repository, Tag: tag,
		PushedAt: now, ReceivedAt: now, Lane: replicator.LaneManual, Cause: "resolve",
	})
	for _, j := range decision.Jobs {
		if j.Flow == replicator.OneWay {
			continue
		}
		winner, loser := j.Source, j.Destination
		if prefer == loser.Registry {
			winner, loser = loser, winner
		} else if prefer != winner.Registry {
			continue
		}
		read := func(p replicator.Place) (digest.Digest, error) {
			desc, err := st.Registries[p.Registry].Client.Repository(p.Repository).Resolve(ctx, tag)
			if err != nil && !errors.Is(err, oci.ErrNotFound) {
				return "", err
			}
			return desc.Digest, nil
		}
		won, err := read(winner)
		if err != nil {
			return "", err
		}
		lost, err := read(loser)
		if err != nil {
			return "", err
		}
		if won == "" || won == lost {
			return "", fmt.Errorf("%s:%s names %q and %s:%s names %q: %w", winner, tag, won, loser, tag, lost, ErrNoConflict)
		}
		if err := d.journal.SetBase(ctx, j, lost, actor); err != nil {
			return "", err
		}
		j.Digest = won
		if _, err := d.journal.Accept(ctx, journal.Intake{Jobs: []replicator.Job{j}}); err != nil {
			return "", err
		}
		return won, nil
	}
	return "", fmt.Errorf("%s/%s:%s towards or from %s: %w", registry, repository, tag, prefer, ErrNoConflict)
}
