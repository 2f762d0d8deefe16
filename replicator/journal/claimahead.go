package journal

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/twinport/twinport/replicator"
)

const (
	// edgesAtMost is up to how many edges all are asked for what is due, rather
	// than which of them have anything.
	edgesAtMost = 64
	// groupsAhead is how many groups are read ahead beyond those asked for: some
	// turn out not to be free.
	groupsAhead = 16
)

const (
	pgRunning = `SELECT dst, dst_repository, ref, src, src_repository, flow FROM jobs WHERE state = 1`
	pgLeaving = `SELECT d.registry, d.repository, d.tag FROM departures d JOIN replicas r ON r.id = d.replica
		AND r.epoch = d.epoch WHERE d.begun_at > 0`
	pgGroups = `SELECT j.* FROM unnest($1::bigint[], $2::text[], $3::text[]) AS k (k_src, k_src_repository, k_ref)
		CROSS JOIN LATERAL (SELECT ` + jobColumns + ` FROM jobs WHERE src = k_src AND src_repository = k_src_repository
		AND ref = k_ref AND ended = 0 FOR UPDATE SKIP LOCKED) j`
)

// A group is what one claim takes: all rows of one source's tag or digest.
type group struct {
	src           int64
	srcRepository string
	ref           string
}

func (d due) group() group { return group{d.src, d.srcRepo, d.ref} }

// waitingEdges are those that may have something due.
func (c *claimer) waitingEdges() ([]int64, error) {
	if c.b.j.shared != nil && len(c.b.cat.edges) <= edgesAtMost {
		ids := make([]int64, 0, len(c.b.cat.edges))
		for id := range c.b.cat.edges {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		return ids, nil
	}
	var ids []int64
	for id := int64(0); ; {
		found := false
		err := c.b.each(sqlNextEdge, []any{id}, func(scan scanner) error {
			found = true
			return scan(&id)
		})
		if err != nil || !found {
			return ids, err
		}
		ids = append(ids, id)
	}
}

// lookAhead reads what the claims of a shared journal will need: each read is
// a round trip there, and a claim alone would make several.
func (c *claimer) lookAhead(most int) error {
	s := c.b.j.shared
	if s == nil {
		return nil
	}
	var pages []question
	for lane := range c.queues {
		for _, q := range c.queues[lane] {
			if len(q.page) == 0 && q.full {
				pages = append(pages, q.question(lane, c.now))
			}
		}
	}
	if err := s.session.all(pages); err != nil {
		return fmt.Errorf("read what is due: %w", err)
	}
	var heads []due
	for lane := range c.queues {
		first := len(heads)
		for _, q := range c.queues[lane] {
			q.filled()
			heads = append(heads, q.page...)
		}
		slices.SortFunc(heads[first:], func(a, z due) int { return cmp.Or(cmp.Compare(a.next, z.next), cmp.Compare(a.id, z.id)) })
	}
	c.moving, c.groups = map[tagKey]bool{}, map[group][]*row{}
	if len(heads) == 0 {
		return nil
	}
	return c.readGroups(heads, most+groupsAhead)
}

func (c *claimer) readGroups(heads []due, most int) error {
	var src []int64
	var srcRepository, ref []string
	for _, d := range heads {
		g := d.group()
		if _, known := c.groups[g]; known || len(src) == most {
			continue
		}
		c.groups[g] = nil
		src, srcRepository, ref = append(src, g.src), append(srcRepository, g.srcRepository), append(ref, g.ref)
	}
	err := c.b.j.shared.session.all([]question{
		{pgRunning, nil, func(scan scanner) error {
			var r row
			var flow int64
			err := scan(&r.key.dst, &r.key.dstRepository, &r.key.ref, &r.key.src, &r.key.srcRepository, &flow)
			r.flow = replicator.Flow(flow)
			c.moves(&r)
			return err
		}},
		{pgLeaving, nil, func(scan scanner) error {
			var k tagKey
			err := scan(&k.registry, &k.repository, &k.tag)
			c.moving[k] = true
			return err
		}},
		{pgGroups, []any{src, srcRepository, ref}, func(scan scanner) error {
			r, err := scanRow(scan)
			g := group{r.key.src, r.key.srcRepository, r.key.ref}
			c.groups[g] = append(c.groups[g], r)
			return err
		}},
	})
	if err != nil {
		return fmt.Errorf("read what may be claimed: %w", err)
	}
	for _, rows := range c.groups {
		slices.SortFunc(rows, func(a, z *row) int {
			return cmp.Or(cmp.Compare(a.lane, z.lane), cmp.Compare(a.next, z.next), cmp.Compare(a.id, z.id))
		})
	}
	return nil
}

// moves notes the tags that a running row moves.
func (c *claimer) moves(r *row) {
	for _, k := range tagsOf(r) {
		c.moving[k] = true
	}
}

// tagsOf are the tags that a row's job may move.
func tagsOf(r *row) []tagKey {
	keys := []tagKey{{r.key.dst, r.key.dstRepository, r.key.ref}}
	if r.flow == replicator.TwoWay {
		keys = append(keys, tagKey{r.key.src, r.key.srcRepository, r.key.ref})
	}
	return keys
}

// question asks for the queue's next page.
func (q *dueQueue) question(lane int, now int64) question {
	q.page = q.page[:0]
	return question{sqlDue, []any{q.edge, lane, now, q.last.next, q.last.id, duePage}, func(scan scanner) error {
		var d due
		if err := scan(&d.id, &d.next, &d.src, &d.srcRepo, &d.ref); err != nil {
			return err
		}
		q.page = append(q.page, d)
		return nil
	}}
}

// filled notes what a page tells of the next.
func (q *dueQueue) filled() {
	if !q.full {
		return
	}
	q.full = len(q.page) == duePage
	if len(q.page) > 0 {
		q.last = q.page[len(q.page)-1]
	}
}

// rowsOf reads a group, unless that was done ahead.
func (c *claimer) rowsOf(d due) ([]*row, error) {
	if rows, known := c.groups[d.group()]; known {
		return rows, nil
	}
	var rows []*row
	err := c.b.each(sqlGroup+c.b.j.dialect.skipLocked, []any{d.src, d.srcRepo, d.ref}, func(scan scanner) error {
		r, err := scanRow(scan)
		rows = append(rows, r)
		return err
	})
	return rows, err
}

// isMoving tells whether somebody moves a tag, or takes it away.
func (c *claimer) isMoving(k tagKey) (bool, error) {
	if c.moving != nil {
		return c.moving[k], nil
	}
	busy := false
	for _, query := range []string{sqlMoving, sqlBeingRemoved} {
		err := c.b.each(query, []any{k.registry, k.repository, k.tag}, func(scanner) error {
			busy = true
			return nil
		})
		if err != nil || busy {
			return busy, err
		}
	}
	return false, nil
}
