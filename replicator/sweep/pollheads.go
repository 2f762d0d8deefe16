package sweep

import (
	"cmp"
	"container/heap"
	"slices"
)

// A headChoice picks the tags to ask for by HEAD, of any number that could be:
// new ones as they come, then half for those that were moved last (they move
// again), and the rest in turn, from where the poll before has ended. Memory is
// bounded by the number of HEADs.
type headChoice struct {
	left   int
	new    []Moved
	recent bounded // the latest
	after  bounded // the first ones after the cursor
	from   bounded // the first ones of all, for when the turn begins anew
	cursor headKey
}

type headKey struct{ repository, tag string }

func keyOf(m Moved) headKey { return headKey{m.Repository, m.Tag.Name} }

func (k headKey) compare(o headKey) int {
	return cmp.Or(cmp.Compare(k.repository, o.repository), cmp.Compare(k.tag, o.tag))
}

func newHeads(cursor headKey, n int) *headChoice {
	byName := func(a, b Moved) int { return keyOf(a).compare(keyOf(b)) }
	return &headChoice{
		left: n, cursor: cursor,
		recent: bounded{n: n, order: func(a, b Moved) int { return cmp.Or(b.Known.At.Compare(a.Known.At), byName(a, b)) }},
		after:  bounded{n: n, order: byName},
		from:   bounded{n: n, order: byName},
	}
}

// anew takes a tag that nobody knows; false: it has to wait for the next poll.
func (h *headChoice) anew(m Moved) bool {
	if len(h.new) >= h.left {
		return false
	}
	h.new = append(h.new, m)
	return true
}

// offer names a tag that may have been moved.
func (h *headChoice) offer(m Moved) {
	h.recent.add(m)
	if keyOf(m).compare(h.cursor) > 0 {
		h.after.add(m)
	}
	h.from.add(m)
}

// chosen are the tags to ask for, and where the turn goes on next time.
func (h *headChoice) chosen() ([]Moved, headKey) {
	list := h.new
	picked := make(map[headKey]bool)
	take := func(from []Moved, n int) (last headKey, taken int) {
		for _, m := range from {
			if taken == n || len(list) >= h.left {
				break
			}
			last = keyOf(m)
			if !picked[last] {
				picked[last] = true
				list = append(list, m)
				taken++
			}
		}
		return last, taken
	}
	half := (h.left - len(list)) / 2
	take(h.recent.sorted(), half)
	cursor, taken := take(h.after.sorted(), h.left)
	if len(list) < h.left { // round the end
		if last, n := take(h.from.sorted(), h.left); n > 0 {
			cursor, taken = last, taken+n
		}
	}
	if taken == 0 {
		cursor = h.cursor
	}
	return list, cursor
}

// bounded keeps the first n by an order.
type bounded struct {
	n     int
	order func(a, b Moved) int
	items []Moved
}

func (b *bounded) Len() int           { return len(b.items) }
func (b *bounded) Less(i, j int) bool { return b.order(b.items[i], b.items[j]) > 0 }
func (b *bounded) Swap(i, j int)      { b.items[i], b.items[j] = b.items[j], b.items[i] }
func (b *bounded) Push(x any)         { b.items = append(b.items, x.(Moved)) }
func (b *bounded) Pop() any {
	last := len(b.items) - 1
	m := b.items[last]
	b.items = b.items[:last]
	return m
}

func (b *bounded) add(m Moved) {
	switch {
	case b.n == 0:
	case len(b.items) < b.n:
		heap.Push(b, m)
	case b.order(m, b.items[0]) < 0:
		b.items[0] = m
		heap.Fix(b, 0)
	}
}

func (b *bounded) sorted() []Moved {
	list := slices.Clone(b.items)
	slices.SortFunc(list, b.order)
	return list
}
