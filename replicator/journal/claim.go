package journal

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twinport/twinport/replicator"
)

const (
	// lowerShare: of so many claims one goes to the lowest lane that waits, so
	// that no flood above starves it for good.
	lowerShare = 8
	duePage    = 32
)

// Claim takes due jobs: per claim all due rows of one (source identity,
// repository, tag or digest), highest lane first, then by next attempt and
// age. A tag at a destination is moved by one claim at a time, whatever rows
// would move it: the rest stays for later.
func (j *Journal) Claim(ctx context.Context, o ClaimOptions) ([]Claim, error) {
	var claims []Claim
	err := j.write(ctx, true, func(b *batch) error {
		claims = nil
		c, err := b.newClaimer(o)
		if err != nil {
			return fmt.Errorf("claim: %w", err)
		}
		for len(claims) < o.Max {
			claim, ok, err := c.next()
			if err != nil {
				return fmt.Errorf("claim: %w", err)
			}
			if !ok {
				break
			}
			claims = append(claims, claim)
		}
		b.after = append(b.after, func() { j.lastClaim.Store(micros(o.Now)) })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return claims, nil
}

// A claimer hands out what is due, within its options.
type claimer struct {
	b                      *batch
	now                    int64
	foreground, background int // how many more may be taken
	edges                  map[int64]bool
	elsewhere              map[int64]bool   // rows whose source is down, claimed for all that
	queues                 [4][]*dueQueue   // by lane
	tried                  map[int64]bool   // rows offered already
	moving                 map[tagKey]bool  // tags that are being moved or removed; nil: to be asked for
	groups                 map[group][]*row // read ahead
}

// A dueQueue is the due rows of one lane and edge, read page by page.
type dueQueue struct {
	edge int64
	page []due
	full bool // there may be another page
	last due
}

type due struct {
	id, next int64
	src      int64
	srcRepo  string
	ref      string
}

func (b *batch) newClaimer(o ClaimOptions) (*claimer, error) {
	// What the batch has changed so far must be seen by the queries.
	if err := b.flush(); err != nil {
		return nil, err
	}
	paused, err := b.paused()
	if err != nil {
		return nil, err
	}
	c := &claimer{b: b, now: micros(o.Now), foreground: o.MaxForeground, background: o.MaxBackground,
		edges: map[int64]bool{}, elsewhere: map[int64]bool{}, tried: map[int64]bool{}}
	if err := c.admitElsewhere(o, paused); err != nil {
		return nil, err
	}
	ids, err := c.waitingEdges()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if e, ok := b.cat.edges[id]; !ok || b.j.isUnwanted(id) || allPaused(e.wants, paused) || c.isDown(e, o.Down) {
			continue
		}
		c.edges[id] = true
		for lane := range c.queues {
			c.queues[lane] = append(c.queues[lane], &dueQueue{edge: id, full: true})
		}
	}
	return c, c.lookAhead(o.Max)
}

// admitElsewhere queues the jobs whose source is down and not needed.
func (c *claimer) admitElsewhere(o ClaimOptions, paused map[string]bool) error {
	var queues [4]*dueQueue
	for _, id := range o.Elsewhere {
		number, err := parseID(id)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		r, err := c.b.byNumber(number)
		if err != nil {
			return err
		}
		if r == nil || r.state != waiting || r.next > c.now {
			continue
		}
		e, ok := c.b.cat.edges[r.edge]
		if !ok || c.b.j.isUnwanted(r.edge) || allPaused(e.wants, paused) || slices.Contains(o.Down, c.b.cat.registries[e.dst].identity) {
			continue
		}
		c.elsewhere[r.id] = true
		q := queues[r.lane]
		if q == nil {
			q = &dueQueue{}
			queues[r.lane] = q
			c.queues[r.lane] = append(c.queues[r.lane], q)
		}
		q.page = append(q.page, due{r.id, r.next, r.key.src, r.key.srcRepository, r.key.ref})
	}
	return nil
}

func (c *claimer) isDown(e edge, down []string) bool {
	r := c.b.cat.registries
	return slices.Contains(down, r[e.src].identity) || slices.Contains(down, r[e.dst].identity)
}

func allPaused(wants []replicator.Want, paused map[string]bool) bool {
	for _, w := range wants {
		if !paused[w.Route] {
			return false
		}
	}
	return true
}

// next is the next claim, false where nothing more can be taken.
func (c *claimer) next() (Claim, bool, error) {
	lanes := [4]int{0, 1, 2, 3}
	if c.b.j.turn%lowerShare == lowerShare-1 {
		lanes = [4]int{3, 2, 1, 0}
	}
	for _, lane := range lanes {
		room := &c.foreground
		if replicator.Lane(lane).Background() {
			room = &c.background
		}
		for *room > 0 {
			d, ok, err := c.head(lane)
			if err != nil {
				return Claim{}, false, err
			}
			if !ok {
				break
			}
			jobs, err := c.take(d)
			if err != nil {
				return Claim{}, false, err
			}
			if len(jobs) > 0 {
				*room--
				c.b.j.turn++
				return Claim{Replica: c.b.j.replica, Epoch: c.b.j.epoch.Load(), Jobs: jobs}, true, nil
			}
		}
	}
	return Claim{}, false, nil
}

// head takes the first due row of a lane that was not offered yet.
func (c *claimer) head(lane int) (due, bool, error) {
	for {
		var first *dueQueue
		for _, q := range c.queues[lane] {
			if err := c.fill(q, lane); err != nil {
				return due{}, false, err
			}
			if len(q.page) == 0 {
				continue
			}
			if first == nil || before(q.page[0], first.page[0]) {
				first = q
			}
		}
		if first == nil {
			return due{}, false, nil
		}
		d := first.page[0]
		first.page = first.page[1:]
		if !c.tried[d.id] {
			return d, true, nil
		}
	}
}

func before(a, z due) bool { return a.next < z.next || a.next == z.next && a.id < z.id }

func (c *claimer) fill(q *dueQueue, lane int) error {
	if len(q.page) > 0 || !q.full {
		return nil
	}
	ask := q.question(lane, c.now)
	err := c.b.each(ask.query, ask.args, ask.each)
	q.filled()
	return err
}

// take claims the group of a row: none where each of them would move a tag
// that is being moved.
func (c *claimer) take(d due) ([]replicator.Job, error) {
	b := c.b
	rows, err := c.rowsOf(d)
	if err != nil {
		return nil, err
	}
	var jobs []replicator.Job
	moved := map[tagKey]bool{}
	for _, r := range rows {
		if r.state != waiting || r.next > c.now || !c.edges[r.edge] && !c.elsewhere[r.id] || c.tried[r.id] {
			continue
		}
		c.tried[r.id] = true
		free, err := c.isFree(r, moved)
		if err != nil {
			return nil, err
		}
		if !free {
			continue
		}
		r = b.remember(r)
		r.state, r.replica, r.epoch, r.claimed, r.pending, r.updated = running, b.j.replica, b.j.epoch.Load(), r.digest, 0, b.now
		if err := b.exec(sqlClaim, r.id, r.replica, r.epoch, r.claimed, r.updated); err != nil {
			return nil, fmt.Errorf("claim job: %w", err)
		}
		b.recount(r)
		if c.moving != nil {
			c.moves(r)
		}
		jobs = append(jobs, r.job(b.cat))
	}
	return jobs, nil
}

// isFree tells whether nobody moves the tags the row would move, and marks them.
func (c *claimer) isFree(r *row, moved map[tagKey]bool) (bool, error) {
	keys := tagsOf(r)
	for _, k := range keys {
		if moved[k] {
			return false, nil
		}
		if busy, err := c.isMoving(k); err != nil || busy {
			return false, err
		}
	}
	for _, k := range keys {
		moved[k] = true
	}
	return true, nil
}

// NextDue is the earliest time after the last Claim's Now at which a waiting
// job becomes due, zero where none will: what was due by then has been offered
// already, and comes again when a claim ends, a registry wakes or Changed says so.
func (j *Journal) NextDue(ctx context.Context) (time.Time, error) {
	after := j.lastClaim.Load()
	earliestDue := int64(0)
	for edge := int64(0); ; {
		found, err := one(ctx, j.reads, sqlNextEdge, []any{edge}, &edge)
		if err != nil {
			return time.Time{}, fmt.Errorf("next due: %w", err)
		}
		if !found {
			return fromMicros(earliestDue), nil
		}
		for _, lane := range replicator.Lanes {
			var next int64
			if _, err := one(ctx, j.reads, sqlNextDue, []any{edge, int64(lane), after}, &next); err != nil {
				return time.Time{}, fmt.Errorf("next due: %w", err)
			}
			earliestDue = earliest(earliestDue, next)
		}
	}
}
