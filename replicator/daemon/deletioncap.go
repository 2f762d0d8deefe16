package daemon

import (
	"context"
	"fmt"
	"math"

	"github.com/twinport/twinport/replicator"
)

// most is how many tags one run may remove of so many.
func most(atMost float64, proven int64) int64 {
	return max(1, int64(math.Floor(atMost*float64(proven)+1e-9)))
}

// withinCap tells whether no more tags are due than one run may remove, once
// those that are held for what the journal knows are left out.
func (c *carrier) withinCap(ctx context.Context, identity string) (bool, error) {
	proven, err := c.journal.ProvenTags(ctx, c.route.Name, identity)
	if err != nil {
		return false, err
	}
	may := most(c.route.Deletes.AtMost, proven)
	due, err := c.journal.DueDepartures(ctx, c.route.Name, identity, c.began, c.grace)
	if err != nil {
		return false, err
	}
	if due > may && due <= may+weedAtMost {
		if err := c.weed(ctx, identity); err != nil {
			return false, err
		}
		if due, err = c.journal.DueDepartures(ctx, c.route.Name, identity, c.began, c.grace); err != nil {
			return false, err
		}
	}
	if due > may {
		c.tooMany(due, may, proven)
		return false, nil
	}
	c.spare.Store(may - due)
	return true, nil
}

func (c *carrier) tooMany(due, may, proven int64) {
	c.held(replicator.Finding{
		Registry: c.reg.Name,
		Message: fmt.Sprintf("%d tags of %s are gone at %s for longer than the grace, and one run removes %d at most (atMost, of %d proven tags): nothing is removed",
			due, c.reg.Name, c.route.From, may, proven),
		Hint: "find out why so many are gone (was the source emptied, or made anew?); if they are meant to go, raise the route's deletes.mirror.atMost until they have gone",
	})
}

// weed holds what is kept whatever the registries say.
func (c *carrier) weed(ctx context.Context, identity string) error {
	return c.each(ctx, identity, func(page []replicator.Departure) error {
		for _, d := range page {
			if d.Begun || d.Held != "" || d.Absent < c.grace {
				continue
			}
			f, err := c.facts(ctx, d)
			if err != nil {
				return err
			}
			if k := keep(f); k != (keeping{}) {
				if err := c.kept(ctx, d, k); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
