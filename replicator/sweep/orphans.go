package sweep

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator/oci"
)

// A companion that a destination lacks, and whose subject it lacks too, is no
// difference of its own: it comes with its subject, or never. Registries keep
// the signatures of images whose tags have long moved on, and none of those is
// to be tried at every sweep.

// putAside keeps a companion that is missing for when the rest of the
// repository has been compared; false: there are too many.
func (c *comparison) putAside(l *line, p *pair) bool {
	if !l.companion || p.reason != Missing && p.reason != LacksRepo || c.OnlyTag != "" || len(c.aside) >= maxCompanions {
		return false
	}
	c.aside = append(c.aside, line{tag: l.tag, companion: true, fallback: l.fallback, pairs: []pair{*p}})
	return true
}

// tellAside emits the companions that were put aside, but for those whose
// subject is not at the destination and not on its way there: where anything
// else is brought to the repository, it may be part of that.
func (c *comparison) tellAside(ctx context.Context) error {
	type key struct {
		side    *side
		subject digest.Digest
	}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(heads)
	lacking, asked := make(map[key]bool), make(map[key]bool)
	for _, l := range c.aside {
		sd := l.pairs[0].side
		subject, _, _ := oci.CompanionSubject(l.tag.Name)
		k := key{sd, subject}
		switch {
		case asked[k] || sd.differs && (c.GivenUp == nil || !c.GivenUp(sd.place, subject)):
			continue
		case sd.unknown:
			lacking[k] = true
			continue
		}
		asked[k] = true
		group.Go(func() error {
			if _, err := resolve(ctx, sd.repo, subject.String()); errors.Is(err, oci.ErrNotFound) {
				mu.Lock()
				defer mu.Unlock()
				lacking[k] = true
			}
			return nil
		})
	}
	_ = group.Wait() // nobody returns one
	if err := context.Cause(ctx); err != nil {
		return err
	}
	var lines []line
	for _, l := range c.aside {
		sd := l.pairs[0].side
		subject, _, _ := oci.CompanionSubject(l.tag.Name)
		if lacking[key{sd, subject}] {
			c.skip(Skipped{Repository: c.name, Tag: l.tag.Name, Digest: l.tag.Digest,
				Reason: fmt.Sprintf("%s has no %s, which it belongs to and would come with", sd.Name, subject)})
			continue
		}
		lines = append(lines, l)
	}
	return c.tell(ctx, lines)
}
