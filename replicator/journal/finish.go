package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/twinport/twinport/replicator"
)

// Finish ends jobs of a claim: each row's new state and all the outcome proves
// are one commit. A row that was pushed to since it was claimed waits again at
// once, whatever its outcome: its one successor. ErrFenced where the claim is
// no longer ours; then nothing was written.
func (j *Journal) Finish(ctx context.Context, claim Claim, outcomes []Outcome) error {
	ahead := func(b *batch) { b.willFinish(outcomes) }
	return j.writeAhead(ctx, true, ahead, func(b *batch) error {
		if err := b.fence(claim); err != nil {
			return err
		}
		for i := range outcomes {
			if err := b.finish(claim, &outcomes[i]); err != nil {
				return fmt.Errorf("finish job %.32q: %w", outcomes[i].ID, err)
			}
		}
		// A tag may have become free for another row.
		b.due = true
		return nil
	})
}

// Release hands a claim's jobs back: due at once, the attempt not counted.
func (j *Journal) Release(ctx context.Context, claim Claim) error {
	return j.write(ctx, true, func(b *batch) error {
		if err := b.fence(claim); err != nil {
			return err
		}
		for i := range claim.Jobs {
			r, err := b.claimed(claim, claim.Jobs[i].ID)
			if err != nil {
				return err
			}
			b.handBack(r)
		}
		return nil
	})
}

// fence gives ErrFenced unless the claim's lease is the current one.
func (b *batch) fence(claim Claim) error {
	epoch, known := b.epochs[claim.Replica]
	if known {
		if epoch != claim.Epoch {
			return ErrFenced
		}
		return nil
	}
	err := b.row(sqlEpoch, []any{claim.Replica}, &epoch)
	if errors.Is(err, sql.ErrNoRows) || err == nil && epoch != claim.Epoch {
		return ErrFenced
	}
	if err != nil {
		return fmt.Errorf("read the epoch: %w", err)
	}
	return nil
}

// claimed gives a row that runs under the claim's lease.
func (b *batch) claimed(claim Claim, id string) (*row, error) {
	number, err := parseID(id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	r, err := b.byNumber(number)
	if err != nil {
		return nil, err
	}
	if r == nil || r.state != running || r.replica != claim.Replica || r.epoch != claim.Epoch {
		return nil, ErrFenced
	}
	return r, nil
}

// handBack makes a running row wait, as if it had not been claimed.
func (b *batch) handBack(r *row) {
	b.leave(r)
	r.state, r.next = waiting, b.now
	if r.heldBy != "" {
		r.state = held
	}
	b.due = true
	b.change(r)
}

// leave takes the lease off a row; a digest that was being copied and has been
// replaced meanwhile is superseded.
func (b *batch) leave(r *row) {
	if r.pending != 0 && r.claimed != "" && r.claimed != r.digest {
		b.supersede(r, superseding{digest: r.claimed, pushed: r.behind})
	}
	r.replica, r.epoch, r.claimed, r.pending = "", 0, "", 0
}

// handBackAll hands back every row that runs: their process is gone.
func (b *batch) handBackAll() error {
	ids, err := b.liveIDs(running)
	if err != nil {
		return err
	}
	for _, id := range ids {
		r, err := b.byNumber(id)
		if err != nil {
			return err
		}
		b.handBack(r)
	}
	return nil
}

// liveIDs lists the rows in a state that few rows are in.
func (b *batch) liveIDs(state stateCode) ([]int64, error) {
	var all []int64
	for id := range b.cat.edges {
		for _, lane := range replicator.Lanes {
			after := int64(0)
			for {
				ids, err := b.stateIDs(id, state, lane, after)
				if err != nil {
					return nil, err
				}
				if len(ids) == 0 {
					break
				}
				all, after = append(all, ids...), ids[len(ids)-1]
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

func (b *batch) stateIDs(edge int64, state stateCode, lane replicator.Lane, after int64) ([]int64, error) {
	var ids []int64
	err := b.each(sqlStateIDs, []any{edge, int64(state), int64(lane), after, pageRows}, func(scan scanner) error {
		var id int64
		err := scan(&id)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list %s jobs: %w", state.state(), err)
	}
	return ids, nil
}

func (b *batch) finish(claim Claim, o *Outcome) error {
	r, err := b.claimed(claim, o.ID)
	if err != nil {
		return err
	}
	state, err := codeOf(o.State)
	if err != nil || state == running {
		return fmt.Errorf("%.32q ends no job", o.State)
	}
	if err := b.keep(r, o); err != nil {
		return err
	}
	found := string(o.Digest)
	if r.tag == "" {
		found = "" // the digest is the row
	}
	tried := found
	if tried == "" {
		tried = r.claimed
	}
	if state == refused && tried != "" && remembers(o.Error) {
		if err := b.saveRefusal(r, tried, errorOf(o.Error)); err != nil {
			return err
		}
	}
	if r.generation > o.Generation {
		return b.finishPushed(claim, r, state, tried, o)
	}
	// Until here nobody pushed: what was claimed is what the row wants.
	if found != "" && found != r.digest {
		if r.digest != "" {
			b.supersede(r, superseding{r.digest, r.pushed, r.sender})
		}
		r.digest = found
		r.attempts, r.first = 0, 0
	}
	b.leave(r)
	b.count(r, o)
	r.state, r.err = state, errorOf(o.Error)
	switch state {
	case done:
		r.err, r.heldBy, r.heldDigest = jobError{}, "", ""
		return b.end(r)
	case superseded: // nothing is left to prove, as its error says
		r.heldBy, r.heldDigest = "", ""
		return b.end(r)
	case held:
		r.heldBy, r.heldDigest = heldByPerson, r.digest
	default:
		if r.heldBy != "" && (r.heldDigest == "" || r.heldDigest == r.digest) {
			r.state = held // canceled while it ran
		} else {
			r.heldBy = ""
		}
	}
	b.change(r)
	return nil
}

// finishPushed makes the successor of a row that was pushed to while it ran.
func (b *batch) finishPushed(claim Claim, r *row, state stateCode, tried string, o *Outcome) error {
	sameDigest := r.digest == r.claimed || r.digest == tried
	if state == done {
		ended := row{key: r.key, edge: r.edge, flow: r.flow, tag: r.tag, digest: tried, lane: r.lane,
			pushed: r.pushed, sender: r.sender, behind: r.behind, state: done,
			attempts: r.attempts + flag(o.Counted), first: r.first, generation: o.Generation}
		for _, job := range claim.Jobs {
			if job.ID == o.ID {
				ended.pushed, ended.sender = micros(job.PushedAt), job.SenderTime
			}
		}
		b.add(&ended)
		// The proof covers all pushes up to the claim; those since are behind.
		if r.pending != 0 {
			r.behind = r.pending
		}
		r.claimed = "" // it ended as proven, not superseded
		b.leave(r)
		r.attempts, r.first, r.err = 0, 0, jobError{}
	} else {
		b.leave(r)
		if sameDigest {
			b.count(r, o)
			r.err = errorOf(o.Error)
		}
	}
	r.state, r.next = waiting, b.now
	if r.heldBy != "" {
		r.state = held
	}
	b.change(r)
	return nil
}

// count takes note of an attempt and of when the next one is due.
func (b *batch) count(r *row, o *Outcome) {
	r.next = micros(o.NextAttempt)
	if r.next == 0 {
		r.next = b.now
	}
	if !o.Counted {
		return
	}
	r.attempts++
	if r.first == 0 {
		r.first = b.now
	}
}

// keep writes what an outcome proves and disproves: first what is no longer believed.
func (b *batch) keep(r *row, o *Outcome) error {
	for _, p := range o.Void {
		if err := b.void(p); err != nil {
			return err
		}
	}
	for _, identity := range o.Distrust {
		if err := b.distrust(identity); err != nil {
			return err
		}
	}
	for i := range o.Records {
		if err := b.saveRecord(&o.Records[i]); err != nil {
			return err
		}
	}
	for _, l := range o.Locations {
		if err := b.saveLocation(l); err != nil {
			return err
		}
	}
	if o.Base != "" {
		if err := b.saveBase(r.key, string(o.Base), nil); err != nil {
			return err
		}
	}
	for _, f := range o.Findings {
		if err := b.tell(f); err != nil {
			return err
		}
	}
	for _, s := range o.History {
		if err := checkTagState(s); err != nil {
			return err
		}
		if err := b.addTagState(s); err != nil {
			return err
		}
	}
	return nil
}
