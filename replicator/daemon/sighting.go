package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator/oci"
)

// A sighting is the last reading of the source's tag, shared by the
// destinations of a claim.
type sighting struct {
	turn    turn // of who reads it
	digest  digest.Digest
	started time.Time
	// failed is why the last reading gave nothing, until when it tried.
	failed   error
	failedAt time.Time
}

func newSighting(d digest.Digest, started time.Time) *sighting {
	return &sighting{turn: newTurn(), digest: d, started: started}
}

// since gives what the tag names by a reading that began after t; a tag that
// is gone gives the empty digest. All that wait for a reading get what came of it.
func (s *sighting) since(ctx context.Context, from delivery, t time.Time, now func() time.Time) (digest.Digest, error) {
	asked := now()
	if err := s.turn.take(ctx); err != nil {
		return "", err
	}
	defer s.turn.give()
	switch {
	case s.started.After(t):
		return s.digest, nil
	case s.failed != nil && asked.Before(s.failedAt):
		return "", s.failed
	}
	started := now()
	desc, err := from.repo.Resolve(ctx, from.tag)
	if err != nil && !errors.Is(err, oci.ErrNotFound) {
		err = fmt.Errorf("read the source's tag again: %w", err)
		if ctx.Err() == nil {
			s.failed, s.failedAt = err, now()
		}
		return "", err
	}
	s.digest, s.started = desc.Digest, started
	return s.digest, nil
}
