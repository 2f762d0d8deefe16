package sweep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// A pair is one source tag and what is known of it at one destination.
type pair struct {
	side    *side
	here    bool          // the destination lists the tag
	present digest.Digest // what it names there, empty where the listing does not tell
	record  replicator.Record
	proven  bool // there is a record
	reason  Reason
	aside   bool // told of at the end of the repository
}

// A line is one source tag at all destinations.
type line struct {
	tag       oci.Tag
	companion bool // it travels with a subject
	fallback  bool // the tag that lists referrers where there is no API for them
	gone      bool // the source has no such tag by now, or did not say
	pairs     []pair
}

// compare takes the next tags, in byte order.
func (c *comparison) compare(ctx context.Context, tags []oci.Tag) error {
	lines := make([]line, len(tags))
	for i, tag := range tags {
		lines[i].tag = tag
		_, lines[i].fallback, lines[i].companion = oci.CompanionSubject(tag.Name)
		for _, sd := range c.sides {
			if sd.failed && !sd.silent {
				continue
			}
			p := pair{side: sd}
			if !sd.silent {
				there, here, err := sd.seek(tag.Name)
				if err != nil {
					return err
				}
				if p.here = here; here {
					p.present = there.Digest
				}
			}
			var err error
			if p.record, p.proven, err = sd.records.find(ctx, tag.Name); err != nil {
				return err
			}
			if p.proven && !p.here && !p.record.ProvenAt.Before(sd.started) {
				p.here = true // it was put there while we listed
			}
			lines[i].pairs = append(lines[i].pairs, p)
		}
	}
	if err := c.resolveSource(ctx, lines); err != nil {
		return err
	}
	for i := range lines {
		if lines[i].gone {
			continue
		}
		c.count(func(r *Result) { r.Tags++ })
		for j := range lines[i].pairs {
			p := &lines[i].pairs[j]
			if err := c.judge(ctx, &lines[i], p); err != nil {
				return err
			}
			p.aside = c.putAside(&lines[i], p)
		}
	}
	if c.Present {
		if err := c.resolvePresent(ctx, lines); err != nil {
			return err
		}
	}
	return c.tell(ctx, lines)
}

// needsDigest tells whether a line's digest is worth a HEAD. What travels with a
// subject is looked after with it (ReferrersEvery), so that a companion both
// sides list costs nothing.
func (c *comparison) needsDigest(l *line) bool {
	if l.tag.Digest != "" {
		return false
	}
	if c.Full || c.OnlyTag != "" { // whoever names a tag is told when there is none
		return true
	}
	if !l.companion {
		return !c.Unresolved || slices.ContainsFunc(l.pairs, func(p pair) bool { return p.here || p.proven })
	}
	for _, p := range l.pairs {
		if !p.here && !(l.fallback && p.proven) {
			return true
		}
	}
	return false
}

// resolveSource asks the source what the tags name that its listing left open.
func (c *comparison) resolveSource(ctx context.Context, lines []line) error {
	var open []*line
	for i := range lines {
		if c.needsDigest(&lines[i]) {
			open = append(open, &lines[i])
		}
	}
	return c.askSource(ctx, len(open), func(i int) *oci.Tag { return &open[i].tag }, func(i int) { open[i].gone = true })
}

// askSource fills in the digests of n tags by HEADs side by side, and tells of
// those it got none for; why is noted.
func (c *comparison) askSource(ctx context.Context, n int, tag func(int) *oci.Tag, gone func(int)) error {
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(heads)
	for i := range n {
		if context.Cause(ctx) != nil || c.sweep.source.gaveUp() || c.refusals.gaveUp() {
			why := fmt.Errorf("%s no longer answers", c.SourceName)
			switch {
			case c.refusals.gaveUp() && c.refusals.left.Swap(true):
				why = nil
			case c.refusals.gaveUp():
				why = fmt.Errorf("%s/%s refuses tag after tag: the rest of it is left: %w", c.SourceName, c.name, oci.ErrDenied)
			}
			mu.Lock()
			c.sourceFailed(why)
			for ; i < n; i++ {
				gone(i)
			}
			mu.Unlock()
			break
		}
		group.Go(func() error {
			t := tag(i)
			d, err := resolve(ctx, c.source, t.Name)
			if context.Cause(ctx) != nil {
				return nil
			}
			c.sweep.source.heard(err)
			news := c.refusals.heard(err)
			if err == nil {
				t.Digest = d
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			gone(i)
			switch {
			case errors.Is(err, oci.ErrNotFound):
				c.sourceLacks(t.Name)
			case news:
				c.sourceFailed(fmt.Errorf("ask %s/%s:%s: %w", c.SourceName, c.name, t.Name, err))
			default:
				c.sourceFailed(nil)
			}
			return nil
		})
	}
	_ = group.Wait() // nobody returns one
	return context.Cause(ctx)
}

// sourceLacks is for a tag that was listed and has no manifest.
func (c *comparison) sourceLacks(tag string) {
	reason := fmt.Sprintf("%s has no manifest for tag %s", c.SourceName, tag)
	c.skip(Skipped{Repository: c.name, Tag: tag, Reason: reason})
	if c.OnlyTag == "" {
		c.find(replicator.Finding{
			Kind: replicator.FindingSourceIncomplete, Repository: c.name, Tag: tag,
			Message: reason + ", though it lists it",
			Hint:    "push the tag again, or delete it; if it was deleted just now, nothing is wrong",
		})
	}
}

// judge decides what a pair is; an empty reason is in sync.
func (c *comparison) judge(ctx context.Context, l *line, p *pair) error {
	sd := p.side
	if sd.failed {
		if sd.silent {
			p.reason = c.unreached(l, p)
		}
		return nil
	}
	if sd.voided {
		p.proven = false // its records are void with the repository's
	}
	if !p.here && p.proven && !l.fallback {
		// One missing thing costs a whole registry its trust, and a listing is
		// no snapshot: so it is asked for by name.
		if err := c.confirmLoss(ctx, l, p); err != nil || sd.failed {
			return err
		}
	}
	p.reason = c.reason(l, p)
	return nil
}

// unreached decides about a pair whose destination does not answer, by what is
// on record alone; what was proven there last is believed.
func (c *comparison) unreached(l *line, p *pair) Reason {
	switch {
	case c.Full, !p.proven, p.record.ProvenAt.IsZero():
		return Unreached
	case !l.fallback && l.tag.Digest != "" && p.record.Digest != l.tag.Digest:
		return Unreached
	}
	return ""
}

func (c *comparison) confirmLoss(ctx context.Context, l *line, p *pair) error {
	sd := p.side
	if !sd.unknown && c.OnlyTag == "" {
		d, err := resolve(ctx, sd.repo, l.tag.Name)
		switch {
		case err == nil:
			p.here, p.present = true, d
			return nil
		case context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case !errors.Is(err, oci.ErrNotFound):
			c.whole = false
			c.sideFailed(sd, fmt.Errorf("ask %s:%s: %w", sd.place, l.tag.Name, err))
			return nil
		}
	}
	sd.voided, p.proven = true, false
	return c.void(ctx, sd.place)
}

func (c *comparison) reason(l *line, p *pair) Reason {
	now := c.Now()
	stale := func() bool {
		return p.proven && isDue(p.record.ProvenAt, c.Proof, now, "proof", c.name, l.tag.Name)
	}
	switch {
	case !p.here && l.fallback && p.proven && !p.record.ProvenAt.IsZero() && !c.Full:
		// A destination with a referrers API keeps no such tag.
		if stale() {
			return ProofDue
		}
		return ""
	case !p.here && p.side.unknown:
		return LacksRepo
	case !p.here:
		return Missing
	case c.Full:
		return BelievedByNone
	case l.companion:
		// A fallback tag lists what both sides have: its digests may differ.
		if !l.fallback && l.tag.Digest != "" && (p.present != "" && p.present != l.tag.Digest || p.proven && p.record.Digest != l.tag.Digest) {
			return Differs
		}
		if stale() {
			return ProofDue
		}
		return ""
	case p.present != "" && p.present != l.tag.Digest:
		return Differs
	case !p.proven:
		return NoRecord
	case p.record.ProvenAt.IsZero():
		return Unproven
	case p.record.Digest != l.tag.Digest:
		return Differs
	case stale():
		return ProofDue
	case isDue(p.record.ReferrersAt, c.ReferrersEvery, now, "referrers", c.name, l.tag.Name):
		return ReferrersDue
	}
	return ""
}

// resolvePresent asks destinations what they have where that is not known and
// the pair is not in sync.
func (c *comparison) resolvePresent(ctx context.Context, lines []line) error {
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(heads)
	for i := range lines {
		for j := range lines[i].pairs {
			p, tag := &lines[i].pairs[j], lines[i].tag.Name
			if lines[i].gone || p.reason == "" || !p.here || p.present != "" {
				continue
			}
			group.Go(func() error {
				d, err := resolve(ctx, p.side.repo, tag)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					p.present = d
					if d != lines[i].tag.Digest && lines[i].tag.Digest != "" && !lines[i].fallback && !c.Full {
						p.reason = Differs
					}
				case errors.Is(err, oci.ErrNotFound):
					p.here, p.reason = false, Missing
				case context.Cause(ctx) == nil && !p.side.failed:
					c.whole = false
					c.sideFailed(p.side, fmt.Errorf("ask %s:%s: %w", p.side.place, tag, err))
				}
				return nil
			})
		}
	}
	_ = group.Wait() // nobody returns one
	return context.Cause(ctx)
}

// tell emits what is not in sync, and counts what is. What was found before a
// destination failed is true all the same.
func (c *comparison) tell(ctx context.Context, lines []line) error {
	differences := make([]Difference, 0, batch)
	flush := func() error {
		if len(differences) == 0 {
			return nil
		}
		err := c.emit(ctx, differences)
		differences = make([]Difference, 0, batch)
		return err
	}
	inSync := int64(0)
	for _, l := range lines {
		if l.gone {
			continue
		}
		for _, p := range l.pairs {
			switch {
			case p.aside, p.reason == "" && p.side.failed:
			case p.reason == "":
				inSync++
				if c.InSync != nil {
					c.InSync(p.side.Name, c.name, l.tag.Name)
				}
			default:
				switch p.reason {
				case NoRecord, ProofDue, ReferrersDue:
				default:
					p.side.differs = true
				}
				differences = append(differences, Difference{
					Destination: p.side.Name, SourceRepository: c.name, DestinationRepository: c.target,
					Tag: l.tag.Name, Digest: l.tag.Digest, Present: p.present, PushedAt: l.tag.PushedAt, Reason: p.reason,
				})
				if len(differences) == batch {
					if err := flush(); err != nil {
						return err
					}
				}
			}
		}
	}
	c.count(func(r *Result) { r.InSync += inSync })
	return flush()
}
