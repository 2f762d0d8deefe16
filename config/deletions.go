package config

import (
	"fmt"
	"slices"
	"strings"
)

// deletions finds routes that carry deletions over to a registry that feeds
// their source: a tag that is gone at one end there is brought back by the
// other, so that nobody could tell a deletion from a loss.
func (t *topology) deletions() {
	if !slices.ContainsFunc(t.edges, func(e *edge) bool { return e.route.Deletes.Mirror != nil }) {
		return
	}
	hints := t.hints()
	told := map[int]bool{}
	for _, e := range t.edges {
		if e.route.Deletes.Mirror == nil || told[e.index] {
			continue
		}
		for _, name := range t.examples(e, hints) {
			routes := t.back(e, name)
			if routes == nil {
				continue
			}
			told[e.index] = true
			t.w.fault(t.w.at(fmt.Sprintf("routes[%d].deletes", e.index)), "use deletes: keep here, or let the routes' filters exclude one another",
				"routes[%d].deletes: deletions cannot be carried over where %s brings %s back to %s", e.index, strings.Join(routes, ", "), quote(name), e.src.Name)
			break
		}
	}
}

// back names the routes by which a push of an edge comes back to the name it
// left from, nil where it never does.
func (t *topology) back(first *edge, name string) []string {
	stops := []stop{{at: first.src, name: name, from: -1}}
	seen := map[string]bool{}
	for i := 0; i < len(stops) && len(stops) < maxStops; i++ {
		now := stops[i]
		for _, e := range t.edges {
			if e.src != now.at || i == 0 && e != first || !e.route.Repositories.matches(now.name) {
				continue
			}
			for _, next := range t.seenAt(e.dst, fill(e.pieces, e.src.Name, now.name)) {
				if seen[next.at.Name+"/"+next.name] || len(next.name) > 255 {
					continue
				}
				seen[next.at.Name+"/"+next.name] = true
				next.by, next.from = e, i
				stops = append(stops, next)
				if next.at == first.src && next.name == name {
					if routes := t.carried(stops); routes != nil {
						return routes
					}
				}
			}
		}
	}
	return nil
}

// carried names the routes that lead to the last stop after the first of them,
// nil where no tag takes them all.
func (t *topology) carried(stops []stop) []string {
	var routes []string
	tags := language{}
	for i := len(stops) - 1; stops[i].by != nil; i = stops[i].from {
		tags = tags.and(stops[i].by.tags())
		routes = append(routes, "route "+stops[i].by.route.Name)
	}
	if _, found, sure := t.find(tags); sure && !found {
		return nil
	}
	slices.Reverse(routes)
	return routes[1:]
}
