package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twinport/twinport/replicator"
)

// A catalog is what all rows share and refer to by number: registries and
// edges, as of one commit. It is replaced, never changed.
type catalog struct {
	registries map[int64]registryRow
	identities map[string]int64
	edges      map[int64]edge
	edgeIDs    map[string]int64
	version    int64 // as other replicas know it
}

type registryRow struct {
	id             int64
	identity, name string
	trust          int64
}

type edge struct {
	id, src, dst int64
	flow         replicator.Flow
	wants        []replicator.Want // sorted, distinct
}

func (e edge) key() string { return edgeKey(e.src, e.dst, e.flow, e.wants) }

// has tells whether the route wants the edge's jobs at the destination; empty matches all.
func (e edge) has(route, destination string) bool {
	for _, w := range e.wants {
		if (route == "" || w.Route == route) && (destination == "" || w.Destination == destination) {
			return true
		}
	}
	return false
}

func edgeKey(src, dst int64, flow replicator.Flow, wants []replicator.Want) string {
	n := 24
	for _, w := range wants {
		n += len(w.Route) + len(w.Destination) + 2
	}
	var b strings.Builder
	b.Grow(n)
	for _, v := range [...]int64{src, dst, int64(flow)} {
		for ; v > 0; v >>= 7 {
			b.WriteByte(byte(v&0x7f) | 0x80)
		}
		b.WriteByte(0)
	}
	for _, w := range wants {
		b.WriteString(w.Route)
		b.WriteByte(0)
		b.WriteString(w.Destination)
		b.WriteByte(0)
	}
	return b.String()
}

func compareWants(a, b replicator.Want) int {
	if c := strings.Compare(a.Route, b.Route); c != 0 {
		return c
	}
	return strings.Compare(a.Destination, b.Destination)
}

// normalWants sorts and makes distinct, without changing what it is given.
func normalWants(wants []replicator.Want) []replicator.Want {
	if len(wants) < 2 {
		return wants
	}
	wants = slices.Clone(wants)
	slices.SortFunc(wants, compareWants)
	return slices.Compact(wants)
}

func newCatalog() *catalog {
	return &catalog{registries: map[int64]registryRow{}, identities: map[string]int64{}, edges: map[int64]edge{}, edgeIDs: map[string]int64{}}
}

func (c *catalog) clone() *catalog {
	return &catalog{maps.Clone(c.registries), maps.Clone(c.identities), maps.Clone(c.edges), maps.Clone(c.edgeIDs), c.version}
}

func (c *catalog) setRegistry(r registryRow) {
	c.registries[r.id] = r
	c.identities[r.identity] = r.id
}

func (c *catalog) setEdge(e edge) {
	c.edges[e.id] = e
	c.edgeIDs[e.key()] = e.id
}

func (c *catalog) place(registry int64, repository string) replicator.Place {
	r := c.registries[registry]
	return replicator.Place{Registry: r.name, Identity: r.identity, Repository: repository}
}

// loadCatalog reads it anew.
func loadCatalog(ctx context.Context, db queryer) (*catalog, error) {
	return readCatalog(func(query string, f func(scanner) error) error { return each(ctx, db, query, nil, f) })
}

func readCatalog(ask func(query string, f func(scanner) error) error) (*catalog, error) {
	c := newCatalog()
	err := ask(sqlRegistries, func(scan scanner) error {
		var r registryRow
		if err := scan(&r.id, &r.identity, &r.name, &r.trust); err != nil {
			return err
		}
		c.setRegistry(r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read registries: %w", err)
	}
	err = ask(sqlEdges, func(scan scanner) error {
		var e edge
		var flow int64
		var wants string
		if err := scan(&e.id, &e.src, &e.dst, &flow, &wants); err != nil {
			return err
		}
		e.flow = replicator.Flow(flow)
		var err error
		if e.wants, err = decodeWants(wants); err != nil {
			return fmt.Errorf("edge %d: %w", e.id, err)
		}
		c.setEdge(e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read edges: %w", err)
	}
	return c, nil
}

func encodeWants(wants []replicator.Want) (string, error) {
	pairs := make([][2]string, len(wants))
	for i, w := range wants {
		pairs[i] = [2]string{w.Route, w.Destination}
	}
	text, err := json.Marshal(pairs)
	return string(text), err
}

func decodeWants(text string) ([]replicator.Want, error) {
	var pairs [][2]string
	if err := json.Unmarshal([]byte(text), &pairs); err != nil {
		return nil, err
	}
	wants := make([]replicator.Want, len(pairs))
	for i, p := range pairs {
		wants[i] = replicator.Want{Route: p[0], Destination: p[1]}
	}
	return wants, nil
}

// registry gives the number of an identity, making one where it is new, and
// keeps the name up to date where one is given.
func (b *batch) registry(identity, name string) (int64, error) {
	if id, ok := b.cat.identities[identity]; ok {
		r := b.cat.registries[id]
		if name == "" || name == r.name {
			return id, nil
		}
		if err := b.exec(sqlNameRegistry, name, id); err != nil {
			return 0, fmt.Errorf("rename registry: %w", err)
		}
		r.name = name
		b.ownCatalog().setRegistry(r)
		return id, nil
	}
	if identity == "" {
		return 0, fmt.Errorf("registry %.64q has no identity", name)
	}
	r := registryRow{identity: identity, name: name}
	if err := b.row(sqlAddRegistry, []any{identity, name}, &r.id, &r.trust); err != nil {
		return 0, fmt.Errorf("add registry: %w", err)
	}
	b.ownCatalog().setRegistry(r)
	return r.id, nil
}

// edge gives the edge of these ends and wants, making one where it is new.
func (b *batch) edge(src, dst int64, flow replicator.Flow, wants []replicator.Want) (int64, error) {
	key := edgeKey(src, dst, flow, wants)
	if id, ok := b.cat.edgeIDs[key]; ok {
		return id, nil
	}
	text, err := encodeWants(wants)
	if err != nil {
		return 0, err
	}
	e := edge{src: src, dst: dst, flow: flow, wants: slices.Clone(wants)}
	if err := b.row(sqlAddEdge, []any{src, dst, int64(flow), text}, &e.id); err != nil {
		return 0, fmt.Errorf("add edge: %w", err)
	}
	b.ownCatalog().setEdge(e)
	return e.id, nil
}

// join gives the edge with the wants of both; the newer's flow counts.
func (b *batch) join(old, now int64) (int64, error) {
	if old == now {
		return old, nil
	}
	a, z := b.cat.edges[old], b.cat.edges[now]
	wants := normalWants(append(slices.Clone(a.wants), z.wants...))
	return b.edge(z.src, z.dst, z.flow, wants)
}

func (b *batch) ownCatalog() *catalog {
	if !b.catChanged {
		b.cat, b.catChanged = b.cat.clone(), true
		b.cat.version++
	}
	return b.cat
}
