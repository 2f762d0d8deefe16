package plan

import "github.com/twinport/twinport/replicator"

// A node is a repository of a registry; routes are edges between nodes.
type node struct{ registry, repository string }

// Bounds on the search for a way back; topologies are checked by config, this
// keeps a strange one from costing more than it should.
const (
	maxFlowNodes = 1024
	maxFlowDepth = 64
)

// reach computes, for each registry that is some route's source, where its
// content can get to by the routes, whatever their filters.
func (r *Rules) reach() map[string]map[string]bool {
	reaches := make(map[string]map[string]bool, len(r.bySource))
	for from := range r.bySource {
		seen := make(map[string]bool)
		for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
			for _, ru := range r.bySource[queue[0]] {
				for _, to := range ru.To {
					if !seen[to] {
						seen[to] = true
						queue = append(queue, to)
					}
				}
			}
		}
		reaches[from] = seen
	}
	return reaches
}

// A flowFinder answers for one event how the ends of its jobs stand to each
// other, asking the filters of each node once.
type flowFinder struct {
	rules *Rules
	tag   string
	next  map[node][]node
}

// flow tells whether what arrives at a destination comes back to the very name
// it left from: at once (TwoWay), in several steps (Ring), or never (OneWay).
func (f *flowFinder) flow(from, to node) replicator.Flow {
	if !f.rules.reaches[to.registry][from.registry] {
		return replicator.OneWay
	}
	seen := map[node]bool{to: true}
	level := []node{to}
	for depth := 1; depth <= maxFlowDepth && len(level) > 0; depth++ {
		var following []node
		for _, at := range level {
			for _, next := range f.edges(at) {
				if next == from {
					if depth == 1 {
						return replicator.TwoWay
					}
					return replicator.Ring
				}
				if !seen[next] && len(seen) < maxFlowNodes {
					seen[next] = true
					following = append(following, next)
				}
			}
		}
		level = following
	}
	return replicator.OneWay
}

// edges are where the routes take the tag from a node.
func (f *flowFinder) edges(at node) []node {
	if next, known := f.next[at]; known {
		return next
	}
	var next []node
	for _, ru := range f.rules.bySource[at.registry] {
		if ok, _ := ru.selects(at.repository); !ok {
			continue
		}
		if ok, _ := ru.selectsTag(f.tag); !ok {
			continue
		}
		repository, err := ru.destination(at.repository)
		if err != nil {
			continue
		}
		for _, to := range ru.To {
			next = append(next, node{to, repository})
		}
	}
	if f.next == nil {
		f.next = make(map[node][]node)
	}
	f.next[at] = next
	return next
}

// canonical puts the ends of a TwoWay job in the order both directions agree on.
func canonical(a, b replicator.Place) (source, destination replicator.Place) {
	if b.Registry < a.Registry || b.Registry == a.Registry && b.Repository < a.Repository {
		return b, a
	}
	return a, b
}
