package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
)

// What a tag's history says of our own writing and removal of it, and of what
// somebody else had removed before.
const (
	causeCopied   = "copied"
	causeDeleted  = "deleted with the source"
	causeVanished = "found deleted"
)

// stillThere bounds how often, and after how long, a registry that has removed
// a tag is asked for it again.
const (
	stillThereTries = 3
	stillThereWait  = 500 * time.Millisecond
)

// facts gathers what the journal and the config know of a tag.
func (c *carrier) facts(ctx context.Context, d replicator.Departure) (tagFacts, error) {
	f := tagFacts{digest: d.Digest, source: d.Source, route: d.Route, begun: d.Begun}
	f.selected, f.why = c.st.Rules.Selects(d.Route, d.Source.Repository)
	if f.selected {
		f.selected, f.why = c.st.Rules.SelectsTag(d.Route, d.Tag)
	}
	if name, err := c.st.Rules.Destination(d.Route, d.Source.Repository); f.selected && (err != nil || name != d.Destination.Repository) {
		f.selected, f.why = false, "it is given another name there by now"
	}
	f.oneWay = c.st.Rules.Flow(d.Route, d.Destination.Registry, d.Source.Repository, d.Tag) == replicator.OneWay
	f.sharing = c.st.Rules.Sharing(d.Route, d.Source, d.Destination, d.Tag)
	var companion bool
	f.subject, f.fallback, companion = oci.CompanionSubject(d.Tag)
	_, f.deleter = c.reg.Client.Repository(d.Destination.Repository).(oci.TagDeleter)
	var err error
	if f.record, f.known, err = c.journal.Record(ctx, d.Destination.Identity, d.Destination.Repository, d.Tag); err != nil {
		return f, err
	}
	if f.wrote = f.record.Wrote; f.known && !f.wrote {
		// What was proven again after a loss of trust is known as found; history
		// knows that we put it there.
		states, err := c.journal.History(ctx, d.Destination.Identity, d.Destination.Repository, d.Tag, nil, 1)
		if err != nil {
			return f, err
		}
		f.wrote = len(states) == 1 && states[0].Digest == d.Digest && states[0].Cause == causeCopied
	}
	if companion && !f.fallback {
		names, err := c.journal.TagsOf(ctx, d.Destination, f.subject, "", 1)
		if err != nil {
			return f, err
		}
		f.subjectStays = len(names) > 0
	}
	return f, nil
}

// tag removes one tag from the destination, or tells why not. going are the
// tags of the repository that are to go in the same run.
func (c *carrier) tag(ctx context.Context, d replicator.Departure, going map[string]bool) error {
	if err := c.refused(); err != nil {
		return c.kept(ctx, d, keptFor(err))
	}
	f, err := c.facts(ctx, d)
	if err != nil {
		return err
	}
	if f.subjectStays {
		if f.subjectStays, err = c.stays(ctx, d.Destination, f.subject, going); err != nil {
			return err
		}
	}
	if k := keep(f); k != (keeping{}) {
		return c.kept(ctx, d, k)
	}
	// Looked at before anything is begun, and again right before the tag goes.
	back, err := c.look(ctx, d, &f)
	if err != nil {
		return err
	}
	if back != "" {
		return c.returned(ctx, d, back)
	}
	if f.dropped {
		if f.referrers, err = c.referrersLeft(ctx, d, going); err != nil {
			return err
		}
	}
	switch k := keep(f); {
	case k != keeping{}:
		return c.kept(ctx, d, k)
	case d.Held != "" && c.spare.Add(-1) < 0:
		// It is held no more, and not counted among those due.
		return c.kept(ctx, d, keeping{why: "one run removes no more", quiet: true})
	case c.show != nil && f.present == "":
		return nil // it is gone there, too, which a run writes down
	case c.show != nil:
		c.show(d, keeping{})
		return nil
	}
	return c.remove(ctx, d, f)
}

// stays tells whether some tag of the repository that does not go names a digest.
func (c *carrier) stays(ctx context.Context, place replicator.Place, named digest.Digest, going map[string]bool) (bool, error) {
	after := ""
	for {
		tags, err := c.journal.TagsOf(ctx, place, named, after, 0)
		if err != nil || len(tags) == 0 {
			return false, err
		}
		for _, tag := range tags {
			if !going[tag] {
				return true, nil
			}
		}
		after = tags[len(tags)-1]
	}
}

// look asks both registries for the tag: the source has to answer that there is
// none, and gives back what it names where there is one.
func (c *carrier) look(ctx context.Context, d replicator.Departure, f *tagFacts) (back digest.Digest, err error) {
	source, err := c.src.Client.Repository(d.Source.Repository).FetchManifest(ctx, d.Tag)
	switch {
	case err == nil:
		return source.Digest, nil
	case errors.Is(err, oci.ErrRepositoryUnknown):
		return "", fmt.Errorf("%s has just listed %s and says now that there is none: %w", c.src.Name, d.Source.Repository, oci.ErrInterrupted)
	case !errors.Is(err, oci.ErrNotFound):
		return "", fmt.Errorf("ask the source for %s:%s: %w", d.Source, d.Tag, err)
	}
	repo := c.reg.Client.Repository(d.Destination.Repository)
	desc, err := repo.Resolve(ctx, d.Tag)
	if err != nil && !errors.Is(err, oci.ErrNotFound) {
		return "", fmt.Errorf("ask the destination for %s:%s: %w", d.Destination, d.Tag, err)
	}
	f.looked, f.present = true, desc.Digest
	deleter, _ := repo.(oci.TagDeleter)
	f.dropped = f.present == d.Digest && deleter.DropsUntagged()
	return "", nil
}

// referrersLeft counts what refers to a digest that the registry would drop with
// its last tag; 0 where another tag names it still.
func (c *carrier) referrersLeft(ctx context.Context, d replicator.Departure, going map[string]bool) (int, error) {
	others := make(map[string]bool, len(going)+1)
	for tag := range going {
		others[tag] = true
	}
	others[d.Tag] = true
	if stays, err := c.stays(ctx, d.Destination, d.Digest, others); err != nil || stays {
		return 0, err
	}
	n := 0
	repo := c.reg.Client.Repository(d.Destination.Repository)
	for _, tag := range oci.CosignTags(d.Digest) {
		_, left, err := c.journal.Record(ctx, d.Destination.Identity, d.Destination.Repository, tag)
		if err != nil {
			return 0, err
		}
		if left {
			n++
		}
	}
	for _, err := range repo.Referrers(ctx, d.Digest) {
		if errors.Is(err, oci.ErrUnsupported) {
			listed, err := c.listedReferrers(ctx, repo, d.Digest)
			return n + listed, err
		}
		if errors.Is(err, oci.ErrNotFound) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("ask for the referrers of %s at %s: %w", d.Digest, d.Destination, err)
		}
		n++
	}
	return n, nil
}

// listedReferrers counts those of the fallback index, where there is no API.
func (c *carrier) listedReferrers(ctx context.Context, repo oci.Repository, subject digest.Digest) (int, error) {
	index, err := repo.FetchManifest(ctx, oci.FallbackTag(subject))
	if errors.Is(err, oci.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the referrers of %s: %w", subject, err)
	}
	refs, err := oci.ParseReferences(index)
	if err != nil {
		return 0, fmt.Errorf("read the referrers of %s: %w", subject, err)
	}
	return len(refs.Manifests), nil
}

// returned forgets a departure whose tag the source has again, and queues it:
// its record may have been given up.
func (c *carrier) returned(ctx context.Context, d replicator.Departure, now digest.Digest) error {
	if c.show != nil {
		return nil
	}
	if err := c.journal.ForgetDeparture(ctx, d); err != nil {
		return err
	}
	return c.push(ctx, d, now)
}

func (c *carrier) push(ctx context.Context, d replicator.Departure, named digest.Digest) error {
	now := c.now()
	return c.acceptPatiently(ctx, []replicator.Event{{
		Action: replicator.Push, Registry: c.src.Name, Repository: d.Source.Repository, Tag: d.Tag, Digest: named,
		PushedAt: now, ReceivedAt: now, Lane: replicator.LaneSweep, Cause: "back at the source", Destinations: []string{d.Destination.Registry},
	}})
}

// remove takes the tag away. What ends the process at any point leaves either
// the record as it was, or a departure that is known to have begun.
func (c *carrier) remove(ctx context.Context, d replicator.Departure, f tagFacts) error {
	record, err := c.journal.BeginDeletion(ctx, d)
	if errors.Is(err, journal.ErrInUse) {
		return nil // pushed meanwhile, or on its way: the next run looks again
	}
	if err != nil {
		return err
	}
	// What was begun is ended whoever is in a hurry meanwhile.
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closingWrite)
	defer cancel()
	back, err := c.look(ctx, d, &f)
	switch k := keep(f); {
	case err != nil:
		return errors.Join(err, c.journal.AbandonDeletion(closing, d, record, ""))
	case back != "":
		return errors.Join(c.journal.AbandonDeletion(closing, d, record, ""), c.returned(ctx, d, back))
	case k != keeping{}:
		return errors.Join(c.journal.AbandonDeletion(closing, d, record, k.why), c.kept(ctx, d, k))
	case f.present == "":
		return c.finished(closing, d, causeVanished)
	}
	return c.removeNow(ctx, closing, d, record)
}

func (c *carrier) removeNow(ctx, closing context.Context, d replicator.Departure, record replicator.Record) error {
	repo := c.reg.Client.Repository(d.Destination.Repository)
	until := c.journal.LeaseUntil().Add(-leaseMargin)
	if c.now().After(until) {
		return errors.Join(fmt.Errorf("the lease has ended: %w", oci.ErrInterrupted), c.journal.AbandonDeletion(closing, d, record, ""))
	}
	request, cancel := context.WithDeadline(ctx, until)
	err := repo.(oci.TagDeleter).DeleteTag(request, d.Tag)
	cancel()
	present, lookErr := c.after(closing, repo, d)
	switch {
	case lookErr != nil:
		return errors.Join(err, lookErr, c.journal.LeaveDeletion(closing, d))
	case present == "":
		if err := c.finished(closing, d, causeDeleted); err != nil {
			return err
		}
		return c.afterwards(closing, d)
	case refusesDeletes(err) || err == nil || errors.Is(err, oci.ErrNotFound):
		if err == nil || errors.Is(err, oci.ErrNotFound) {
			err = &oci.RegistryError{
				Registry: c.reg.Name, Operation: "DELETE tag " + d.Destination.Repository + ":" + d.Tag, Kind: oci.ErrUnsupported,
				Message: "the registry says that it is gone, and has it", Hint: "delete it by hand at the destination",
			}
		}
		if errors.Is(err, oci.ErrUnsupported) || errors.Is(err, oci.ErrDenied) {
			c.refuse(err) // and it would not remove another
		}
		k := keptFor(err)
		return errors.Join(c.journal.AbandonDeletion(closing, d, record, k.why), c.kept(closing, d, k))
	}
	c.warn("remove a tag", d, err)
	return errors.Join(fmt.Errorf("remove %s:%s: %w", d.Destination, d.Tag, err), c.journal.AbandonDeletion(closing, d, record, ""))
}

// after asks what the tag names once it was removed; a registry may take a
// moment to say that it is gone.
func (c *carrier) after(ctx context.Context, repo oci.Repository, d replicator.Departure) (digest.Digest, error) {
	for try := 1; ; try++ {
		desc, err := repo.Resolve(ctx, d.Tag)
		switch {
		case errors.Is(err, oci.ErrNotFound):
			return "", nil
		case err != nil:
			return "", fmt.Errorf("ask the destination for %s:%s: %w", d.Destination, d.Tag, err)
		case try == stillThereTries:
			return desc.Digest, nil
		}
		t := time.NewTimer(stillThereWait)
		select {
		case <-ctx.Done():
			t.Stop()
			return "", context.Cause(ctx)
		case <-t.C:
		}
	}
}

// refusesDeletes tells whether a registry has refused for good.
func refusesDeletes(err error) bool {
	return errors.Is(err, oci.ErrUnsupported) || errors.Is(err, oci.ErrDenied) || errors.Is(err, oci.ErrRefused) ||
		errors.Is(err, oci.ErrImmutable) || errors.Is(err, oci.ErrInvalid) || errors.Is(err, oci.ErrMismatch)
}

// keptFor puts a registry's refusal into words.
func keptFor(err error) keeping {
	k := keeping{why: "the registry does not remove it: " + bounded(err.Error()), hint: "delete it by hand at the destination"}
	var refused *oci.RegistryError
	if errors.As(err, &refused) && refused.Hint != "" {
		k.hint = refused.Hint
	}
	return k
}

// finished writes down that a tag is gone from the destination.
func (c *carrier) finished(ctx context.Context, d replicator.Departure, cause string) error {
	now := c.now()
	entry := journal.AuditEntry{
		At: now, Actor: "route " + d.Route, Action: "tag.delete", Target: d.Destination.String() + ":" + d.Tag,
		Detail: fmt.Sprintf("%s, %s: gone at %s since %s", d.Digest, cause, d.Source, d.Since.UTC().Format(time.RFC3339)),
	}
	if err := c.journal.FinishDeletion(ctx, d, now, cause, entry); err != nil {
		return err
	}
	if cause != causeDeleted {
		return nil
	}
	c.removed.Add(1)
	c.journey.deleted(d.Route, d.Destination.Registry)
	c.log.Info("deleted", zap.String("component", "deletion"), zap.String("route", d.Route), zap.String("source", d.Source.String()),
		zap.String("destination", d.Destination.String()), zap.String("tag", d.Tag), zap.String("digest", d.Digest.String()))
	return nil
}

// afterwards looks whether the removal took more than the tag, and whether the
// source has the tag again: then it is copied at once.
func (c *carrier) afterwards(ctx context.Context, d replicator.Departure) error {
	others, err := c.journal.TagsOf(ctx, d.Destination, d.Digest, "", 1)
	if err != nil {
		return err
	}
	for _, tag := range others {
		_, err := c.reg.Client.Repository(d.Destination.Repository).Resolve(ctx, tag)
		if !errors.Is(err, oci.ErrNotFound) {
			continue
		}
		c.refuse(fmt.Errorf("with %s it has removed %s too, which names the same image", d.Tag, tag))
		c.held(replicator.Finding{
			Registry: d.Destination.Registry, Repository: d.Destination.Repository, Tag: tag, Digest: d.Digest,
			Message: fmt.Sprintf("%s has removed %s with %s, which names the same image; it is copied again, and nothing more is removed there now", d.Destination, tag, d.Tag),
			Hint:    "use `deletes: keep` with this registry: it removes no tag alone",
		})
		lost, err := c.void(ctx, c.st, d.Destination)
		c.addFindings(ctx, []replicator.Finding{lost})
		if err != nil {
			return err
		}
	}
	desc, err := c.src.Client.Repository(d.Source.Repository).Resolve(ctx, d.Tag)
	if err != nil {
		return nil // as it was; or the next sweep's to see
	}
	return c.push(ctx, d, desc.Digest)
}
