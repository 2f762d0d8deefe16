package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/twinport/twinport/replicator"
)

// Refusal is why a digest was refused for good at a repository, nil where that
// is not remembered under this fingerprint (of config and version).
func (j *Journal) Refusal(ctx context.Context, identity, repository, digest, fingerprint string) (*replicator.JobError, error) {
	c, err := j.names(ctx)
	if err != nil {
		return nil, err
	}
	var why jobError
	found, err := one(ctx, j.reads, sqlRefusal, []any{c.identities[identity], repository, digest, fingerprint},
		&why.kind, &why.message, &why.hint)
	if err != nil {
		return nil, fmt.Errorf("read refusal: %w", err)
	}
	if !found {
		return nil, nil
	}
	return &replicator.JobError{Kind: why.kind, Message: why.message, Hint: why.hint}, nil
}

// refusal is Refusal under the fingerprint of the config that was loaded last.
func (b *batch) refusal(registry int64, repository, digest string) (jobError, bool, error) {
	if b.anyRefusal == 0 {
		b.anyRefusal = 1
		err := b.each(sqlAnyRefusal, nil, func(scanner) error {
			b.anyRefusal = 2
			return nil
		})
		if err != nil {
			return jobError{}, false, fmt.Errorf("read refusals: %w", err)
		}
	}
	if b.anyRefusal == 1 {
		return jobError{}, false, nil
	}
	var why jobError
	err := b.row(sqlRefusal, []any{registry, repository, digest, *b.j.fingerprint.Load()}, &why.kind, &why.message, &why.hint)
	if errors.Is(err, sql.ErrNoRows) {
		return jobError{}, false, nil
	}
	if err != nil {
		return jobError{}, false, fmt.Errorf("read refusal: %w", err)
	}
	return why, true, nil
}

// remembers tells whether a refusal is of the digest itself. What a source lacks
// it may have at the next push, or once it is repaired: a sweep looks again.
func remembers(why *replicator.JobError) bool {
	return why == nil || why.Kind != string(replicator.FindingSourceIncomplete)
}

func (b *batch) saveRefusal(r *row, digest string, why jobError) error {
	err := b.exec(sqlSaveRefusal, r.key.dst, r.key.dstRepository, digest, *b.j.fingerprint.Load(), b.now,
		why.kind, why.message, why.hint)
	if err != nil {
		return fmt.Errorf("write refusal: %w", err)
	}
	b.anyRefusal = 2
	return nil
}
