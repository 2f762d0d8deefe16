package transfer

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// landedMax bounds how many blobs' places are remembered, landedEach how
	// many repositories of each.
	landedMax  = 20_000
	landedEach = 2
	// waitStep is how often a copy that waits for another's upload looks whether
	// that moves on.
	waitStep = 15 * time.Second
	// evidenceHolds is how long one copy's evidence of a blob (its 201, a granted
	// mount, a HEAD) counts for the others that bring it to the same repository.
	evidenceHolds = 10 * time.Second
)

// A blobKey names a blob at a registry.
type blobKey struct {
	identity string
	digest   digest.Digest
}

// A placeKey names a blob of one repository at a registry.
type placeKey struct {
	blobKey
	repo string
}

// uploads are those under way: one of a digest per registry at a time, and one
// bringing (upload, mount or HEAD) of a digest per repository. It also
// remembers where blobs have landed: for a moment as evidence, then as hints.
type uploads struct {
	now func() time.Time

	mu      sync.Mutex
	running map[any]*uploading // by blobKey and placeKey
	landed  map[blobKey][]landing
	order   []blobKey // of landed, oldest first
}

// A landing is a repository that had a blob at a time.
type landing struct {
	repo string
	at   time.Time
}

// An uploading is one upload that others may wait for.
type uploading struct {
	key   any
	repo  string
	bytes atomic.Int64
	done  chan struct{}
	ok    bool // set before done is closed
}

// enter gives the turn to bring a blob to a registry (key is a blobKey) or
// repository (a placeKey), or the repository where another copy has just landed
// it. Before it waits it calls waits, and tick as the other moves on.
func (u *uploads) enter(ctx context.Context, key any, repo string, waits, tick func()) (turn *uploading, landed string, err error) {
	for {
		u.mu.Lock()
		other := u.running[key]
		if other == nil {
			turn = &uploading{key: key, repo: repo, done: make(chan struct{})}
			u.running[key] = turn
			u.mu.Unlock()
			return turn, "", nil
		}
		u.mu.Unlock()
		waits()
		if err := other.wait(ctx, tick); err != nil {
			return nil, "", err
		}
		if other.ok {
			return nil, other.repo, nil
		}
	}
}

func (t *uploading) wait(ctx context.Context, tick func()) error {
	look := time.NewTicker(waitStep)
	defer look.Stop()
	seen := t.bytes.Load()
	for {
		select {
		case <-t.done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-look.C:
			if now := t.bytes.Load(); now != seen {
				seen = now
				tick()
			}
		}
	}
}

// leave ends a turn; ok: the blob is in the turn's repository.
func (u *uploads) leave(t *uploading, ok bool) {
	u.mu.Lock()
	delete(u.running, t.key)
	u.mu.Unlock()
	t.ok = ok
	close(t.done)
}

// remember notes that a repository has a blob now.
func (u *uploads) remember(key blobKey, repo string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.landed == nil {
		u.landed = make(map[blobKey][]landing)
	}
	landings, known := u.landed[key]
	if !known {
		u.order = append(u.order, key)
		if len(u.order) > landedMax {
			delete(u.landed, u.order[0])
			u.order = u.order[1:]
		}
	}
	kept := []landing{{repo, u.now()}}
	for _, l := range landings {
		if l.repo != repo && (len(kept) < landedEach || u.fresh(l)) {
			kept = append(kept, l)
		}
	}
	u.landed[key] = kept
}

func (u *uploads) fresh(l landing) bool { return u.now().Sub(l.at) < evidenceHolds }

// evident tells whether a repository had a blob a moment ago.
func (u *uploads) evident(key blobKey, repo string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, l := range u.landed[key] {
		if l.repo == repo {
			return u.fresh(l)
		}
	}
	return false
}

// places are the repositories a blob is believed to be in, latest first.
func (u *uploads) places(key blobKey) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var repos []string
	for _, l := range u.landed[key] {
		repos = append(repos, l.repo)
	}
	return repos
}

// forget drops one belief.
func (u *uploads) forget(key blobKey, repo string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.drop(key, repo)
}

// forgetRepository drops all beliefs about a repository: it lacked something.
func (u *uploads) forgetRepository(identity, repo string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for key := range u.landed {
		if key.identity == identity {
			u.drop(key, repo)
		}
	}
}

// drop is forget under the lock; an emptied key stays in order, and so in the map.
func (u *uploads) drop(key blobKey, repo string) {
	if landings, known := u.landed[key]; known {
		u.landed[key] = slices.DeleteFunc(landings, func(l landing) bool { return l.repo == repo })
	}
}
