package journal

import (
	"context"
	"fmt"
	"slices"

	"github.com/twinport/twinport/replicator"
)

const (
	maxLocations = 4 // repositories of a registry kept for a digest
	maxLocated   = 1 << 14
)

type locationKey struct {
	registry           int64
	repository, digest string
}

// Locations are up to 4 repositories of a registry that were seen to hold a
// blob, newest first: candidates for a mount, which may refuse.
func (j *Journal) Locations(ctx context.Context, identity, digest string) ([]string, error) {
	c, err := j.names(ctx)
	if err != nil {
		return nil, err
	}
	var list []string
	err = each(ctx, j.reads, sqlLocations, []any{c.identities[identity], digest}, func(scan scanner) error {
		var repository string
		var at int64
		err := scan(&repository, &at)
		if len(list) < maxLocations {
			list = append(list, repository)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read locations: %w", err)
	}
	return list, nil
}

// ForgetLocation takes back a location that turned out wrong.
func (j *Journal) ForgetLocation(ctx context.Context, l replicator.Location) error {
	return j.write(ctx, true, func(b *batch) error {
		id, ok := b.cat.identities[l.Place.Identity]
		if !ok {
			return nil
		}
		if err := b.exec(sqlDropLocation, id, string(l.Digest), l.Place.Repository); err != nil {
			return fmt.Errorf("forget location: %w", err)
		}
		b.forgetLocated()
		return nil
	})
}

// saveLocation keeps the newest few of a digest. What was saved lately is not
// written again: a base layer is seen with every image.
func (b *batch) saveLocation(l replicator.Location) error {
	if err := checkPlace(l.Place); err != nil {
		return fmt.Errorf("location: %w", err)
	}
	id, err := b.registry(l.Place.Identity, l.Place.Registry)
	if err != nil {
		return err
	}
	key := locationKey{id, l.Place.Repository, clip(string(l.Digest), maxName)}
	if _, ok := b.j.located[key]; ok {
		return nil
	}
	known, err := b.repositoriesOf(key)
	if err != nil {
		return err
	}
	for i := maxLocations - 1; i < len(known); i++ {
		if err := b.exec(sqlDropLocation, id, key.digest, known[i]); err != nil {
			return fmt.Errorf("drop location: %w", err)
		}
		delete(b.j.located, locationKey{id, known[i], key.digest})
	}
	if err := b.exec(sqlSaveLocation, id, key.digest, key.repository, b.now); err != nil {
		return fmt.Errorf("write location: %w", err)
	}
	b.locations = append(b.locations, key)
	if ahead := (locationKey{registry: id, digest: key.digest}); b.held[ahead] != nil {
		b.held[ahead] = append([]string{key.repository}, known[:min(len(known), maxLocations-1)]...)
	}
	return nil
}

// repositoriesOf are the others that are known to hold a digest, newest first.
func (b *batch) repositoriesOf(key locationKey) ([]string, error) {
	if ahead, ok := b.held[locationKey{registry: key.registry, digest: key.digest}]; ok {
		return slices.DeleteFunc(slices.Clone(ahead), func(r string) bool { return r == key.repository }), nil
	}
	known := make([]string, 0, maxLocations)
	err := b.each(sqlLocations, []any{key.registry, key.digest}, func(scan scanner) error {
		var repository string
		var at int64
		err := scan(&repository, &at)
		if repository != key.repository {
			known = append(known, repository)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read locations: %w", err)
	}
	return known, nil
}

// rememberLocations notes what was saved lately, once it is committed.
func (j *Journal) rememberLocations(keys []locationKey) {
	if len(j.located)+len(keys) > maxLocated {
		clear(j.located)
	}
	for _, k := range keys {
		j.located[k] = struct{}{}
	}
}

func (b *batch) forgetLocated() {
	clear(b.j.located)
	b.held = nil
	b.locations = b.locations[:0]
}
