package transfer

import (
	"context"
	"io"
	"sync"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// segmentSize is what one connection reads at a time, in bytes.
	segmentSize = 6 * chunkSize
	// firstStreams connections read ahead at first, at most maxStreams: of all
	// great blobs together, but each has fewestStreams.
	firstStreams, maxStreams, fewestStreams = 24, 32, 2
	// climbEvery is how often more connections are tried, once the last more
	// have had as long to get going: while they bring climbGain more bytes.
	climbEvery = 250 * time.Millisecond
	climbGain  = 1.15
)

// An ahead reads a blob from an offset on over several connections and gives
// its bytes in order. A segment is asked for at once, so that the round trip
// passes while others are read, and read once the pool has promised memory for
// all of it, in order: if all had some, the one that is needed next might wait
// for it. Where the pool has too little even for one, a chunk of its own serves
// that.
type ahead struct {
	src  oci.Repository
	desc v1.Descriptor
	pool *pool
	read func(n int)

	cancel  context.CancelFunc
	streams sync.WaitGroup

	mu       sync.Mutex
	changed  sync.Cond
	ctx      context.Context
	next     int64      // where the next segment begins
	segments []*segment // under way or read, in order; the first one is needed now
	wanted   int        // streams
	most     int        // streams
	running  int
	own      *chunk
	ownTaken bool
	err      error
	received int64

	// of Read alone
	climbing bool
	checked  time.Time // zero: begins anew with the next byte
	waited   time.Duration
	before   int64   // received at checked
	rate     float64 // at the last check
}

// A segment is a piece of the blob on its way.
type segment struct {
	at, end  int64
	asked    bool     // for memory
	promised int      // chunks of the pool, not taken yet
	chunks   []*chunk // filled, not given yet
	given    int      // bytes of the first one
	whole    bool
}

// readAhead begins to read from an offset on, one of so many blobs; rate is what
// one connection brings, in bytes per second, 0 where that is not known. Call
// close.
func readAhead(ctx context.Context, r *blobReader, from int64, blobs int, rate float64) *ahead {
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{
		src: r.src, desc: r.desc, pool: r.pool, read: r.read, cancel: cancel, ctx: ctx,
		next: from, own: &chunk{buf: make([]byte, chunkSize)}, climbing: true, rate: rate,
	}
	a.changed.L = &a.mu
	a.mu.Lock()
	defer a.mu.Unlock()
	a.most = max(maxStreams/blobs, fewestStreams)
	a.want(max(firstStreams/blobs, fewestStreams))
	return a
}

// want has so many connections read; the lock is held.
func (a *ahead) want(n int) {
	a.wanted = n
	for a.running < a.wanted {
		a.running++
		a.streams.Go(a.stream)
	}
	a.changed.Broadcast()
}

// close ends all reading and gives the memory back.
func (a *ahead) close() {
	a.cancel()
	a.mu.Lock()
	a.changed.Broadcast()
	a.mu.Unlock()
	a.streams.Wait()
	for _, s := range a.segments {
		a.pool.giveUp(s.promised)
		for _, c := range s.chunks {
			a.giveBack(c)
		}
	}
	a.segments = nil
}

// giveBack returns one chunk's memory.
func (a *ahead) giveBack(c *chunk) {
	if c != a.own {
		a.pool.release(c)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ownTaken = a.ownTaken && c != a.own
	a.changed.Broadcast()
}

// stream reads one segment after the other.
func (a *ahead) stream() {
	defer context.AfterFunc(a.ctx, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.changed.Broadcast()
	})()
	for {
		s := a.begin()
		if s == nil {
			return
		}
		if err := a.fill(s); err != nil {
			a.mu.Lock()
			if a.err == nil {
				a.err = err
			}
			a.changed.Broadcast()
			a.mu.Unlock()
			a.cancel()
		}
	}
}

// begin gives the next segment once it is not too far ahead; nil: there is none.
func (a *ahead) begin() *segment {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.ctx.Err() == nil && a.next < a.desc.Size {
		if len(a.segments) <= a.wanted+1 {
			s := &segment{at: a.next, end: min(a.next+segmentSize, a.desc.Size)}
			a.next = s.end
			a.segments = append(a.segments, s)
			return s
		}
		a.changed.Wait()
	}
	a.running--
	return nil
}

// fill reads one segment.
func (a *ahead) fill(s *segment) error {
	in := &resumingReader{
		ctx: a.ctx, src: a.src, desc: a.desc, at: s.at, mark: s.at, end: s.end, ranged: true,
		read: func(n int) {
			a.read(n)
			a.mu.Lock()
			a.received += int64(n)
			a.mu.Unlock()
		},
	}
	defer in.drop()
	in.prepare()
	for at := s.at; at < s.end; {
		c := a.take(s)
		if c == nil {
			return context.Cause(a.ctx)
		}
		n := int(min(chunkSize, s.end-at))
		for got := 0; got < n; {
			m, err := in.Read(c.buf[got:n])
			got += m
			if err == io.EOF && in.at < s.end { // drawn in by a break
				in.drop()
				in.end = min(s.end, in.at+brokenPiece)
				continue
			}
			if err != nil && err != io.EOF {
				a.giveBack(c)
				return err
			}
		}
		c.n = n
		at += int64(n)
		a.mu.Lock()
		s.chunks = append(s.chunks, c)
		s.whole = at == s.end
		a.changed.Broadcast()
		a.mu.Unlock()
	}
	return nil
}

// take gets memory for a segment: what was promised, or for the one that is
// needed now the own chunk. nil: the reading has ended.
func (a *ahead) take(s *segment) *chunk {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.ctx.Err() == nil {
		if !s.asked && a.turn() == s {
			n := int((s.end - s.at + chunkSize - 1) / chunkSize)
			if a.pool.reserve(n) {
				s.promised, s.asked = n, true
				a.changed.Broadcast()
			}
		}
		switch {
		case s.promised > 0:
			s.promised--
			return a.pool.reserved()
		case a.segments[0] == s && !a.ownTaken:
			s.asked, a.ownTaken = true, true
			return a.own
		}
		a.changed.Wait()
	}
	return nil
}

// turn is the first segment that no memory was asked for; the lock is held.
func (a *ahead) turn() *segment {
	for _, s := range a.segments {
		if !s.asked {
			return s
		}
	}
	return nil
}

// Read implements io.Reader for one reader; the end of ctx wakes it.
func (a *ahead) Read(p []byte) (int, error) {
	began := time.Now()
	a.mu.Lock()
	for a.err == nil && a.ctx.Err() == nil && (len(a.segments) == 0 || len(a.segments[0].chunks) == 0) {
		a.changed.Wait()
	}
	if a.err != nil || a.ctx.Err() != nil {
		err := a.err
		a.mu.Unlock()
		if err == nil {
			err = context.Cause(a.ctx)
		}
		return 0, err
	}
	s := a.segments[0]
	c := s.chunks[0]
	a.mu.Unlock()

	n := copy(p, c.buf[s.given:c.n])
	s.given += n
	if s.given == c.n {
		a.mu.Lock()
		s.given, s.chunks = 0, s.chunks[1:]
		if s.whole && len(s.chunks) == 0 {
			a.segments = a.segments[1:]
		}
		a.mu.Unlock()
		a.giveBack(c)
	}
	now := time.Now()
	a.waited += now.Sub(began)
	a.climb(now)
	return n, nil
}

// climb tries more connections while the reader waits for what they bring and
// the last ones brought more.
func (a *ahead) climb(now time.Time) {
	if a.checked.IsZero() {
		a.checked = now.Add(climbEvery)
	}
	since := now.Sub(a.checked)
	if !a.climbing || since < 0 || a.before > 0 && since < climbEvery {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.before == 0 {
		a.checked, a.waited, a.before = now, 0, a.received
		return
	}
	rate := float64(a.received-a.before) / since.Seconds()
	starved := float64(a.waited) > slowShare*float64(since)
	a.checked, a.waited, a.before = now, 0, a.received
	switch {
	case !starved:
	case rate < climbGain*a.rate || a.wanted >= a.most:
		a.climbing = false
	default:
		a.rate, a.checked, a.before = rate, time.Time{}, 0
		a.want(min(2*a.wanted, a.most))
	}
}
