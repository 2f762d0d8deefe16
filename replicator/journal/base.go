package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

// maxIntents bounds what is kept open for one tag. Forgetting the oldest can
// only make an old write of ours look like somebody's push: a conflict to
// look at, never a lost tag.
const maxIntents = 64

// An intentText is an Intent as the database keeps it.
type intentText struct {
	At  string `json:"at"`
	Old string `json:"old,omitempty"`
	New string `json:"new"`
}

// Begin writes down a tag's move before it is made: until a Base ends it, a
// side that names either end of it has not moved by itself. It tells whether the
// move was not on record yet. ErrFenced where the claim is no longer ours.
func (j *Journal) Begin(ctx context.Context, claim Claim, jobID string, intent replicator.Intent) (fresh bool, err error) {
	begun := intentText{intent.At, string(intent.Old), string(intent.New)}
	err = j.changeIntents(ctx, claim, jobID, func(intents []intentText) []intentText {
		if fresh = !slices.Contains(intents, begun); fresh {
			intents = append(intents, begun)
		}
		return intents[max(0, len(intents)-maxIntents):]
	})
	return fresh, err
}

// Withdraw takes back a move that was begun and then refused: nothing was
// written. ErrFenced where the claim is no longer ours.
func (j *Journal) Withdraw(ctx context.Context, claim Claim, jobID string, intent replicator.Intent) error {
	begun := intentText{intent.At, string(intent.Old), string(intent.New)}
	return j.changeIntents(ctx, claim, jobID, func(intents []intentText) []intentText {
		return slices.DeleteFunc(intents, func(i intentText) bool { return i == begun })
	})
}

// changeIntents changes what is begun of a job that the claim holds.
func (j *Journal) changeIntents(ctx context.Context, claim Claim, jobID string, change func([]intentText) []intentText) error {
	return j.write(ctx, true, func(b *batch) error {
		if err := b.fence(claim); err != nil {
			return err
		}
		r, err := b.claimed(claim, jobID)
		if err != nil {
			return err
		}
		base, intents, err := b.base(r.key)
		if err != nil {
			return err
		}
		was := slices.Clone(intents)
		if intents = change(intents); slices.Equal(intents, was) {
			return nil
		}
		return b.saveBase(r.key, base, intents)
	})
}

// SetBase says that both sides of a job last shared a digest, which ends the
// moves begun since: a person has settled a conflict, and the side that still
// names it counts as not moved.
func (j *Journal) SetBase(ctx context.Context, job replicator.Job, d digest.Digest, actor string) error {
	return j.write(ctx, false, func(b *batch) error {
		src, err := b.registry(job.Source.Identity, job.Source.Registry)
		if err != nil {
			return err
		}
		dst, err := b.registry(job.Destination.Identity, job.Destination.Registry)
		if err != nil {
			return err
		}
		key := jobKey{dst: dst, dstRepository: job.Destination.Repository, ref: job.Reference(), src: src, srcRepository: job.Source.Repository}
		if err := b.saveBase(key, d.String(), nil); err != nil {
			return err
		}
		return b.audit(AuditEntry{Actor: actor, Action: "tag.resolve", Target: job.Destination.String() + ":" + job.Tag, Detail: d.String()})
	})
}

// Base is what both sides of a job last shared, and the moves begun since.
func (j *Journal) Base(ctx context.Context, job replicator.Job) (replicator.Base, error) {
	c, err := j.names(ctx)
	if err != nil {
		return replicator.Base{}, err
	}
	src, dst := c.identities[job.Source.Identity], c.identities[job.Destination.Identity]
	var base, text string
	found, err := one(ctx, j.reads, sqlBase,
		[]any{dst, job.Destination.Repository, job.Reference(), src, job.Source.Repository}, &base, &text)
	if err != nil {
		return replicator.Base{}, fmt.Errorf("read base: %w", err)
	}
	if !found {
		return replicator.Base{}, nil
	}
	intents, err := decodeIntents(text)
	if err != nil {
		return replicator.Base{}, err
	}
	b := replicator.Base{Digest: digest.Digest(base)}
	for _, i := range intents {
		b.Intents = append(b.Intents, replicator.Intent{At: i.At, Old: digest.Digest(i.Old), New: digest.Digest(i.New)})
	}
	return b, nil
}

func decodeIntents(text string) ([]intentText, error) {
	var intents []intentText
	if err := json.Unmarshal([]byte(text), &intents); err != nil {
		return nil, fmt.Errorf("read intents: %w", err)
	}
	return intents, nil
}

func (b *batch) base(k jobKey) (string, []intentText, error) {
	var base, text string
	err := b.row(sqlBase, []any{k.dst, k.dstRepository, k.ref, k.src, k.srcRepository}, &base, &text)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("read base: %w", err)
	}
	intents, err := decodeIntents(text)
	return base, intents, err
}

func (b *batch) saveBase(k jobKey, base string, intents []intentText) error {
	if intents == nil {
		intents = []intentText{}
	}
	text, err := json.Marshal(intents)
	if err != nil {
		return err
	}
	err = b.exec(sqlSaveBase, k.dst, k.dstRepository, k.ref, k.src, k.srcRepository, base, string(text), b.now)
	if err != nil {
		return fmt.Errorf("write base: %w", err)
	}
	return nil
}
