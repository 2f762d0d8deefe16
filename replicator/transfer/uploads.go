package transfer

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// landedMax bounds how many blobs' places are remembered, landedEach how
	// many repositories of each.
	landedMax  = 50_000
	landedEach = 2
	// waitStep is how often a copy that waits for another's upload looks whether
	// that moves on.
	waitStep = 15 * time.Second
)

// A blobKey names a blob at a registry.
type blobKey struct {
	identity string
	digest   digest.Digest
}

// uploads are those under way: one of a digest per registry at a time. It also
// remembers where blobs have landed, as hints.
type uploads struct {
	mu      sync.Mutex
	running map[blobKey]*uploading
	landed  map[blobKey][]string
	order   []blobKey // of landed, oldest first
}

// An uploading is one upload that others may wait for.
type uploading struct {
	key   blobKey
	repo  string
	bytes atomic.Int64
	done  chan struct{}
	ok    bool // set before done is closed
}

// enter gives the turn to upload a blob to a registry, or the repository where
// another copy has just landed it. Before it waits it calls waits, and tick as
// the other moves on.
func (u *uploads) enter(ctx context.Context, key blobKey, repo string, waits, tick func()) (turn *uploading, landed string, err error) {
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
	if ok {
		u.remember(t.key, t.repo)
	}
	u.mu.Lock()
	delete(u.running, t.key)
	u.mu.Unlock()
	t.ok = ok
	close(t.done)
}

// remember notes that a repository has a blob.
func (u *uploads) remember(key blobKey, repo string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.landed == nil {
		u.landed = make(map[blobKey][]string)
	}
	repos, known := u.landed[key]
	if !known {
		u.order = append(u.order, key)
		if len(u.order) > landedMax {
			delete(u.landed, u.order[0])
			u.order = u.order[1:]
		}
	}
	kept := []string{repo}
	for _, r := range repos {
		if r != repo && len(kept) < landedEach {
			kept = append(kept, r)
		}
	}
	u.landed[key] = kept
}

// places are the repositories a blob is believed to be in, latest first.
func (u *uploads) places(key blobKey) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.landed[key]...)
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
	repos, known := u.landed[key]
	if !known {
		return
	}
	var kept []string
	for _, r := range repos {
		if r != repo {
			kept = append(kept, r)
		}
	}
	u.landed[key] = kept
}
