package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

// Record is what is proven of a tag (or of a digest, for what has no tag), and
// trusted; false where nothing is.
func (j *Journal) Record(ctx context.Context, identity, repository, reference string) (replicator.Record, bool, error) {
	c, err := j.names(ctx)
	if err != nil {
		return replicator.Record{}, false, err
	}
	return record(ctx, j.reads, c, identity, repository, reference)
}

func record(ctx context.Context, db queryer, c *catalog, identity, repository, reference string) (replicator.Record, bool, error) {
	r, ok := c.registries[c.identities[identity]]
	if !ok {
		return replicator.Record{}, false, nil
	}
	list, err := records(ctx, db, c, sqlRecord, r.id, repository, reference, r.trust)
	if err != nil || len(list) == 0 {
		return replicator.Record{}, false, err
	}
	return list[0], true, nil
}

// Records lists the trusted records of a repository's tags after one, sorted
// bytewise by tag; limit 0 means 1,000, which is also the most.
func (j *Journal) Records(ctx context.Context, identity, repository, after string, limit int) ([]replicator.Record, error) {
	return j.recordsAfter(ctx, sqlRecords, identity, repository, after, limit)
}

// UntaggedRecords is Records for what is wanted by digest alone, sorted by digest.
func (j *Journal) UntaggedRecords(ctx context.Context, identity, repository, after string, limit int) ([]replicator.Record, error) {
	return j.recordsAfter(ctx, sqlUntaggedRecords, identity, repository, after, limit)
}

func (j *Journal) recordsAfter(ctx context.Context, query, identity, repository, after string, limit int) ([]replicator.Record, error) {
	c, err := j.names(ctx)
	if err != nil {
		return nil, err
	}
	r, ok := c.registries[c.identities[identity]]
	if !ok {
		return nil, nil
	}
	return records(ctx, j.reads, c, query, r.id, repository, after, r.trust, pageSize(limit, maxPage))
}

func records(ctx context.Context, db queryer, c *catalog, query string, args ...any) ([]replicator.Record, error) {
	var list []replicator.Record
	err := each(ctx, db, query, args, func(scan scanner) error {
		rec, err := scanRecord(c, scan)
		list = append(list, rec)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	return list, nil
}

// scanRecord reads recordColumns; more is read before them.
func scanRecord(c *catalog, scan scanner, more ...any) (replicator.Record, error) {
	var dst, src, pushed, proven, referrers, wrote, unconfirmed int64
	var repository, srcRepository, d string
	var rec replicator.Record
	err := scan(append(more, &dst, &repository, &rec.Tag, &d, &src, &srcRepository, &rec.Route, &pushed, &proven, &referrers,
		&wrote, &rec.Bytes, &unconfirmed)...)
	rec.Destination, rec.Source = c.place(dst, repository), c.place(src, srcRepository)
	rec.Digest = digest.Digest(d)
	rec.PushedAt, rec.ProvenAt, rec.ReferrersAt = fromMicros(pushed), fromMicros(proven), fromMicros(referrers)
	rec.Wrote, rec.Unconfirmed = wrote != 0, unconfirmed != 0
	return rec, err
}

// maxHolders bounds how many records of one digest are looked at.
const maxHolders = 100

// Holders lists the places that are on record, and trusted, as holding a
// digest whole, whatever tag names it there: each once, at most 100.
func (j *Journal) Holders(ctx context.Context, d digest.Digest) ([]replicator.Place, error) {
	if d == "" {
		return nil, nil
	}
	c, err := j.names(ctx)
	if err != nil {
		return nil, err
	}
	var places []replicator.Place
	err = each(ctx, j.reads, sqlRecordsOfDigest, []any{string(d), maxHolders}, func(scan scanner) error {
		var trust int64
		rec, err := scanRecord(c, scan, &trust)
		place := rec.Destination
		if err == nil && trust == c.registries[c.identities[place.Identity]].trust && !slices.Contains(places, place) {
			places = append(places, place)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read who holds %s: %w", d, err)
	}
	return places, nil
}

// RecordRepositories lists the repositories of a registry that have records
// after one, sorted bytewise; whether those are trusted Records tells.
func (j *Journal) RecordRepositories(ctx context.Context, identity, after string, limit int) ([]string, error) {
	c, err := j.names(ctx)
	if err != nil {
		return nil, err
	}
	var list []string
	for len(list) < pageSize(limit, maxPage) {
		found, err := one(ctx, j.reads, sqlNextRecordRepository, []any{c.identities[identity], after}, &after)
		if err != nil {
			return nil, fmt.Errorf("list repositories: %w", err)
		}
		if !found {
			break
		}
		list = append(list, after)
	}
	return list, nil
}

// RouteRecords gives some of the records that a route wrote at a registry,
// trusted or not.
func (j *Journal) RouteRecords(ctx context.Context, route, identity string, limit int) ([]replicator.Record, error) {
	c, err := j.names(ctx)
	if err != nil {
		return nil, err
	}
	return records(ctx, j.reads, c, sqlRouteRecords, route, c.identities[identity], pageSize(limit, maxPage))
}

// renamePage is how many records are renamed in one commit.
const renamePage = 2000

// RenameRoute gives the records that one route wrote at a registry to another.
func (j *Journal) RenameRoute(ctx context.Context, from, to, identity string) (n int64, err error) {
	for changed := int64(renamePage); changed == renamePage; n += changed {
		err := j.write(ctx, true, func(b *batch) error {
			registry, err := b.registry(identity, "")
			if err == nil {
				changed, err = b.execCount(sqlRenameRoute, clip(to, maxName), from, registry, renamePage)
			}
			return err
		})
		if err != nil {
			return n, fmt.Errorf("rename the route of records: %w", err)
		}
	}
	return n, nil
}

// SaveRecords writes what was found to be right, in one commit.
func (j *Journal) SaveRecords(ctx context.Context, list []replicator.Record) error {
	return j.write(ctx, true, func(b *batch) error {
		for i := range list {
			if err := b.saveRecord(&list[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *batch) saveRecord(rec *replicator.Record) error {
	if err := errors.Join(checkPlace(rec.Destination), checkPlace(rec.Source)); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	ref := rec.Tag
	if ref == "" {
		ref = string(rec.Digest)
	}
	if ref == "" || len(ref) > maxName || len(rec.Digest) > maxName {
		return fmt.Errorf("record: no reference %.64q", ref)
	}
	dst, err := b.registry(rec.Destination.Identity, rec.Destination.Registry)
	if err != nil {
		return err
	}
	src, err := b.registry(rec.Source.Identity, rec.Source.Registry)
	if err != nil {
		return err
	}
	err = b.exec(sqlSaveRecord, dst, rec.Destination.Repository, ref, rec.Tag, string(rec.Digest), src,
		rec.Source.Repository, rec.Route, micros(rec.PushedAt), micros(rec.ProvenAt), micros(rec.ReferrersAt),
		flag(rec.Wrote), rec.Bytes, flag(rec.Unconfirmed), b.cat.registries[dst].trust)
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

// Void forgets the records and locations of repositories.
func (j *Journal) Void(ctx context.Context, places []replicator.Place) error {
	return j.write(ctx, true, func(b *batch) error {
		for _, p := range places {
			if err := b.void(p); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *batch) void(p replicator.Place) error {
	id, ok := b.cat.identities[p.Identity]
	if !ok {
		return nil
	}
	if err := b.exec(sqlVoidRecords, id, p.Repository); err != nil {
		return fmt.Errorf("void records: %w", err)
	}
	if err := b.exec(sqlVoidLocations, id, p.Repository); err != nil {
		return fmt.Errorf("void locations: %w", err)
	}
	b.forgetLocated()
	if b.j.shared != nil {
		b.ownCatalog() // so that other replicas forget, too
	}
	return nil
}

// Distrust makes none of a registry's records count until proven again.
func (j *Journal) Distrust(ctx context.Context, identity string) error {
	return j.write(ctx, true, func(b *batch) error { return b.distrust(identity) })
}

func (b *batch) distrust(identity string) error {
	id, ok := b.cat.identities[identity]
	if !ok {
		return nil
	}
	r := b.cat.registries[id]
	if err := b.row(sqlDistrust, []any{id}, &r.trust); err != nil {
		return fmt.Errorf("distrust: %w", err)
	}
	b.ownCatalog().setRegistry(r)
	return nil
}
