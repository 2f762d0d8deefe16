package transfer

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// chunkSize is the unit of memory, in bytes.
	chunkSize = 256 << 10
	// smallSize is the largest blob that is held whole until it has arrived: what
	// can be sent again is sent without asking for leave, a round trip sooner.
	smallSize   = 2 << 20
	smallChunks = smallSize / chunkSize
)

// A chunk is a piece of a blob, kept while references to it last.
type chunk struct {
	buf   []byte
	n     int
	small bool // of a blob that is held whole
	refs  atomic.Int32
}

// A pool is the memory of all blobs on their way. Chunks are made when first
// needed and used again. What is read ahead of its turn is promised in its first
// five eighths only, and blobs that are held whole have as much at most; windows
// grow in its first three quarters, each by no more than stays free of that; the
// rest is for flights that hold one chunk or none, so that stalled ones leave
// others enough to go on.
type pool struct {
	total int
	mu    sync.Mutex
	free  []*chunk
	left  int // not made yet
	// promised are those of them that were reserved and not taken yet.
	promised int
	small    int // in use, by blobs that are held whole
	waiters  []*poolWaiter
}

type poolWaiter struct {
	n     int
	small bool
	held  *atomic.Int32
	ready chan struct{}
}

func newPool(chunks int) *pool { return &pool{total: chunks, left: chunks} }

// allows tells whether a holder of so many may have n more; the lock is held.
func (p *pool) allows(n int, small bool, held int32) bool {
	free := p.spare()
	switch {
	case small && p.small > 0 && p.small+n > p.total*5/8:
		return false
	case held == 0:
		return free >= n
	case held == 1:
		return free-n >= p.total/4
	}
	return int(held)+n <= free-p.total/4
}

// spare is how many chunks are neither in use nor promised; the lock is held.
func (p *pool) spare() int { return len(p.free) + p.left - p.promised }

// reserve promises n chunks for what is not needed yet, and tells whether it
// could: each is taken or given up later.
func (p *pool) reserve(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spare()-n < p.total*3/8 {
		return false
	}
	p.promised += n
	return true
}

// reserved gives a promised chunk.
func (p *pool) reserved() *chunk {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.promised--
	return p.give()
}

// giveUp ends n promises.
func (p *pool) giveUp(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.promised -= n
	if n > 0 {
		p.wake()
	}
}

// give takes a chunk that is there; the lock is held.
func (p *pool) give() *chunk {
	var c *chunk
	if last := len(p.free) - 1; last >= 0 {
		c = p.free[last]
		p.free = p.free[:last]
	} else {
		c = &chunk{buf: make([]byte, chunkSize)}
		p.left--
	}
	c.refs.Store(1)
	c.n, c.small = 0, false
	return c
}

// try gives n chunks at once (appended to to), or none.
func (p *pool) try(to []*chunk, n int, small bool, held *atomic.Int32) []*chunk {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.allows(n, small, held.Load()) {
		return nil
	}
	for range n {
		c := p.give()
		c.small = small
		to = append(to, c)
	}
	if small {
		p.small += n
	}
	held.Add(int32(n))
	return to
}

// waitMax bounds one wait for memory: whoever waits looks again whether its own
// readers have left some to give back.
const waitMax = 100 * time.Millisecond

// wait returns when n chunks may have become free, after waitMax, or with
// ctx's end.
func (p *pool) wait(ctx context.Context, n int, small bool, held *atomic.Int32) error {
	w := &poolWaiter{n: n, small: small, held: held, ready: make(chan struct{})}
	p.mu.Lock()
	if p.allows(n, small, held.Load()) {
		p.mu.Unlock()
		return nil
	}
	p.waiters = append(p.waiters, w)
	p.mu.Unlock()
	look := time.NewTimer(waitMax)
	defer look.Stop()
	select {
	case <-w.ready:
		return nil
	case <-look.C:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.waiters, w); i >= 0 {
		p.waiters = slices.Delete(p.waiters, i, i+1)
	} else if ctx.Err() != nil {
		p.wake() // its turn goes to another
	}
	return context.Cause(ctx)
}

// release drops one reference; the last gives the chunk back.
func (p *pool) release(c *chunk) {
	if c.refs.Add(-1) > 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.small {
		p.small--
	}
	p.free = append(p.free, c)
	p.wake()
}

// wake lets the first waiter that can be served try; the lock is held.
func (p *pool) wake() {
	for i, w := range p.waiters {
		if p.allows(w.n, w.small, w.held.Load()) {
			close(w.ready)
			p.waiters = slices.Delete(p.waiters, i, i+1)
			return
		}
	}
}

// available is how many chunks nobody holds.
func (p *pool) available() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spare()
}
