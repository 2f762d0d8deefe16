package journal

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

// A stateCode is a JobState as the database keeps it.
type stateCode int64

const (
	waiting stateCode = iota
	running
	failed
	refused
	held
	done
	superseded
)

var liveStates = []stateCode{waiting, running, failed, refused, held}

func (s stateCode) state() replicator.JobState {
	if s < 0 || int(s) >= len(replicator.JobStates) {
		return replicator.JobState(fmt.Sprintf("state %d", int64(s)))
	}
	return replicator.JobStates[s]
}

func codeOf(s replicator.JobState) (stateCode, error) {
	for i, known := range replicator.JobStates {
		if known == s {
			return stateCode(i), nil
		}
	}
	return 0, fmt.Errorf("no job state %.32q", s)
}

// Who holds a row.
const (
	heldByPerson = "person"
	heldByConfig = "config"
)

// A jobKey names a row of desired state. The source belongs to it: where two
// sources would write one tag, each has its row, and one of them is refused.
type jobKey struct {
	dst           int64
	dstRepository string
	ref           string
	src           int64
	srcRepository string
}

// A row is a job as the database keeps it.
type row struct {
	id   int64
	key  jobKey
	edge int64
	flow replicator.Flow
	tag  string
	// ended is 0 for a row of desired state, else its id: one key can have
	// ended many times.
	ended    int64
	digest   string
	lane     replicator.Lane
	pushed   int64
	sender   bool
	behind   int64
	full     bool
	state    stateCode
	attempts int64
	first    int64
	next     int64
	err      jobError
	// generation grows with each push; pending is the earliest push since the
	// row was claimed, claimed the digest it had then.
	generation int64
	pending    int64
	claimed    string
	// heldBy says who holds it, or will once it no longer runs; heldDigest is
	// what a person holds it at.
	heldBy     string
	heldDigest string
	replica    string
	epoch      int64
	created    int64
	updated    int64

	isNew, isDirty bool
	// counted is what the row counts as in the database, or will with the batch.
	counted jobGroup
}

type jobError struct{ kind, message, hint string }

func errorOf(e *replicator.JobError) jobError {
	if e == nil {
		return jobError{}
	}
	return jobError{clip(e.Kind, 64), clip(e.Message, maxMessage), clip(e.Hint, maxMessage)}
}

func (e jobError) value() *replicator.JobError {
	if e == (jobError{}) {
		return nil
	}
	return &replicator.JobError{Kind: e.kind, Message: e.message, Hint: e.hint}
}

func scanRow(scan scanner) (*row, error) {
	var r row
	var flow, lane, sender, full, state int64
	err := scan(&r.id, &r.edge, &r.key.src, &r.key.srcRepository, &r.key.dst, &r.key.dstRepository, &flow, &r.tag,
		&r.key.ref, &r.ended, &r.digest, &lane, &r.pushed, &sender, &r.behind, &full, &state, &r.attempts,
		&r.first, &r.next, &r.err.kind, &r.err.message, &r.err.hint, &r.generation,
		&r.pending, &r.claimed, &r.heldBy, &r.heldDigest, &r.replica, &r.epoch, &r.created, &r.updated)
	r.flow, r.lane, r.state = replicator.Flow(flow), replicator.Lane(lane), stateCode(state)
	r.sender, r.full = sender != 0, full != 0
	r.counted = r.group()
	return &r, err
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// job is the row as callers see it.
func (r *row) job(c *catalog) replicator.Job {
	return replicator.Job{
		ID:           formatID(r.id),
		Source:       c.place(r.key.src, r.key.srcRepository),
		Destination:  c.place(r.key.dst, r.key.dstRepository),
		Tag:          r.tag,
		Digest:       digest.Digest(r.digest),
		Wants:        append([]replicator.Want(nil), c.edges[r.edge].wants...),
		Flow:         r.flow,
		Lane:         r.lane,
		PushedAt:     fromMicros(r.pushed),
		SenderTime:   r.sender,
		BehindSince:  fromMicros(r.behind),
		Full:         r.full,
		State:        r.state.state(),
		Attempts:     int(r.attempts),
		FirstAttempt: fromMicros(r.first),
		NextAttempt:  fromMicros(r.next),
		Error:        r.err.value(),
		Generation:   r.generation,
		CreatedAt:    fromMicros(r.created),
		UpdatedAt:    fromMicros(r.updated),
		HeldDigest:   digest.Digest(r.heldDigest),
	}
}

// load gives the live row of a key, nil where there is none.
func (b *batch) load(k jobKey) (*row, error) {
	if r, ok := b.byKey[k]; ok {
		return r, nil
	}
	r, err := b.query(sqlJobByKey, k.dst, k.dstRepository, k.ref, k.src, k.srcRepository)
	if err != nil {
		return nil, err
	}
	if r == nil {
		b.byKey[k] = nil
		return nil, nil
	}
	return b.remember(r), nil
}

// byNumber gives the row of an id, ended or not, nil where there is none.
func (b *batch) byNumber(id int64) (*row, error) {
	if r, ok := b.byID[id]; ok {
		return r, nil
	}
	r, err := b.query(sqlJobByID, id)
	if err != nil || r == nil {
		return nil, err
	}
	return b.remember(r), nil
}

func (b *batch) query(query string, args ...any) (*row, error) {
	var r *row
	err := b.j.session.row(b.ctx, query, args, func(scan scanner) error {
		var err error
		r, err = scanRow(scan)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read job: %w", err)
	}
	return r, nil
}

// remember keeps one copy of each row in the batch: the one already there, if any.
func (b *batch) remember(r *row) *row {
	if known, ok := b.byID[r.id]; ok {
		return known
	}
	b.byID[r.id] = r
	if r.ended == 0 {
		b.byKey[r.key] = r
	}
	return r
}

// add makes a new row.
func (b *batch) add(r *row) {
	r.id = b.j.ids.next(b.now)
	r.created = b.now
	r.isNew = true
	if r.state == done || r.state == superseded {
		r.ended = r.id
	}
	b.byID[r.id] = r
	if r.ended == 0 {
		b.byKey[r.key] = r
	}
	b.change(r)
}

// change has the row written at the end of the batch.
func (b *batch) change(r *row) {
	r.updated = b.now
	if r.state == waiting && b.j.isUnwanted(r.edge) {
		r.state, r.heldBy = held, heldByConfig
	}
	if r.state == waiting {
		b.due = true
	}
	if !r.isDirty {
		r.isDirty = true
		b.dirty = append(b.dirty, r)
	}
}

// end takes the row out of what is desired.
func (b *batch) end(r *row) error {
	r.ended = r.id
	b.byKey[r.key] = nil
	b.change(r)
	if r.isNew {
		return nil
	}
	// Before the end of the batch: the key may be given to a new row in it.
	if err := b.exec(sqlEndJob, r.id, r.ended); err != nil {
		return fmt.Errorf("end job: %w", err)
	}
	return nil
}

// flush writes the changed rows, each by one prepared statement.
func (b *batch) flush() error {
	for _, r := range b.dirty {
		var err error
		if r.isNew {
			err = b.exec(sqlInsertJob, r.id, r.edge, r.key.src, r.key.srcRepository, r.key.dst, r.key.dstRepository,
				int64(r.flow), r.tag, r.key.ref, r.ended, r.digest, int64(r.lane), r.pushed, flag(r.sender), r.behind,
				flag(r.full), int64(r.state), r.attempts, r.first, r.next, r.err.kind, r.err.message, r.err.hint,
				r.generation, r.pending, r.claimed, r.heldBy, r.heldDigest, r.replica, r.epoch, r.created, r.updated)
		} else {
			err = b.exec(sqlUpdateJob, r.id, r.edge, r.digest, int64(r.lane), r.pushed, flag(r.sender), r.behind,
				flag(r.full), int64(r.state), r.attempts, r.first, r.next, r.err.kind, r.err.message, r.err.hint,
				r.generation, r.pending, r.claimed, r.heldBy, r.heldDigest, r.replica, r.epoch, r.updated, int64(r.flow))
		}
		if err != nil {
			return fmt.Errorf("write job: %w", err)
		}
		b.recount(r)
		r.isNew, r.isDirty = false, false
	}
	b.dirty = b.dirty[:0]
	return b.flushTotals()
}
