package daemon

import (
	"context"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// absenceHolds is how long a listing that lacked a tag spares asking for it.
	absenceHolds = time.Minute
	// maxAbsences bounds what is remembered of them, twice.
	maxAbsences = 25_000
)

// absences remembers which destination tags a complete listing has just shown
// not to exist.
type absences struct {
	mu sync.Mutex
	// seen are those since turned, before those of as long before that: what is
	// too old for anybody is not kept.
	seen, before map[placeTag]time.Time
	turned       time.Time
}

type placeTag struct{ identity, repository, tag string }

func (a *absences) note(p replicator.Place, tag string, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen == nil || len(a.seen) >= maxAbsences || at.Sub(a.turned) >= absenceHolds {
		a.before, a.seen, a.turned = a.seen, make(map[placeTag]time.Time), at
	}
	a.seen[placeTag{p.Identity, p.Repository, tag}] = at
}

// recent tells, once, whether a listing lacked the tag a moment ago.
func (a *absences) recent(p replicator.Place, tag string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := placeTag{p.Identity, p.Repository, tag}
	at, ok := a.seen[key]
	if !ok {
		at, ok = a.before[key]
	}
	delete(a.seen, key)
	delete(a.before, key)
	return ok && now.Sub(at) < absenceHolds
}

const (
	// listingHolds is how long a listing tells which companion tags there are:
	// one pushed later is an event of its own.
	listingHolds = time.Minute
	// maxListings bounds how many repositories are remembered, maxListed how
	// many of their tags.
	maxListings = 10_000
	maxListed   = 200_000
)

// companions remembers which tags that travel with a subject a complete
// listing has just shown, so that a copy asks for none in vain.
type companions struct {
	mu   sync.Mutex
	seen map[placeTag]companionTags // by repository: no tag in the key
	held int                        // tags of all of them
}

// companionTags are hashes, sorted, since there may be very many names: two
// that have one by chance cost a request.
type companionTags struct {
	at     time.Time
	hashes []uint64
}

func hashOf(tag string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(tag)) // it takes everything
	return h.Sum64()
}

func (c *companions) listed(p replicator.Place, tags []string, at time.Time) {
	hashes := make([]uint64, len(tags))
	for i, tag := range tags {
		hashes[i] = hashOf(tag)
	}
	slices.Sort(hashes)
	key := placeTag{identity: p.Identity, repository: p.Repository}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held -= len(c.seen[key].hashes)
	if c.seen == nil || len(c.seen) >= maxListings || c.held+len(hashes) > maxListed {
		c.seen, c.held = make(map[placeTag]companionTags), 0
	}
	c.held += len(hashes)
	c.seen[key] = companionTags{at, hashes}
}

// of gives what is known of a repository's tags, nil where no listing is fresh.
func (c *companions) of(p replicator.Place, now time.Time) func(tag string) (present, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, ok := c.seen[placeTag{identity: p.Identity, repository: p.Repository}]
	if !ok || now.Sub(found.at) > listingHolds {
		return nil
	}
	return func(tag string) (present, known bool) {
		if _, _, companion := oci.CompanionSubject(tag); !companion {
			return false, false
		}
		_, present = slices.BinarySearch(found.hashes, hashOf(tag))
		return present, true
	}
}

// arrivals remembers which tags are being moved, and when their source took the
// push: where a destination is a source itself, it tells of our own move before
// the record of it is written.
type arrivals struct {
	mu     sync.Mutex
	moving map[placeTag]arrival
}

type arrival struct {
	digest   digest.Digest
	pushedAt time.Time
}

// begin notes a move; the function it gives back forgets it.
func (a *arrivals) begin(p replicator.Place, tag string, d digest.Digest, pushedAt time.Time) (end func()) {
	key := placeTag{p.Identity, p.Repository, tag}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.moving == nil {
		a.moving = make(map[placeTag]arrival)
	}
	a.moving[key] = arrival{d, pushedAt}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.moving[key].digest == d {
			delete(a.moving, key)
		}
	}
}

func (a *arrivals) pushedAt(identity, repository, tag string, d digest.Digest) (time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	found, ok := a.moving[placeTag{identity, repository, tag}]
	return found.pushedAt, ok && found.digest == d
}

// unsettled remembers since when a job's hint and its source's tag differ.
type unsettled struct {
	mu    sync.Mutex
	since map[settling]time.Time
}

type settling struct {
	job        string
	generation int64
}

// maxUnsettled bounds what is remembered: beyond it what is settled is
// forgotten, or else all, which costs some more looks.
const maxUnsettled = 10_000

// age is how long the job has been known to differ; recent says that it may
// still settle. What is too old stays so: a run asks more than once.
func (u *unsettled) age(j replicator.Job, now time.Time) (age time.Duration, recent bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	key := settling{j.ID, j.Generation}
	since, ok := u.since[key]
	if !ok {
		if len(u.since) >= maxUnsettled {
			maps.DeleteFunc(u.since, func(_ settling, since time.Time) bool { return now.Sub(since) > 2*settleFor })
		}
		if u.since == nil || len(u.since) >= maxUnsettled {
			u.since = make(map[settling]time.Time)
		}
		u.since[key], since = now, now
	}
	age = now.Sub(since)
	return age, age < settleFor
}

func (u *unsettled) recent(j replicator.Job, now time.Time) bool {
	_, recent := u.age(j, now)
	return recent
}

// A locator answers transfer's questions about where a blob is believed to be.
type locator struct {
	journal *journal.Journal
	place   replicator.Place

	mu    sync.Mutex
	known map[digest.Digest][]string
}

func newLocator(j *journal.Journal, p replicator.Place) *locator {
	return &locator{journal: j, place: p, known: make(map[digest.Digest][]string)}
}

func (l *locator) repositories(ctx context.Context, d digest.Digest) []string {
	l.mu.Lock()
	repos, ok := l.known[d]
	l.mu.Unlock()
	if ok {
		return repos
	}
	repos, err := l.journal.Locations(ctx, l.place.Identity, d.String())
	if err != nil {
		return nil // a hint only
	}
	l.mu.Lock()
	l.known[d] = repos
	l.mu.Unlock()
	return repos
}

// here tells whether the blob is believed to be in the destination itself.
func (l *locator) here(ctx context.Context, d digest.Digest) bool {
	for _, repo := range l.repositories(ctx, d) {
		if repo == l.place.Repository {
			return true
		}
	}
	return false
}

// elsewhere are other repositories of the registry to mount the blob from.
func (l *locator) elsewhere(ctx context.Context, d digest.Digest) []string {
	var others []string
	for _, repo := range l.repositories(ctx, d) {
		if repo != l.place.Repository {
			others = append(others, repo)
		}
	}
	return others
}
