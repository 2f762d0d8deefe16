package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// removals is how many tags of one repository are removed at once.
	removals = 8
	// departurePage is how many departures are read at a time.
	departurePage = 500
	// weedAtMost is by how much what is due may exceed what may go, for what is
	// held for good to be sorted out first.
	weedAtMost = 10_000
	// lookAgain is how many tags that were held are looked at again in one run.
	lookAgain = 200
)

// Deletions are what one run has carried over to the destinations of a route.
type Deletions struct {
	Removed int64
	// Errors are what could not be asked or removed, and is tried again.
	Errors error
}

// carry removes what is gone at a route's source for longer than its grace,
// after a sweep that has listed the whole source; failed are the destinations
// that could not be compared. Each destination stands for itself.
func (n *departing) carry(ctx context.Context, failed map[string]error) Deletions {
	var out Deletions
	for _, to := range n.route.To {
		if failed[to] != nil {
			continue
		}
		c := n.carrier(to)
		err := c.run(ctx)
		out.Removed += c.removed.Load()
		if err != nil {
			out.Errors = errors.Join(out.Errors, fmt.Errorf("carry deletions over to %s: %w", to, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return out
}

// A carrier carries deletions over to one destination, in one run.
type carrier struct {
	*departing
	reg *Registry
	src *Registry
	// show, in a plan, is told what would become of each tag; nothing is removed.
	show    func(replicator.Departure, keeping)
	removed atomic.Int64
	// spare is how many more than those that were due one run may remove: tags
	// that were held and are not any more.
	spare atomic.Int64

	mu sync.Mutex
	// refusal is why the registry removes nothing for us: the rest is not tried.
	refusal error
}

func (n *departing) carrier(to string) *carrier {
	return &carrier{departing: n, reg: n.st.Registries[to], src: n.st.Registries[n.route.From]}
}

// errEnough ends a run whose config or pause has changed meanwhile.
var errEnough = errors.New("the config was loaded anew, or the route paused")

func (c *carrier) run(ctx context.Context) error {
	identity := c.reg.Client.Identity()
	all, _, err := c.journal.DepartureCounts(ctx, c.route.Name, identity)
	if err != nil || all == 0 {
		return err
	}
	if err := c.allowed(ctx); errors.Is(err, errEnough) {
		return nil
	} else if err != nil {
		return err
	}
	within, err := c.withinCap(ctx, identity)
	if err != nil || !within {
		return err
	}
	again := 0
	var errs []error
	err = c.each(ctx, identity, func(page []replicator.Departure) error {
		page = slices.DeleteFunc(page, func(d replicator.Departure) bool {
			switch {
			case d.Begun:
				return false // whatever became of it has to be found out
			case d.SeenAt.Before(c.began.Truncate(time.Microsecond)), d.Absent < c.grace:
				return true
			case d.Held != "":
				again++
				return again > lookAgain
			}
			return false
		})
		for len(page) > 0 {
			cut := slices.IndexFunc(page, func(d replicator.Departure) bool { return d.Destination.Repository != page[0].Destination.Repository })
			if cut < 0 {
				cut = len(page)
			}
			if err := c.repository(ctx, page[:cut]); err != nil {
				if errors.Is(err, errEnough) || ctx.Err() != nil {
					return err
				}
				errs = append(errs, err)
			}
			page = page[cut:]
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return errors.Join(append(errs, err)...)
}

// allowed gives errEnough where the route is paused, the config has changed or
// one of the two registries does not answer.
func (c *carrier) allowed(ctx context.Context) error {
	if c.State() != c.st {
		return errEnough
	}
	paused, err := c.journal.Paused(ctx)
	if err != nil {
		return err
	}
	for _, r := range []*Registry{c.src, c.reg} {
		if _, down := r.Gate.Down(); down {
			return errEnough
		}
	}
	if paused[c.route.Name] {
		return errEnough
	}
	return nil
}

// each walks the departures of the destination, a page at a time.
func (c *carrier) each(ctx context.Context, identity string, f func([]replicator.Departure) error) error {
	repository, tag := "", ""
	for {
		page, err := c.journal.Departures(ctx, c.route.Name, identity, repository, tag, departurePage)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return nil
		}
		last := page[len(page)-1]
		repository, tag = last.Destination.Repository, last.Tag
		if err := f(page); err != nil {
			return err
		}
	}
}

// kept writes down why a tag is kept, and tells a person.
func (c *carrier) kept(ctx context.Context, d replicator.Departure, k keeping) error {
	if c.show != nil {
		c.show(d, k)
		return nil
	}
	if !k.quiet {
		c.held(replicator.Finding{
			Registry: d.Destination.Registry, Repository: d.Destination.Repository, Tag: d.Tag, Digest: d.Digest,
			Message: fmt.Sprintf("%s:%s is gone at %s since %s and is kept: %s",
				d.Destination, d.Tag, d.Source.Registry, d.Since.UTC().Format(time.RFC3339), k.why),
			Hint: k.hint,
		})
	}
	if k.forget && !d.Begun {
		return c.journal.ForgetDeparture(ctx, d)
	}
	return c.journal.HoldDeparture(ctx, d, k.why)
}

// repository removes tags of one repository: those of companions first, since
// they go with their subjects. Right before, the source's tags are listed anew,
// and one of them has to be there: a source that answers 404 to everything has
// lost its tongue, not its tags.
func (c *carrier) repository(ctx context.Context, tags []replicator.Departure) error {
	bySource := make(map[replicator.Place][]replicator.Departure)
	var sources []replicator.Place
	for _, d := range tags {
		if bySource[d.Source] == nil {
			sources = append(sources, d.Source)
		}
		bySource[d.Source] = append(bySource[d.Source], d)
	}
	for _, source := range sources {
		if source.Identity != c.src.Client.Identity() {
			continue // of a registry that the name stood for once
		}
		if err := c.sourced(ctx, source, bySource[source]); err != nil {
			return err
		}
	}
	return nil
}

func (c *carrier) sourced(ctx context.Context, source replicator.Place, tags []replicator.Departure) error {
	present, err := c.listed(ctx, source, tags)
	if err != nil {
		return err
	}
	if present == nil {
		return nil // told already
	}
	var companions, others []replicator.Departure
	for _, d := range tags {
		switch _, _, companion := oci.CompanionSubject(d.Tag); {
		case present[d.Tag]:
			if c.show == nil {
				if err := c.journal.ForgetDeparture(ctx, d); err != nil {
					return err
				}
			}
		case companion:
			companions = append(companions, d)
		default:
			others = append(others, d)
		}
	}
	for _, list := range [][]replicator.Departure{companions, others} {
		going := make(map[string]bool, len(others))
		for _, d := range others {
			going[d.Tag] = true
		}
		var g errgroup.Group
		g.SetLimit(removals)
		errs := make([]error, len(list))
		for i, d := range list {
			g.Go(func() error {
				if errs[i] = c.allowed(ctx); errs[i] == nil {
					errs[i] = c.tag(ctx, d, going)
				}
				return nil
			})
		}
		_ = g.Wait() // each tag's error is kept beside the others'
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// witnesses is how many tags a source is asked for until one is there.
const witnesses = 3

// listed lists the source repository's tags and tells which of some are among
// them; nil where the listing proves nothing.
func (c *carrier) listed(ctx context.Context, source replicator.Place, tags []replicator.Departure) (map[string]bool, error) {
	asked := make(map[string]bool, len(tags))
	for _, d := range tags {
		asked[d.Tag] = true
	}
	repo := c.src.Client.Repository(source.Repository)
	present := make(map[string]bool)
	var some []string
	for tag, err := range repo.Tags(oci.WithMark(ctx, nil)) {
		if errors.Is(err, oci.ErrRepositoryUnknown) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("list tags of %s: %w", source, err)
		}
		if asked[tag.Name] {
			present[tag.Name] = true
		}
		if len(some) < witnesses && oci.CheckTag(tag.Name) == nil {
			some = append(some, tag.Name)
		}
	}
	for _, tag := range some {
		_, err := repo.Resolve(ctx, tag)
		if err == nil {
			return present, nil
		}
		if !errors.Is(err, oci.ErrNotFound) {
			return nil, fmt.Errorf("ask for %s:%s: %w", source, tag, err)
		}
	}
	why := "lists no tag of it, or has no such repository"
	if len(some) > 0 {
		why = "lists tags of it and gives none of them"
	}
	place := tags[0].Destination
	c.held(replicator.Finding{
		Registry: place.Registry, Repository: place.Repository,
		Message: fmt.Sprintf("tags of %s are gone at %s, which %s: nothing is removed", place, source, why),
		Hint:    "look at the source and its address: was it emptied, or does something before it answer in its place?",
	})
	if c.show != nil {
		for _, d := range tags {
			c.show(d, keeping{why: "the source " + why})
		}
	}
	return nil, nil
}

// refused tells whether the registry has refused to remove anything before.
func (c *carrier) refused() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusal
}

func (c *carrier) refuse(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusal = err
}

// warn is for what went wrong and is tried again by the next run.
func (c *carrier) warn(what string, d replicator.Departure, err error) {
	c.log.Warn(what, zap.String("component", "deletion"), zap.String("route", c.route.Name),
		zap.String("destination", d.Destination.String()), zap.String("tag", d.Tag), zap.Error(err))
}
