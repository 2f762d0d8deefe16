package sweep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// batch is how many tags are compared, and at most emitted, at a time.
	batch = 256
	// heads is how many HEADs of one repository are under way at once.
	heads = 64
)

// A comparison is one source repository beside its twins.
type comparison struct {
	*sweep
	name, target string
	source       oci.Repository
	sides        []*side
	whole        bool // nothing has failed so far
	listed       int  // the source's tags, wanted or not
	absent       bool // the source answers that it has no such repository
	aside        []line
	refusals     refusals // of the source
}

// A side is the repository at one destination.
type side struct {
	*destination
	place   replicator.Place
	repo    oci.Repository
	started time.Time // before its tags were listed
	unknown bool      // the destination lacks the repository
	failed  bool
	silent  bool // failed, and its records are what there is to compare with
	voided  bool
	differs bool // something is to be brought there
	listing *listing
	tags    *reader
	head    oci.Tag
	more    bool
	records recordReader
}

// repository compares one repository at all destinations and tells whether all
// of it could be compared. Its error ends the sweep.
func (s *sweep) repository(ctx context.Context, name string) (whole bool, err error) {
	target, err := s.Rules.Destination(s.Route, name)
	if err != nil {
		s.find(replicator.Finding{Kind: replicator.FindingConfig, Repository: name, Message: err.Error(), Hint: "change the route's rename, or exclude the repository"})
		s.skip(Skipped{Repository: name, Reason: err.Error()})
		return true, nil
	}
	c := &comparison{sweep: s, name: name, target: target, source: s.Source.Repository(name), whole: true}
	defer func() {
		for _, sd := range c.sides {
			sd.listing.close()
		}
	}()
	// All listings are asked for side by side: one round trip, not two. A tag
	// that is left out by its name is asked for nowhere.
	if s.OnlyTag != "" {
		if ok, _ := s.Rules.SelectsTag(s.Route, s.OnlyTag); !ok {
			return true, c.want(nil, oci.Tag{Name: s.OnlyTag})
		}
	}
	var wanted *listing
	defer func() { wanted.close() }()
	sidesWhole, started := true, c.Now()
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		wanted, err = c.listSource(gctx)
		return err
	})
	group.Go(func() (err error) {
		sidesWhole, err = c.listDestinations(gctx)
		return err
	})
	if err := group.Wait(); err != nil || wanted == nil && !c.absent {
		return c.whole, err
	}
	if err := c.departed(ctx, wanted, c.listed, started); err != nil || wanted == nil {
		return c.whole, err
	}
	s.count(func(r *Result) { r.Repositories++ })
	if needed, newest := s.Rules.Ages(s.Route); needed && s.OnlyTag == "" {
		chosen, err := c.choose(ctx, wanted, newest)
		if err != nil {
			chosen.close()
			return false, err
		}
		wanted.close()
		wanted = chosen
	}
	if wanted.n == 0 {
		return c.whole, nil
	}
	c.whole = c.whole && sidesWhole
	tags, err := wanted.read()
	if err != nil {
		return false, err
	}
	for more := true; more; {
		var next []oci.Tag
		if next, more, err = take(tags, batch); err != nil {
			return false, err
		}
		if c.refusals.gaveUp() || !slices.ContainsFunc(c.sides, func(sd *side) bool { return !sd.failed || sd.silent }) {
			return false, nil
		}
		if err := c.compare(ctx, next); err != nil {
			return false, err
		}
	}
	return c.whole, c.tellAside(ctx)
}

// take reads up to n tags; more is false at the end.
func take(r *reader, n int) (tags []oci.Tag, more bool, err error) {
	for len(tags) < n {
		tag, ok, err := r.next()
		if err != nil || !ok {
			return tags, false, err
		}
		tags = append(tags, tag)
	}
	return tags, true, nil
}

// listSource collects the source's tags that the route wants; nil: the
// repository is not there, or could not be listed whole.
func (c *comparison) listSource(ctx context.Context) (*listing, error) {
	l := &listing{dir: c.TempDir}
	if c.OnlyTag != "" {
		return l, c.want(l, oci.Tag{Name: c.OnlyTag})
	}
	var companions []string
	for tag, err := range c.source.Tags(ctx) {
		if err == nil {
			err = c.want(l, tag)
			if isTag(tag) {
				c.listed++
			}
			if _, _, ok := oci.CompanionSubject(tag.Name); ok && len(companions) <= maxCompanions {
				companions = append(companions, tag.Name)
			}
		}
		var ours *spillError
		switch {
		case err == nil:
			continue
		case errors.As(err, &ours):
			return l, err
		case context.Cause(ctx) != nil:
			return l, context.Cause(ctx)
		case errors.Is(err, oci.ErrRepositoryUnknown):
			c.absent = true
			c.sweep.source.heard(nil)
			c.skip(Skipped{Repository: c.name, Reason: fmt.Sprintf("%s has no repository %s", c.SourceName, c.name)})
		default:
			c.sourceFailed(fmt.Errorf("list tags of %s/%s: %w", c.SourceName, c.name, err))
			c.sweep.source.heard(err)
		}
		l.close()
		return nil, nil
	}
	c.sweep.source.heard(nil)
	if c.Companions != nil && len(companions) <= maxCompanions {
		c.callbacks <- struct{}{}
		c.Companions(c.name, companions)
		<-c.callbacks
	}
	return l, context.Cause(ctx)
}

// sourceFailed notes that some of this repository's source was not seen.
func (c *comparison) sourceFailed(err error) {
	c.whole = false
	c.sweep.sourceFailed(err)
}

// want keeps a source tag that the route wants.
func (c *comparison) want(l *listing, tag oci.Tag) error {
	if err := oci.CheckTag(tag.Name); err != nil {
		c.skip(Skipped{Repository: c.name, Reason: err.Error()})
		return nil
	}
	if ok, reason := c.Rules.SelectsTag(c.Route, tag.Name); !ok {
		c.skip(Skipped{Repository: c.name, Tag: tag.Name, Digest: tag.Digest, Reason: reason})
		return nil
	}
	if c.Listed != nil {
		c.Listed(c.name, tag.Name)
	}
	return l.add(usable(tag))
}

// usable forgets a listing's digest that is none.
func usable(tag oci.Tag) oci.Tag {
	if tag.Digest != "" && oci.CheckDigest(tag.Digest) != nil {
		tag.Digest = ""
	}
	return tag
}

// listDestinations collects the tags of all destinations side by side. One that
// fails is left out, the others go on, and whole is false.
func (c *comparison) listDestinations(ctx context.Context) (whole bool, err error) {
	whole = true
	for _, d := range c.destinations {
		silent := d.gaveUp()
		if silent && !c.Unreached {
			whole = false
			continue
		}
		place := replicator.Place{Registry: d.Name, Identity: d.Registry.Identity(), Repository: c.target}
		c.sides = append(c.sides, &side{
			destination: d, place: place, repo: d.Registry.Repository(c.target), failed: silent, silent: silent,
			records: recordReader{records: c.Records, identity: place.Identity, repository: c.target},
		})
	}
	group, gctx := errgroup.WithContext(ctx)
	for _, sd := range c.sides {
		sd.started = c.Now()
		if !sd.silent {
			group.Go(func() error { return c.listSide(gctx, sd) })
		}
	}
	err = group.Wait()
	for _, sd := range c.sides {
		whole = whole && !sd.failed
	}
	return whole, err
}

func (c *comparison) listSide(ctx context.Context, sd *side) error {
	sd.listing = &listing{dir: c.TempDir}
	var err error
	if c.OnlyTag != "" {
		var d digest.Digest
		if d, err = resolve(ctx, sd.repo, c.OnlyTag); err == nil {
			err = sd.listing.add(oci.Tag{Name: c.OnlyTag, Digest: d})
		} else if errors.Is(err, oci.ErrNotFound) && !errors.Is(err, oci.ErrRepositoryUnknown) {
			err = nil
		}
	} else {
		for tag, fault := range sd.repo.Tags(ctx) {
			if err = fault; err != nil {
				break
			}
			// What cannot be pulled is as good as absent: a push brings it back.
			if oci.CheckTag(tag.Name) == nil && !tag.Withheld {
				if err = sd.listing.add(usable(tag)); err != nil {
					break
				}
			}
		}
	}
	var ours *spillError
	switch {
	case errors.As(err, &ours):
		return err
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case errors.Is(err, oci.ErrRepositoryUnknown):
		sd.unknown = true
		sd.listing.close()
		sd.listing = &listing{}
	case err != nil:
		c.sideFailed(sd, fmt.Errorf("list tags of %s: %w", sd.place, err))
		return nil
	}
	sd.heard(nil)
	if sd.tags, err = sd.listing.read(); err != nil {
		return err
	}
	sd.head, sd.more, err = sd.tags.next()
	return err
}

// sideFailed leaves a destination out of the rest of this comparison.
func (c *comparison) sideFailed(sd *side, err error) {
	sd.failed = true
	sd.silent = c.Unreached && errors.Is(err, oci.ErrUnreachable)
	sd.heard(err)
	c.destinationFailed(sd.Name, err)
}

// seek gives the destination's line for a tag; tags come in byte order.
func (sd *side) seek(tag string) (oci.Tag, bool, error) {
	for sd.more && sd.head.Name < tag {
		var err error
		if sd.head, sd.more, err = sd.tags.next(); err != nil {
			return oci.Tag{}, false, err
		}
	}
	return sd.head, sd.more && sd.head.Name == tag, nil
}

// resolve asks what a reference names; an answer that is no digest is ErrInvalid.
func resolve(ctx context.Context, repo oci.Repository, reference string) (digest.Digest, error) {
	desc, err := repo.Resolve(ctx, reference)
	if err == nil {
		err = oci.CheckDigest(desc.Digest)
	}
	return desc.Digest, err
}
