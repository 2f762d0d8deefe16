package sweep

import (
	"context"
	"fmt"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// Departed are tags that are on record at one destination as coming from a
// source repository whose listing lacks them.
type Departed struct {
	// Destination is the registry's name in the config, Place the repository there.
	Destination      string
	SourceRepository string
	Place            replicator.Place
	// Records are those of the tags, in byte order, at most 256; they are of
	// whatever route, as long as it is this source's.
	Records []replicator.Record
	// Empty: the source lists no tag at all in the repository, or has no such
	// repository. Nothing follows from that.
	Empty bool
	// Last: all records of the repository have been held against the listing.
	Last bool
}

// departed holds the records of the repository at each destination against the
// source's listing as it came, before any choice by age: what falls out of
// newest or maxAge is still there. wanted is nil where the source has no such
// repository.
func (c *comparison) departed(ctx context.Context, wanted *listing, listed int, started time.Time) error {
	if c.Departed == nil || c.OnlyTag != "" {
		return nil
	}
	for _, d := range c.destinations {
		place := replicator.Place{Registry: d.Name, Identity: d.Registry.Identity(), Repository: c.target}
		if err := c.departedAt(ctx, d.Name, place, wanted, listed, started); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) departedAt(ctx context.Context, name string, place replicator.Place, wanted *listing, listed int, started time.Time) error {
	tags := &reader{}
	if wanted != nil {
		var err error
		if tags, err = wanted.read(); err != nil {
			return err
		}
	}
	source := c.Source.Identity()
	told := Departed{Destination: name, SourceRepository: c.name, Place: place, Empty: listed == 0}
	tag, more, err := tags.next()
	for after := ""; err == nil; {
		var page []replicator.Record
		page, err = c.Records.Records(ctx, place.Identity, place.Repository, after, recordPage)
		if err != nil {
			return fmt.Errorf("records of %s: %w", place, err)
		}
		for _, record := range page {
			for more && err == nil && tag.Name < record.Tag {
				tag, more, err = tags.next()
			}
			if err != nil {
				return err
			}
			after = record.Tag
			// What was proven while we listed may have been pushed meanwhile.
			if more && tag.Name == record.Tag || record.Source.Identity != source || record.Source.Repository != c.name || !record.ProvenAt.Before(started) {
				continue
			}
			if ok, _ := c.Rules.SelectsTag(c.Route, record.Tag); !ok {
				continue // a filter that was narrowed says nothing of the source
			}
			if told.Records = append(told.Records, record); len(told.Records) == batch {
				if err := c.tellDeparted(ctx, told); err != nil {
					return err
				}
				told.Records = nil
			}
		}
		if len(page) < recordPage {
			break
		}
	}
	if err != nil {
		return err
	}
	told.Last = true
	return c.tellDeparted(ctx, told)
}

func (s *sweep) tellDeparted(ctx context.Context, d Departed) error {
	s.callbacks <- struct{}{}
	defer func() { <-s.callbacks }()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := s.Departed(ctx, d); err != nil {
		return fmt.Errorf("note what %s no longer has of %s: %w", s.SourceName, d.SourceRepository, err)
	}
	return nil
}

// isTag tells whether a line of a listing counts as one.
func isTag(tag oci.Tag) bool { return oci.CheckTag(tag.Name) == nil }
