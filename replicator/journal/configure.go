package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/twinport/twinport/replicator"
)

// Configure tells the journal what the config says now; call it at start and
// at each reload. A name that stands for another registry than before gives a
// finding. Jobs that no route wants any more are held until one does again,
// and refusals under another fingerprint (of config and version) are forgotten
// and their jobs tried again. An interrupted call is made good by the next.
func (j *Journal) Configure(ctx context.Context, registries []Registry, routes []Route, fingerprint, actor string) ([]replicator.Finding, error) {
	var findings []replicator.Finding
	unwanted := map[int64]bool{}
	err := j.write(ctx, true, func(b *batch) error {
		clear(unwanted)
		var err error
		if findings, err = b.configure(registries, fingerprint, actor); err != nil {
			return fmt.Errorf("configure: %w", err)
		}
		for id, e := range b.cat.edges {
			if !isWanted(b.cat, e, registries, routes) {
				unwanted[id] = true
			}
		}
		b.after = append(b.after, func() {
			b.j.fingerprint.Store(&fingerprint)
			b.j.unwanted.Store(&unwanted)
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	c := j.catalog.Load()
	for _, id := range slices.Sorted(maps.Keys(c.edges)) {
		states := []stateCode{held, refused}
		if unwanted[id] {
			states = []stateCode{waiting, failed, refused}
		}
		for _, state := range states {
			if err := j.reconsider(ctx, id, state, unwanted[id]); err != nil {
				return findings, fmt.Errorf("configure: %w", err)
			}
		}
	}
	return findings, nil
}

func (b *batch) configure(registries []Registry, fingerprint, actor string) ([]replicator.Finding, error) {
	stood := map[string]int64{}
	err := b.each(sqlNames, nil, func(scan scanner) error {
		var name string
		var id int64
		err := scan(&name, &id)
		stood[name] = id
		return err
	})
	if err != nil {
		return nil, err
	}
	var findings []replicator.Finding
	for _, r := range registries {
		id, err := b.registry(r.Identity, r.Name)
		if err != nil {
			return nil, err
		}
		before, known := stood[r.Name]
		if known && before == id {
			continue
		}
		if err := b.exec(sqlSetName, r.Name, id); err != nil {
			return nil, err
		}
		if !known {
			continue
		}
		f := replicator.Finding{Kind: replicator.FindingIdentityChanged, At: b.at(), Registry: r.Name,
			Message: fmt.Sprintf("registry %s was %s and is now %s: it starts unproven",
				r.Name, b.cat.registries[before].identity, r.Identity),
			Hint: "if this is another address of the same registry, let a full sweep prove it again; else undo the change"}
		if err := b.tell(f); err != nil {
			return nil, err
		}
		findings = append(findings, f)
	}
	if err := b.exec(sqlDropStaleRefusals, fingerprint); err != nil {
		return nil, err
	}
	b.anyRefusal = 0
	b.due = true
	return findings, b.audit(AuditEntry{Actor: actor, Action: "config.load", Target: fingerprint})
}

// isWanted tells whether some route of the config wants the edge's jobs: it
// joins these very registries, not only their names.
func isWanted(c *catalog, e edge, registries []Registry, routes []Route) bool {
	identity := func(name string) string {
		for _, r := range registries {
			if r.Name == name {
				return r.Identity
			}
		}
		return ""
	}
	src, dst := c.registries[e.src].identity, c.registries[e.dst].identity
	for _, w := range e.wants {
		for _, r := range routes {
			if r.Name != w.Route {
				continue
			}
			from := identity(r.From)
			for _, name := range r.Destinations {
				to := identity(name)
				joins := from == src && to == dst || e.flow == replicator.TwoWay && from == dst && to == src
				if name == w.Destination && joins {
					return true
				}
			}
		}
	}
	return false
}

// reconsider holds, frees or retries an edge's rows of one state, a page per commit.
func (j *Journal) reconsider(ctx context.Context, edge int64, state stateCode, hold bool) error {
	for _, lane := range replicator.Lanes {
		var last int64
		for more := true; more; {
			from := last
			err := j.write(ctx, true, func(b *batch) error {
				if err := b.flush(); err != nil {
					return err
				}
				ids, err := b.stateIDs(edge, state, lane, from)
				if err != nil {
					return err
				}
				more = len(ids) == pageRows
				for _, id := range ids {
					last = id
					r, err := b.byNumber(id)
					if err != nil {
						return err
					}
					if err := b.reconsider(r, hold); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *batch) reconsider(r *row, hold bool) error {
	switch {
	case r == nil:
		return errors.New("a job is gone") // rows are only ever removed by Prune, long after they ended
	case hold:
		r.state, r.heldBy = held, heldByConfig
	case r.state == held && r.heldBy == heldByConfig:
		r.state, r.heldBy, r.next = waiting, "", b.now
	case r.state == refused:
		_, remembered, err := b.refusal(r.key.dst, r.key.dstRepository, r.digest)
		if err != nil || remembered {
			return err
		}
		r.state, r.next, r.attempts, r.first, r.err = waiting, b.now, 0, 0, jobError{}
	default:
		return nil
	}
	b.change(r)
	return nil
}
