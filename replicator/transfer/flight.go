package transfer

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// window is how many chunks of one blob are in memory at most; tail of them
	// may lie behind the slowest reader, for uploads that break and go on at an
	// offset the registry reports.
	window = 32
	tail   = 12
	// gateMin and gateMax bound how long a flight's first reader waits for the
	// others to get their answers.
	gateMin = 5 * time.Millisecond
	gateMax = 2 * time.Second
)

// errLagging: a destination was too slow for the others and there was no spool.
var errLagging = fmt.Errorf("the destination is too slow to share a read, and the spool has no room: %w", oci.ErrInterrupted)

// A readKey names a blob of a source registry; size is the descriptor's, so
// that a false one spoils nobody else's read.
type readKey struct {
	identity string
	digest   digest.Digest
	size     int64
}

// reads are the blobs being read from sources.
type reads struct {
	pool  *pool
	spool *spool
	great atomic.Int32 // blobs of more than wholeSize being read

	mu      sync.Mutex // taken before a flight's
	flights map[readKey]*flight
	// idle are read whole and keep memory for places that have not come yet.
	idle map[*flight]struct{}
	// first is the least time that a first byte took, by identity.
	first map[string]time.Duration
}

// nearest takes in how long a source's first byte took, and gives the least.
func (s *reads) nearest(identity string, d time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if least, ok := s.first[identity]; ok {
		d = min(d, least)
	}
	s.first[identity] = d
	return d
}

// A flight is one reading of a blob for one or more destinations. Its chunks
// go to all of them; the last one only when the blob's digest is right.
type flight struct {
	reads *reads
	key   readKey
	src   oci.Repository
	desc  v1.Descriptor
	fresh bool // use no kept connection
	small bool // held whole until everybody is done

	held atomic.Int32 // chunks, those in nobody's sight yet too
	read atomic.Int64 // bytes from the source

	mu      sync.Mutex
	changed sync.Cond
	places  []*place
	ring    [window]*chunk
	base    int64 // the first chunk in the ring
	head    int64 // behind the last one
	whole   bool  // all is there and verified
	err     error
	dead    bool
	pressed bool // memory is short: no tail is kept
	spooled *spoolFile
	gate    time.Time // until then those who have not come yet are waited for
	stop    context.CancelFunc
	ended   chan struct{} // non-nil once begun; closed when the reading goroutine has ended
}

// A place is a destination's position in a flight.
type place struct {
	f       *flight
	pos     int64 // bytes
	came    bool  // has begun to read
	entered time.Time
	spool   bool // reads from the spool file
	// detached: it had not come and was given up; it may join another flight.
	detached bool
	dropped  bool // it had come and was too slow
	gone     bool
}

// join takes a place in the flight of a blob, or in a new one.
func (s *reads) join(key readKey, src oci.Repository, desc v1.Descriptor, alone, fresh bool) *place {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flights[key]; f != nil && !alone {
		if p := f.admit(); p != nil {
			delete(s.idle, f)
			return p
		}
	}
	f := &flight{reads: s, key: key, src: src, desc: desc, fresh: fresh, small: desc.Size <= smallSize}
	f.changed.L = &f.mu
	s.flights[key] = f
	return f.admit()
}

// admit gives a place at the blob's beginning, nil when that is gone.
func (f *flight) admit() *place {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead || f.err != nil {
		return nil
	}
	p := &place{f: f, entered: time.Now()}
	if f.base > 0 {
		if f.spooled == nil || f.spooled.start > 0 {
			return nil
		}
		p.spool = true
	}
	f.places = append(f.places, p)
	return p
}

// leave gives a place up; the last one ends the flight.
func (p *place) leave() {
	f := p.f
	f.reads.mu.Lock()
	f.mu.Lock()
	if !p.gone {
		p.gone = true
		f.places = slices.DeleteFunc(f.places, func(q *place) bool { return q == p })
		f.settle()
	}
	f.mu.Unlock()
	f.reads.mu.Unlock()
	f.await()
}

// await waits for the reading goroutine of a flight that is dead.
func (f *flight) await() {
	f.mu.Lock()
	dead, ended := f.dead, f.ended
	f.mu.Unlock()
	if dead && ended != nil {
		<-ended
	}
}

// settle draws the consequences of a place's leaving; both locks are held.
func (f *flight) settle() {
	if !slices.ContainsFunc(f.places, func(p *place) bool { return p.spool }) {
		f.closeSpool()
	}
	switch {
	case f.dead:
	case len(f.places) == 0:
		f.dead = true
		if f.reads.flights[f.key] == f {
			delete(f.reads.flights, f.key)
		}
		delete(f.reads.idle, f)
		if f.stop != nil {
			f.stop()
		}
		f.clear()
	case f.whole && !slices.ContainsFunc(f.places, func(p *place) bool { return p.came }):
		f.reads.idle[f] = struct{}{}
	default:
		f.trim()
	}
	f.changed.Broadcast()
}

// clear gives all chunks back; the lock is held.
func (f *flight) clear() {
	for ; f.base < f.head; f.base++ {
		f.giveBack(f.base)
	}
}

func (f *flight) giveBack(i int64) {
	c := f.ring[i%window]
	f.ring[i%window] = nil
	f.held.Add(-1)
	f.reads.pool.release(c)
}

func (f *flight) closeSpool() {
	if f.spooled != nil {
		f.spooled.close()
		f.spooled = nil
	}
}

// trim gives back the chunks everybody has passed; the lock is held.
func (f *flight) trim() {
	if f.small && !f.dead {
		return
	}
	low := f.head
	for _, p := range f.places {
		if !p.spool {
			low = min(low, p.pos/chunkSize)
		}
	}
	if !f.pressed && !f.dead {
		low -= tail
	}
	for ; f.base < low; f.base++ {
		f.giveBack(f.base)
	}
}

// begin starts the reading when the first place comes; the lock is held.
func (f *flight) begin(ctx context.Context, p *place) {
	p.came = true
	if f.ended != nil {
		return
	}
	f.gate = time.Now().Add(min(max(time.Since(p.entered), gateMin), gateMax))
	ctx, f.stop = context.WithCancel(context.WithoutCancel(ctx))
	if f.fresh {
		ctx = oci.WithFreshConnection(ctx)
	}
	f.ended = make(chan struct{})
	go f.run(ctx)
}

// run reads the blob to its end. It ends when the last place is left.
func (f *flight) run(ctx context.Context) {
	defer close(f.ended)
	defer f.stop()
	wake := func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.changed.Broadcast()
	}
	defer context.AfterFunc(ctx, wake)()
	opening := time.AfterFunc(time.Until(f.gate), wake)
	defer opening.Stop()

	err := f.pump(ctx)
	f.reads.mu.Lock()
	defer f.reads.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.err = err
		if f.reads.flights[f.key] == f { // nobody joins a failed flight
			delete(f.reads.flights, f.key)
		}
		f.closeSpool()
		f.clear()
		f.changed.Broadcast()
		return
	}
	f.whole = true
	f.settle()
}

// pump moves the blob from the source into chunks.
func (f *flight) pump(ctx context.Context) error {
	own := int32(0) // one of up to wholeSize is not counted, and may come in pieces after a break
	if f.desc.Size > wholeSize {
		own = 1
	}
	f.reads.great.Add(own)
	defer f.reads.great.Add(-own)
	in := &blobReader{
		ctx: ctx, src: f.src, desc: f.desc, pool: f.reads.pool, read: func(n int) { f.read.Add(int64(n)) },
		others:  func() int { return int(f.reads.great.Load() - own) },
		nearest: func(d time.Duration) time.Duration { return f.reads.nearest(f.key.identity, d) },
	}
	defer in.close()
	hashed := oci.NewHashingReader(in, f.desc)
	if f.desc.Size == 0 {
		var none [1]byte
		if _, err := io.ReadFull(hashed, none[:]); err != io.EOF {
			return asSource(err)
		}
		return nil
	}
	count := int((f.desc.Size + chunkSize - 1) / chunkSize)
	var kept [smallChunks]*chunk
	taken := kept[:0]
	if f.small {
		var err error
		if taken, err = f.take(ctx, taken, count); err != nil {
			return err
		}
	}
	for i := range count {
		if !f.small {
			if err := f.room(ctx); err != nil {
				return err
			}
			var err error
			if taken, err = f.take(ctx, kept[:0], 1); err != nil {
				return err
			}
		}
		c := taken[0]
		taken = taken[1:]
		c.n = int(min(chunkSize, f.desc.Size-int64(i)*chunkSize))
		_, err := io.ReadFull(hashed, c.buf[:c.n])
		if err == nil {
			err = f.publish(ctx, c)
		} else {
			f.held.Add(-1)
			f.reads.pool.release(c)
			err = asSource(fmt.Errorf("read blob: %w", err))
		}
		if err != nil {
			for _, c := range taken {
				f.held.Add(-1)
				f.reads.pool.release(c)
			}
			return err
		}
	}
	return nil
}

// take gets chunks from the pool, waiting for them where it must.
func (f *flight) take(ctx context.Context, to []*chunk, n int) ([]*chunk, error) {
	for round := 0; ; round++ {
		if got := f.reads.pool.try(to, n, f.small, &f.held); got != nil {
			return got, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if f.dropTail() || f.shed(true) || f.reads.reclaim() {
			continue
		}
		// The upload that waits for this chunk may have the very connection that
		// a small blob, read whole, is waiting for.
		if round > 0 && !f.small && f.held.Load() == 0 && f.reads.steal() {
			continue
		}
		if err := f.reads.pool.wait(ctx, n, f.small, &f.held); err != nil {
			return nil, err
		}
	}
}

// room waits until the window has room for another chunk.
func (f *flight) room(ctx context.Context) error {
	for {
		f.mu.Lock()
		if f.head-f.base < window {
			f.mu.Unlock()
			return nil
		}
		f.mu.Unlock()
		if f.shed(false) {
			continue
		}
		f.mu.Lock()
		for f.head-f.base >= window && ctx.Err() == nil && f.laggard(false) == nil {
			f.changed.Wait()
		}
		f.mu.Unlock()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// dropTail gives back what is only kept for uploads that might break, and
// tells whether that was anything.
func (f *flight) dropTail() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pressed {
		return false
	}
	f.pressed = true
	before := f.base
	f.trim()
	return f.base > before
}

// publish shows a chunk to the readers.
func (f *flight) publish(ctx context.Context, c *chunk) error {
	f.mu.Lock()
	file := f.spooled
	f.mu.Unlock()
	if file != nil {
		// Only this goroutine makes spool files; one that was closed meanwhile
		// takes no more.
		if err := file.append(c.buf[:c.n]); err != nil {
			f.reads.mu.Lock()
			f.mu.Lock()
			if f.spooled == file {
				f.loseSpool()
				f.settle()
			}
			f.mu.Unlock()
			f.reads.mu.Unlock()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		f.held.Add(-1)
		f.reads.pool.release(c)
		return context.Cause(ctx)
	}
	f.ring[f.head%window] = c
	f.head++
	f.trim()
	f.changed.Broadcast()
	return nil
}
