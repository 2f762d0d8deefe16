package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

const (
	maxTagStates  = 1000 // rows of one tag
	tagStatesTrim = 100  // each so many additions the oldest over the bound go
	keepTagStates = 11   // the current one and the last 10 stay whatever their age
	tagStatesAge  = 400 * 24 * time.Hour
)

type tagKey struct {
	registry        int64
	repository, tag string
}

type lastState struct {
	at, n  int64
	digest string
}

func checkTagState(s replicator.TagState) error {
	if err := checkPlace(s.Place); err != nil {
		return fmt.Errorf("tag state: %w", err)
	}
	if s.Tag == "" || len(s.Tag) > maxName || len(s.Digest) > maxName {
		return fmt.Errorf("tag state: no tag %.64q", s.Tag)
	}
	return nil
}

// addTagState adds a line to a tag's history. Neighbours of one digest are one
// line, from the earlier time on; lines may come in any order.
func (b *batch) addTagState(s replicator.TagState) error {
	registry, err := b.registry(s.Place.Identity, s.Place.Registry)
	if err != nil {
		return err
	}
	k := tagKey{registry, s.Place.Repository, s.Tag}
	at := micros(s.At)
	if at == 0 {
		at = b.now
	}
	last, known := b.tagStates[k]
	if !known {
		err := b.row(sqlLastTagState, []any{k.registry, k.repository, k.tag}, &last.at, &last.digest, &last.n)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("read tag history: %w", err)
		}
	}
	named := string(s.Digest)
	if seen := micros(s.SeenAt); last.n > 0 && at < last.at && last.at < seen && last.digest != named {
		at = seen
	}
	if last.n > 0 && at < last.at {
		return b.addEarlierState(k, at, named, s.Cause, last)
	}
	if last.n > 0 && last.digest == named {
		return nil
	}
	return b.insertState(k, at, named, s.Cause, last, true)
}

func (b *batch) addEarlierState(k tagKey, at int64, named, cause string, last lastState) error {
	var before string
	err := b.row(sqlTagStateBefore, []any{k.registry, k.repository, k.tag, at}, &before)
	if err == nil && before == named {
		return nil
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("read tag history: %w", err)
	}
	var next int64
	var after string
	if err := b.row(sqlTagStateAfter, []any{k.registry, k.repository, k.tag, at}, &next, &after); err != nil {
		return fmt.Errorf("read tag history: %w", err)
	}
	if after != named {
		return b.insertState(k, at, named, cause, last, false)
	}
	delete(b.tagStates, k)
	if err := b.exec(sqlMoveTagState, next, at); err != nil {
		return fmt.Errorf("write tag history: %w", err)
	}
	return nil
}

func (b *batch) insertState(k tagKey, at int64, named, cause string, last lastState, newest bool) error {
	n := last.n + 1
	err := b.exec(sqlAddTagState, b.j.ids.next(b.now), k.registry, k.repository, k.tag, at, named, clip(cause, maxName), n)
	if err != nil {
		return fmt.Errorf("write tag history: %w", err)
	}
	if newest {
		last.at, last.digest = at, named
	}
	last.n = n
	if b.tagStates == nil {
		b.tagStates = map[tagKey]lastState{}
	}
	b.tagStates[k] = last
	if n < maxTagStates || n%tagStatesTrim != 0 {
		return nil
	}
	if err := b.exec(sqlTrimTagStates, k.registry, k.repository, k.tag, maxTagStates-tagStatesTrim); err != nil {
		return fmt.Errorf("trim tag history: %w", err)
	}
	return nil
}

// History lists what a tag named, newest first; with at, from the state it had
// then. A deleted tag has an empty digest. Limit 0 means 100.
func (j *Journal) History(ctx context.Context, identity, repository, tag string, at *time.Time, limit int) ([]replicator.TagState, error) {
	c, err := j.names(ctx)
	if err != nil {
		return nil, err
	}
	registry := c.identities[identity]
	until := int64(math.MaxInt64)
	if at != nil {
		until = at.UnixMicro()
	}
	var list []replicator.TagState
	err = each(ctx, j.reads, sqlHistory, []any{registry, repository, tag, until, pageSize(limit, defaultPage)},
		func(scan scanner) error {
			s := replicator.TagState{Place: c.place(registry, repository), Tag: tag}
			var at int64
			var named string
			err := scan(&at, &named, &s.Cause)
			s.At, s.Digest = fromMicros(at), digest.Digest(named)
			list = append(list, s)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read tag history: %w", err)
	}
	return list, nil
}

// TagStates gives what each tag of a repository names now as far as is known,
// by tag in byte order, from a tag on, at most limit of them; fewer than limit
// are the last. A deleted tag has an empty digest.
func (j *Journal) TagStates(ctx context.Context, identity, repository, from string, limit int) ([]replicator.TagState, error) {
	c, err := j.names(ctx)
	if err != nil {
		return nil, err
	}
	registry := c.identities[identity]
	var list []replicator.TagState
	err = each(ctx, j.reads, sqlTagStates, []any{registry, repository, from, pageSize(limit, defaultPage)},
		func(scan scanner) error {
			s := replicator.TagState{Place: c.place(registry, repository)}
			var at int64
			var named string
			err := scan(&s.Tag, &at, &named, &s.Cause)
			s.At, s.Digest = fromMicros(at), digest.Digest(named)
			list = append(list, s)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read the states of tags: %w", err)
	}
	return list, nil
}
