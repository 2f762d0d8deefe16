package sweep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// noCreated stands for an image that tells no time: it was asked.
var noCreated = time.Unix(0, 0).UTC()

// maxConfig bounds an image's config; the largest seen in the wild are some
// hundred KiB.
const maxConfig = 4 << 20

// choose keeps of the wanted tags those whose age the route wants. It holds the
// newest alone in memory, whatever the number of tags.
func (c *comparison) choose(ctx context.Context, wanted *listing, newest int) (*listing, error) {
	chosen := &listing{dir: c.TempDir}
	tags, err := wanted.read()
	if err != nil {
		return chosen, err
	}
	var best []replicator.DatedTag
	ageless := 0
	for more := true; more; {
		var next []oci.Tag
		if next, more, err = take(tags, batch); err != nil {
			return chosen, err
		}
		portion, err := c.date(ctx, best, next, chosen)
		if err != nil {
			return chosen, err
		}
		choices, err := c.chosen(ctx, &portion)
		if err != nil {
			return chosen, err
		}
		best = best[:0:0]
		for i, choice := range choices {
			tag := portion[i]
			switch {
			case !choice.Kept:
				c.skip(Skipped{Repository: c.name, Tag: tag.Name, Digest: tag.Digest, Reason: choice.Reason})
				continue
			case choice.NoAge:
				ageless++
			case newest > 0:
				best = append(best, tag)
				continue
			}
			if err := chosen.add(undated(tag)); err != nil {
				return chosen, err
			}
		}
	}
	for _, tag := range best {
		if err := chosen.add(undated(tag)); err != nil {
			return chosen, err
		}
	}
	if ageless > 0 {
		c.find(replicator.Finding{
			Kind: replicator.FindingConfig, Repository: c.name,
			Message: fmt.Sprintf("nothing tells the age of %d tags of %s/%s, so maxAge and newest keep them", ageless, c.SourceName, c.name),
			Hint:    "leave them out by tags.exclude, or push images whose config tells when they were created",
		})
	}
	return chosen, nil
}

func undated(tag replicator.DatedTag) oci.Tag {
	return oci.Tag{Name: tag.Name, Digest: tag.Digest, PushedAt: tag.ListedAt}
}

// date puts the next tags, with what is known of their ages, beside the best so
// far; what travels with a subject is chosen at once.
func (c *comparison) date(ctx context.Context, best []replicator.DatedTag, next []oci.Tag, chosen *listing) ([]replicator.DatedTag, error) {
	var open []int // those whose age depends on what they name
	gone := make([]bool, len(next))
	companion := make([]bool, len(next))
	for i, tag := range next {
		if _, _, companion[i] = oci.CompanionSubject(tag.Name); companion[i] {
			if err := chosen.add(tag); err != nil {
				return nil, err
			}
		} else if tag.PushedAt.IsZero() && tag.Digest == "" {
			open = append(open, i)
		}
	}
	err := c.askSource(ctx, len(open), func(i int) *oci.Tag { return &next[open[i]] }, func(i int) { gone[open[i]] = true })
	if err != nil {
		return nil, err
	}
	portion := append([]replicator.DatedTag(nil), best...)
	place := replicator.Place{Registry: c.SourceName, Identity: c.Source.Identity(), Repository: c.name}
	for i, tag := range next {
		if gone[i] || companion[i] {
			continue
		}
		dated := replicator.DatedTag{Name: tag.Name, Digest: tag.Digest, ListedAt: tag.PushedAt}
		if c.FirstSeen != nil && tag.PushedAt.IsZero() {
			if dated.SeenAt, err = c.FirstSeen(ctx, place, tag.Name, tag.Digest); err != nil {
				return nil, fmt.Errorf("first sight of %s:%s: %w", place, tag.Name, err)
			}
		}
		portion = append(portion, dated)
	}
	return portion, nil
}

// chosen asks the rules, and asks again once the images have told when they
// were created, where that matters. Tags that cannot be asked now leave the
// portion: the source was not seen whole.
func (c *comparison) chosen(ctx context.Context, portion *[]replicator.DatedTag) ([]replicator.TagChoice, error) {
	tags := *portion
	choices := c.Rules.SelectTags(c.Route, tags, c.Now())
	var group errgroup.Group
	group.SetLimit(heads)
	failed := make([]error, len(tags))
	asked := false
	for i, choice := range choices {
		if !choice.WantsCreated || !tags[i].Created.IsZero() {
			continue
		}
		asked = true
		group.Go(func() error {
			tags[i].Created, failed[i] = createdAt(ctx, c.source, tags[i])
			return nil
		})
	}
	_ = group.Wait() // nobody returns one
	if err := context.Cause(ctx); err != nil || !asked {
		return choices, err
	}
	kept := tags[:0]
	for i, tag := range tags {
		if failed[i] != nil {
			c.sourceFailed(fmt.Errorf("age of %s/%s:%s: %w", c.SourceName, c.name, tag.Name, failed[i]))
			c.sweep.source.heard(failed[i])
			continue
		}
		kept = append(kept, tag)
	}
	*portion = kept
	return c.Rules.SelectTags(c.Route, kept, c.Now()), nil
}

// createdAt reads when an image was created: from its config, for an index from
// its first child's. What tells none gives noCreated; an error is one that may
// pass.
func createdAt(ctx context.Context, repo oci.Repository, tag replicator.DatedTag) (time.Time, error) {
	reference := tag.Digest.String()
	if reference == "" {
		reference = tag.Name
	}
	at, err := createdOf(ctx, repo, reference, 0)
	for _, lasting := range []error{oci.ErrNotFound, oci.ErrMismatch, oci.ErrUnsupported, oci.ErrInvalid, oci.ErrTooLarge} {
		if errors.Is(err, lasting) {
			return noCreated, nil
		}
	}
	if err == nil && at.IsZero() {
		at = noCreated
	}
	return at, err
}

func createdOf(ctx context.Context, repo oci.Repository, reference string, depth int) (time.Time, error) {
	m, err := repo.FetchManifest(ctx, reference)
	if err != nil {
		return time.Time{}, err
	}
	refs, err := oci.ParseReferences(m)
	if err != nil {
		return time.Time{}, err
	}
	if len(refs.Manifests) > 0 {
		if depth == oci.MaxDepth {
			return time.Time{}, oci.ErrInvalid
		}
		return createdOf(ctx, repo, refs.Manifests[0].Digest.String(), depth+1)
	}
	annotated, err := time.Parse(time.RFC3339, refs.Annotations[v1.AnnotationCreated])
	if err != nil {
		annotated = time.Time{}
	}
	var doc struct {
		Config *v1.Descriptor `json:"config"`
	}
	if err := json.Unmarshal(m.Bytes, &doc); err != nil || doc.Config == nil {
		return annotated, nil
	}
	if doc.Config.Size > maxConfig || doc.Config.MediaType == v1.MediaTypeEmptyJSON {
		return annotated, nil
	}
	at, err := createdInConfig(ctx, repo, *doc.Config)
	if err == nil && at.IsZero() {
		at = annotated.UTC() // what is no image may tell it there
	}
	return at, err
}

func createdInConfig(ctx context.Context, repo oci.Repository, desc v1.Descriptor) (_ time.Time, err error) {
	body, err := repo.Fetch(ctx, desc)
	if err != nil {
		return time.Time{}, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	data, err := io.ReadAll(io.LimitReader(oci.NewHashingReader(body, desc), maxConfig+1))
	if err != nil {
		return time.Time{}, err
	}
	var config struct {
		Created *time.Time `json:"created"`
	}
	if json.Unmarshal(data, &config) != nil || config.Created == nil {
		return time.Time{}, nil // an artifact's config tells what it likes
	}
	return config.Created.UTC(), nil
}
