package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

// A reader is a destination's way to a blob: a place in a flight, and another
// one where the first was given up before it was needed.
type reader struct {
	reads *reads
	key   readKey
	src   oci.Repository
	desc  v1.Descriptor

	mu    sync.Mutex
	place *place
	led   bool  // the flight began for this reader
	bytes int64 // read from the source for it, of flights that are over
}

func (s *reads) reader(identity string, src oci.Repository, desc v1.Descriptor) *reader {
	r := &reader{reads: s, key: readKey{identity, desc.Digest, desc.Size}, src: src, desc: desc}
	r.place = s.join(r.key, src, desc, false, false)
	return r
}

// now is the place at this moment.
func (r *reader) now() *place {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.place
}

// answered says that the destination's turn has come: from here on the time it
// takes counts.
func (r *reader) answered() {
	p := r.now()
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if !p.came {
		p.entered = time.Now()
	}
}

// again takes a new place at the blob's beginning. alone: in a flight of its
// own; fresh: over a connection of its own.
func (r *reader) again(alone, fresh bool) {
	r.leave()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.place = r.reads.join(r.key, r.src, r.desc, alone, fresh)
}

// leave gives the place up.
func (r *reader) leave() {
	r.mu.Lock()
	p := r.place
	led := r.led
	r.led = false
	r.mu.Unlock()
	p.leave()
	if led {
		r.mu.Lock()
		r.bytes += p.f.read.Load()
		r.mu.Unlock()
	}
}

// sourceBytes were read from the source for this reader; call it after leave.
func (r *reader) sourceBytes() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes
}

// A body gives a reader's blob to an upload (oci.Body).
type body struct {
	r    *reader
	sent func(n int)

	mu      sync.Mutex
	current *stream
	failed  error // what reading ended with, if that was not the upload's doing
	whole   bool  // the last byte was given
	lost    bool  // it was to be opened where its bytes are gone
}

// Open implements oci.Body.
func (b *body) Open(ctx context.Context, offset int64) (io.ReadCloser, error) {
	b.stop()
	if !b.seek(offset) {
		b.mu.Lock()
		b.lost = true
		b.mu.Unlock()
		return nil, fmt.Errorf("blob %s from %d on: %w", b.r.desc.Digest, offset, oci.ErrUnsupported)
	}
	s := &stream{b: b, ctx: ctx}
	b.mu.Lock()
	b.current = s
	b.mu.Unlock()
	if b.r.desc.Size <= smallSize {
		if err := s.whole(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// stop ends the opening that is left, so that nothing reads on.
func (b *body) stop() {
	b.mu.Lock()
	s := b.current
	b.current = nil
	b.mu.Unlock()
	if s != nil {
		s.end()
	}
}

// seek moves the reader to an offset and tells whether its bytes are still there.
func (b *body) seek(offset int64) bool {
	p := b.r.now()
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	f := p.f
	switch {
	case offset == p.pos:
		return true
	case offset < 0 || offset > b.r.desc.Size || p.gone:
		return false
	case offset/chunkSize >= f.base && (offset <= p.pos || offset <= f.head*chunkSize):
		p.spool = false
	case f.spooled != nil && f.spooled.start <= offset && offset <= f.spooled.end():
		p.spool = true
	default:
		return false
	}
	p.pos = offset
	f.trim()
	f.changed.Broadcast()
	return true
}

// failure is why the bytes ended, nil when that was not the reader's fault.
func (b *body) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// outrun tells whether the upload asked for bytes that are gone.
func (b *body) outrun() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lost
}

func (b *body) sentAll() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.whole
}

// A stream is one opening of a body.
type stream struct {
	b   *body
	ctx context.Context

	mu     sync.Mutex
	closed bool
	unhook func() bool
	flight *flight
}

var errStreamClosed = errors.New("closed")

func (s *stream) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// end stops the stream; a Read that waits returns.
func (s *stream) end() {
	s.mu.Lock()
	s.closed = true
	f, unhook := s.flight, s.unhook
	s.mu.Unlock()
	if unhook != nil {
		unhook()
	}
	if f != nil {
		f.mu.Lock()
		f.changed.Broadcast()
		f.mu.Unlock()
	}
}

// Close implements io.Closer.
func (s *stream) Close() error {
	s.end()
	return nil
}

// watch has ctx's end wake the flight's waiters.
func (s *stream) watch(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight == f {
		return
	}
	if s.unhook != nil {
		s.unhook()
	}
	s.flight = f
	s.unhook = context.AfterFunc(s.ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.changed.Broadcast()
	})
}

// Read implements io.Reader. The first byte read starts the flight.
func (s *stream) Read(buf []byte) (int, error) {
	if len(buf) == 0 {
		return 0, nil
	}
	for {
		p := s.b.r.now()
		s.watch(p.f)
		n, moved, err := s.read(p, buf)
		if moved {
			continue
		}
		if n > 0 {
			s.b.sent(n)
		}
		if err != io.EOF {
			s.failed(err)
		}
		return n, err
	}
}

// failed keeps an error that is not the upload's own doing.
func (s *stream) failed(err error) {
	if err != nil && s.ctx.Err() == nil && !errors.Is(err, errStreamClosed) {
		s.b.mu.Lock()
		s.b.failed = err
		s.b.mu.Unlock()
	}
}

// whole waits until a small blob is here to its last byte: an upload of it
// takes no connection before.
func (s *stream) whole() error {
	for {
		p := s.b.r.now()
		s.watch(p.f)
		moved, err := s.await(p)
		if !moved {
			s.failed(err)
			return err
		}
	}
}

// await is whole at one place; moved: the reader has another.
func (s *stream) await(p *place) (moved bool, err error) {
	if s.join(p) {
		return true, nil
	}
	f := p.f
	defer f.mu.Unlock()
	for !f.whole {
		if err := s.ended(p); err != nil {
			return false, err
		}
		f.changed.Wait()
	}
	return false, nil
}

// join has the flight begin, and leaves it locked. moved: the place was given
// up before it was needed, and the reader has another.
func (s *stream) join(p *place) (moved bool) {
	f := p.f
	f.mu.Lock()
	if p.detached {
		f.mu.Unlock()
		f.await()
		s.b.r.again(false, false)
		return true
	}
	if f.ended == nil {
		s.b.r.lead()
	}
	f.begin(s.ctx, p)
	return false
}

// ended is why nothing more comes at a place; the flight is locked.
func (s *stream) ended(p *place) error {
	switch {
	case s.isClosed():
		return errStreamClosed
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case p.dropped:
		return errLagging
	}
	return p.f.err
}

// read takes bytes at a place. moved: the place was given up before it was
// needed, and the reader has another.
func (s *stream) read(p *place, buf []byte) (n int, moved bool, err error) {
	if s.join(p) {
		return 0, true, nil
	}
	f := p.f
	size := s.b.r.desc.Size
	for {
		if err := s.ended(p); err != nil {
			f.mu.Unlock()
			return 0, false, err
		}
		switch {
		case p.pos == size && f.whole:
			f.mu.Unlock()
			return 0, false, io.EOF
		case p.spool && f.spooled != nil && p.pos < f.spooled.end():
			file := f.spooled
			f.mu.Unlock()
			n, err = file.readAt(buf, p.pos)
			s.advance(p, n)
			return n, false, err
		case !p.spool && p.pos/chunkSize < f.head && p.pos < size:
			c := f.ring[p.pos/chunkSize%window]
			c.refs.Add(1)
			f.mu.Unlock()
			n = copy(buf, c.buf[p.pos%chunkSize:c.n])
			f.reads.pool.release(c)
			s.advance(p, n)
			return n, false, nil
		}
		f.changed.Wait()
	}
}

// advance moves the place behind bytes that were given.
func (s *stream) advance(p *place, n int) {
	f := p.f
	f.mu.Lock()
	before := p.pos / chunkSize
	p.pos += int64(n)
	whole := p.pos == s.b.r.desc.Size
	if p.pos/chunkSize != before {
		f.trim()
		f.changed.Broadcast()
	}
	f.mu.Unlock()
	if whole {
		s.b.mu.Lock()
		s.b.whole = true
		s.b.mu.Unlock()
	}
}

// early starts the reading of a small blob while its destination has yet to
// answer, if memory is not short.
func (r *reader) early(ctx context.Context) {
	if r.desc.Size > smallSize || r.reads.pool.available() < r.reads.pool.total/2 {
		return
	}
	r.ensure()
	p := r.now()
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if p.detached || p.gone {
		return
	}
	if p.f.ended == nil {
		r.lead()
	}
	p.f.begin(ctx, p)
}

// ensure takes a place again where it was given up.
func (r *reader) ensure() {
	p := r.now()
	p.f.mu.Lock()
	gone := p.gone && !p.detached
	p.f.mu.Unlock()
	if gone {
		r.again(false, false)
	}
}

func (r *reader) lead() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.led = true
}
