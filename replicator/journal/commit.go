package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

const (
	maxBatch  = 256  // requests in one transaction
	queueSize = 1024 // waiting requests of each kind; more is ErrBusy
)

// A Stage is a point on a write's way.
type Stage string

// The stages, in order. All but the first are the committer's.
const (
	StageAsk    Stage = "ask"    // the caller asks for the write
	StageBegin  Stage = "begin"  // before a transaction
	StageCommit Stage = "commit" // all of it is written, and not committed
	StageAnswer Stage = "answer" // committed, one caller is told next
)

// A request is one caller's write. Its function may run twice (a failing batch
// is retried one by one), so it sets its results anew each time, and it is run
// by the committer alone.
type request struct {
	// ahead says what do will read, so that a shared journal reads it for all
	// requests of a batch at once; nil: nothing worth it.
	ahead func(*batch)
	do    func(*batch) error
	done  chan error // holds one
}

// Run is the committer: it takes what waits, commits it and answers, until ctx
// ends; then it refuses what comes, commits what had been taken, and returns.
// Writes made before Run wait for it.
func (j *Journal) Run(ctx context.Context) error {
	if j.session == nil {
		return errors.New("a read-only journal commits nothing")
	}
	if !j.running.CompareAndSwap(false, true) {
		return errors.New("the journal is running already")
	}
	defer j.end()
	if j.shared != nil {
		defer j.shared.listen(ctx, j)()
	}
	pending := make([]*request, 0, maxBatch)
	for ctx.Err() == nil {
		if pending = j.take(pending); len(pending) == 0 {
			select {
			case r := <-j.completions:
				pending = append(pending, r)
			case r := <-j.intakes:
				pending = append(pending, r)
			case <-ctx.Done():
				continue
			}
			pending = j.take(pending)
		}
		j.commit(pending)
		clear(pending)
		pending = pending[:0]
	}
	j.refuse()
	for pending = j.take(pending); len(pending) > 0; pending = j.take(pending[:0]) {
		j.commit(pending)
	}
	return nil
}

// refuse lets nothing more into the queues, and waits for who is on the threshold.
func (j *Journal) refuse() {
	j.closeOnce.Do(func() { close(j.closing) })
	j.gate.Lock()
	j.gate.Unlock() //nolint:gocritic,staticcheck // nothing is guarded: whoever held it has left
}

// end tells all who still wait that nobody will answer.
func (j *Journal) end() { j.endOnce.Do(func() { close(j.ended) }) }

// take adds what waits without waiting, completions first.
func (j *Journal) take(pending []*request) []*request {
	for len(pending) < maxBatch {
		select {
		case r := <-j.completions:
			pending = append(pending, r)
			continue
		default:
		}
		select {
		case r := <-j.completions:
			pending = append(pending, r)
		case r := <-j.intakes:
			pending = append(pending, r)
		default:
			return pending
		}
	}
	return pending
}

// commit runs the requests in one transaction, or each in its own where that fails.
func (j *Journal) commit(requests []*request) {
	err := j.transaction(requests)
	if err == nil || len(requests) == 1 || isUnavailable(err) {
		for _, r := range requests {
			j.answer(r, err)
		}
		return
	}
	for i := range requests {
		j.answer(requests[i], j.transaction(requests[i:i+1]))
	}
}

func (j *Journal) answer(r *request, err error) {
	if err == nil {
		err = j.step(context.Background(), StageAnswer)
	}
	r.done <- err
}

// transaction has a context of its own: no caller's patience ends what others wait for.
func (j *Journal) transaction(requests []*request) (err error) {
	ctx := context.Background()
	if err := j.step(ctx, StageBegin); err != nil {
		return err
	}
	if s := j.shared; s != nil {
		s.silent.Store(time.Now().UnixNano())
		defer s.silent.Store(0)
	}
	if err := j.session.begin(ctx); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	b := j.newBatch(ctx)
	defer func() {
		if err != nil {
			j.session.rollback(ctx)
			err = classify(err)
		}
	}()
	if err := b.prepare(requests); err != nil {
		return err
	}
	for _, r := range requests {
		if err := r.do(b); err != nil {
			return err
		}
	}
	if err := b.flush(); err != nil {
		return err
	}
	if err := b.saveCounts(); err != nil {
		return err
	}
	if err := b.announce(); err != nil {
		return err
	}
	if err := j.step(ctx, StageCommit); err != nil {
		return err
	}
	if err := j.session.commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	b.publish()
	return nil
}

// write hands a request to the committer and waits for its commit. An intake
// that finds the queue full gives ErrBusy; a completion waits for its place.
// Where ctx ends first, the write may still be made.
func (j *Journal) write(ctx context.Context, completion bool, do func(*batch) error) error {
	return j.writeAhead(ctx, completion, nil, do)
}

// writeAhead is write with what the request will read said ahead.
func (j *Journal) writeAhead(ctx context.Context, completion bool, ahead func(*batch), do func(*batch) error) error {
	if j.session == nil {
		return errors.New("the journal is open for reading only")
	}
	if err := j.step(ctx, StageAsk); err != nil {
		return err
	}
	if err := j.shared.refuses(completion); err != nil {
		return err
	}
	r := &request{ahead: ahead, do: do, done: make(chan error, 1)}
	if err := j.enqueue(ctx, completion, r); err != nil {
		return err
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		if j.shared != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
		}
		return context.Cause(ctx)
	case <-j.ended:
		select {
		case err := <-r.done:
			return err
		default:
			return ErrClosed
		}
	}
}

func (j *Journal) enqueue(ctx context.Context, completion bool, r *request) error {
	j.gate.RLock()
	defer j.gate.RUnlock()
	select {
	case <-j.closing:
		return ErrClosed
	default:
	}
	if !completion {
		select {
		case j.intakes <- r:
			return nil
		default:
			return ErrBusy
		}
	}
	select {
	case j.completions <- r:
		return nil
	case <-j.closing:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// notify says that something may have become due.
func (j *Journal) notify() {
	select {
	case j.changed <- struct{}{}:
	default:
	}
}

// A batch is one transaction's work. Rows of jobs are read once, changed in
// memory by as many requests as name them, and written once.
type batch struct {
	j   *Journal
	ctx context.Context
	now int64

	cat        *catalog
	catChanged bool

	byKey map[jobKey]*row
	byID  map[int64]*row
	dirty []*row

	tagStates   map[tagKey]lastState
	counts      map[jobGroup]int64 // what becomes of how many jobs there are
	locations   []locationKey
	totals      map[string]int64 // findings told, by kind
	newFindings int64
	anyRefusal  int // 0 not asked, 1 none, 2 some
	anyDeparted int // likewise
	wanted      wanted
	epochs      map[string]int64         // of replicas, as read
	held        map[locationKey][]string // repositories of a digest, as read ahead
	due         bool
	after       []func() // run once committed
}

func (j *Journal) newBatch(ctx context.Context) *batch {
	return &batch{j: j, ctx: ctx, now: micros(j.now()), cat: j.catalog.Load(),
		byKey: map[jobKey]*row{}, byID: map[int64]*row{}}
}

// publish makes the commit known to readers and sleepers.
func (b *batch) publish() {
	if b.catChanged {
		b.j.catalog.Store(b.cat)
	}
	b.j.rememberLocations(b.locations)
	b.j.findingCount += b.newFindings
	for _, f := range b.after {
		f()
	}
	if b.due {
		b.j.notify()
	}
}

func (b *batch) exec(query string, args ...any) error {
	return b.j.session.exec(b.ctx, query, args)
}

func (b *batch) execCount(query string, args ...any) (int64, error) {
	return b.j.session.execCount(b.ctx, query, args)
}

// row scans the one row of a query; sql.ErrNoRows where there is none.
func (b *batch) row(query string, args []any, into ...any) error {
	return b.j.session.row(b.ctx, query, args, func(scan scanner) error { return scan(into...) })
}

func (b *batch) each(query string, args []any, f func(scan scanner) error) error {
	return b.j.session.each(b.ctx, query, args, f)
}

// A scanner reads one row's columns.
type scanner func(into ...any) error

// A queryer is a database, or one of its connections.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func each(ctx context.Context, db queryer, query string, args []any, f func(scan scanner) error) error {
	if p, ok := db.(patient); ok {
		return p.each(ctx, query, args, f)
	}
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return classify(err)
	}
	return classify(drain(rows, f))
}

func drain(rows *sql.Rows, f func(scan scanner) error) error {
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}

// one reads a single row; false where there is none.
func one(ctx context.Context, db queryer, query string, args []any, into ...any) (bool, error) {
	found := false
	err := each(ctx, db, query, args, func(scan scanner) error {
		if found {
			return nil
		}
		found = true
		return scan(into...)
	})
	return found, err
}

func (b *batch) at() time.Time { return fromMicros(b.now) }
