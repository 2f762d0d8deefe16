package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

// Depart notes tags that a listing of their source, made at a time, lacks. One
// that is known already has been missing for longer by what lies between the
// two listings, but by most at most: a clock may have jumped, or nobody looked.
// Another digest or source is another departure.
func (j *Journal) Depart(ctx context.Context, list []replicator.Departure, at time.Time, most time.Duration) error {
	return j.write(ctx, true, func(b *batch) error {
		for i := range list {
			if err := b.depart(&list[i], micros(at), most.Microseconds()); err != nil {
				return fmt.Errorf("note a departure: %w", err)
			}
		}
		return nil
	})
}

func (b *batch) depart(d *replicator.Departure, at, most int64) error {
	k, err := b.departureKey(d)
	if err != nil {
		return err
	}
	src, err := b.registry(d.Source.Identity, d.Source.Registry)
	if err != nil {
		return err
	}
	was, known, err := b.departure(k)
	if err != nil {
		return err
	}
	now := departureRow{departureKey: k, src: src, srcRepository: d.Source.Repository, digest: string(d.Digest), since: at, seen: at}
	if known && was.digest == now.digest && was.src == src && was.srcRepository == now.srcRepository {
		now.since, now.held = was.since, was.held
		now.absent = was.absent + min(max(at-was.seen, 0), most)
	}
	return b.saveDeparture(&now)
}

// A departureKey names one tag that one route may remove.
type departureKey struct {
	route           string
	registry        int64
	repository, tag string
}

func (k departureKey) args(more ...any) []any {
	return append([]any{k.route, k.registry, k.repository, k.tag}, more...)
}

// A departureRow is a departure as the database keeps it; begun is when its
// removal was begun, 0 before, replica and epoch whose removal it is.
type departureRow struct {
	departureKey
	src                        int64
	srcRepository, digest      string
	since, seen, absent, begun int64
	held, replica              string
	epoch                      int64
}

func (b *batch) departureKey(d *replicator.Departure) (departureKey, error) {
	if err := errors.Join(checkPlace(d.Destination), checkPlace(d.Source)); err != nil {
		return departureKey{}, err
	}
	if d.Tag == "" || len(d.Tag) > maxName || d.Digest == "" || len(d.Digest) > maxName || d.Route == "" || len(d.Route) > maxName {
		return departureKey{}, fmt.Errorf("tag %.64q of route %.64q is no departure", d.Tag, d.Route)
	}
	registry, err := b.registry(d.Destination.Identity, d.Destination.Registry)
	return departureKey{d.Route, registry, d.Destination.Repository, d.Tag}, err
}

func (b *batch) departure(k departureKey) (departureRow, bool, error) {
	var r departureRow
	found := false
	err := b.each(sqlDeparture, k.args(), func(scan scanner) error {
		found = true
		return r.scan(scan)
	})
	return r, found, err
}

func (r *departureRow) scan(scan scanner) error {
	return scan(&r.route, &r.registry, &r.repository, &r.tag, &r.src, &r.srcRepository, &r.digest, &r.since, &r.seen, &r.absent, &r.held, &r.begun)
}

func (b *batch) saveDeparture(r *departureRow) error {
	b.anyDeparted = 2
	return b.exec(sqlSaveDeparture, r.args(r.src, r.srcRepository, r.digest, r.since, r.seen, r.absent, r.held, r.begun, r.replica, r.epoch)...)
}

func (r *departureRow) departure(c *catalog) replicator.Departure {
	return replicator.Departure{
		Route: r.route, Destination: c.place(r.registry, r.repository), Tag: r.tag,
		Source: c.place(r.src, r.srcRepository), Digest: digest.Digest(r.digest),
		Since: fromMicros(r.since), SeenAt: fromMicros(r.seen), Absent: time.Duration(r.absent) * time.Microsecond,
		Held: r.held, Begun: r.begun != 0,
	}
}

// Return forgets what a route had noted of a repository and no listing since
// before has missed: the tags are back.
func (j *Journal) Return(ctx context.Context, route string, destination replicator.Place, before time.Time) error {
	c, err := j.names(ctx)
	if err != nil {
		return err
	}
	args := []any{route, c.identities[destination.Identity], destination.Repository, micros(before)}
	var n int64
	found, err := one(ctx, j.reads, sqlUnseenDeparture, args, &n)
	if err != nil {
		return fmt.Errorf("read departures: %w", err)
	}
	if !found {
		return nil
	}
	return j.write(ctx, true, func(b *batch) error {
		if err := b.exec(sqlDropUnseen, args...); err != nil {
			return fmt.Errorf("forget departures: %w", err)
		}
		return nil
	})
}

// returned forgets that a tag was missing: it is pushed again.
func (b *batch) returned(registry int64, repository, tag string) error {
	if b.anyDeparted == 0 {
		b.anyDeparted = 1
		err := b.each(sqlAnyDeparture, nil, func(scanner) error {
			b.anyDeparted = 2
			return nil
		})
		if err != nil {
			return fmt.Errorf("read departures: %w", err)
		}
	}
	if tag == "" || b.anyDeparted == 1 {
		return nil
	}
	if err := b.exec(sqlDropReturned, registry, repository, tag); err != nil {
		return fmt.Errorf("forget a departure: %w", err)
	}
	return nil
}

// Departure is what a route has noted of one tag; false where nothing is.
func (j *Journal) Departure(ctx context.Context, route string, destination replicator.Place, tag string) (replicator.Departure, bool, error) {
	c, err := j.names(ctx)
	if err != nil {
		return replicator.Departure{}, false, err
	}
	list, err := j.departures(ctx, c, sqlDeparture, route, c.identities[destination.Identity], destination.Repository, tag)
	if err != nil || len(list) == 0 {
		return replicator.Departure{}, false, err
	}
	return list[0], true, nil
}

// Departures lists what a route has noted of a destination after one tag of a
// repository, sorted bytewise by repository and tag; limit 0 means 1,000,
// which is also the most.
func (j *Journal) Departures(ctx context.Context, route, identity, repository, tag string, limit int) ([]replicator.Departure, error) {
	c, err := j.names(ctx)
	if err != nil {
		return nil, err
	}
	return j.departures(ctx, c, sqlDepartures, route, c.identities[identity], repository, tag, pageSize(limit, maxPage))
}

func (j *Journal) departures(ctx context.Context, c *catalog, query string, args ...any) ([]replicator.Departure, error) {
	var list []replicator.Departure
	err := each(ctx, j.reads, query, args, func(scan scanner) error {
		var r departureRow
		err := r.scan(scan)
		list = append(list, r.departure(c))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read departures: %w", err)
	}
	return list, nil
}

// DueDepartures counts the tags that listings since a time have missed, that
// are known to be missing for at least grace, and that nothing holds.
func (j *Journal) DueDepartures(ctx context.Context, route, identity string, since time.Time, grace time.Duration) (n int64, err error) {
	return j.countDepartures(ctx, sqlDueDepartures, route, identity, micros(since), grace.Microseconds())
}

// DepartureCounts counts what a route has noted of a destination, and what of
// it was kept when its grace had passed.
func (j *Journal) DepartureCounts(ctx context.Context, route, identity string) (all, held int64, err error) {
	c, err := j.names(ctx)
	if err != nil {
		return 0, 0, err
	}
	if _, err := one(ctx, j.reads, sqlDepartureCounts, []any{route, c.identities[identity]}, &all, &held); err != nil {
		return 0, 0, fmt.Errorf("count departures: %w", err)
	}
	return all, held, nil
}

// ProvenTags counts a route's trusted records of tags at a destination.
func (j *Journal) ProvenTags(ctx context.Context, route, identity string) (n int64, err error) {
	c, err := j.names(ctx)
	if err != nil {
		return 0, err
	}
	return j.countDepartures(ctx, sqlProvenTags, route, identity, c.registries[c.identities[identity]].trust)
}

func (j *Journal) countDepartures(ctx context.Context, query, route, identity string, more ...any) (n int64, err error) {
	c, err := j.names(ctx)
	if err != nil {
		return 0, err
	}
	args := append([]any{route, c.identities[identity]}, more...)
	if _, err := one(ctx, j.reads, query, args, &n); err != nil {
		return 0, fmt.Errorf("count departures: %w", err)
	}
	return n, nil
}

// TagsOf lists the tags of a repository that are on record, and trusted, as
// naming a digest, after one; limit 0 means 1,000, which is also the most.
func (j *Journal) TagsOf(ctx context.Context, place replicator.Place, d digest.Digest, after string, limit int) ([]string, error) {
	c, err := j.names(ctx)
	if err != nil {
		return nil, err
	}
	r, ok := c.registries[c.identities[place.Identity]]
	if !ok {
		return nil, nil
	}
	var tags []string
	err = each(ctx, j.reads, sqlTagsOf, []any{string(d), r.id, place.Repository, after, r.trust, pageSize(limit, maxPage)}, func(scan scanner) error {
		var tag string
		err := scan(&tag)
		tags = append(tags, tag)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read who names %s: %w", d, err)
	}
	return tags, nil
}

// pruneDepartures drops what no listing has seen for long: of routes and
// repositories that are no more.
func (j *Journal) pruneDepartures(ctx context.Context, before time.Time) error {
	var last departureKey
	for {
		var page []departureKey
		args := last.args(micros(before), pageRows)
		err := each(ctx, j.reads, sqlOldDepartures, args, func(scan scanner) error {
			var k departureKey
			err := scan(&k.route, &k.registry, &k.repository, &k.tag)
			page = append(page, k)
			return err
		})
		if err != nil {
			return fmt.Errorf("prune departures: %w", err)
		}
		if len(page) == 0 {
			return nil
		}
		last = page[len(page)-1]
		err = j.write(ctx, true, func(b *batch) error {
			for _, k := range page {
				if err := b.exec(sqlDropDeparture, k.args()...); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("prune departures: %w", err)
		}
	}
}
