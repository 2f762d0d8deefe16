package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

// A farSource has one blob behind a link: every answer takes rtt, a connection
// gives perConnection bytes a second and all together perLink.
type farSource struct {
	oci.Repository
	content       []byte
	rtt           time.Duration
	perConnection int
	perLink       int
	noRanges      func(request int64) bool
	cut           func() int // bytes until the connection breaks, 0: never
	silent        func() int // bytes until it gives no more, 0: never

	requests, open, most, given atomic.Int64
	mu                          sync.Mutex
	free                        time.Time // when the link is
}

func (f *farSource) Name() string { return app }

func (f *farSource) Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	f.requests.Add(1)
	return f.answer(ctx, f.content)
}

func (f *farSource) FetchRange(ctx context.Context, desc v1.Descriptor, from, n int64) (io.ReadCloser, error) {
	request := f.requests.Add(1)
	if f.noRanges != nil && f.noRanges(request) {
		return nil, oci.ErrUnsupported
	}
	return f.answer(ctx, f.content[from:from+n])
}

func (f *farSource) answer(ctx context.Context, content []byte) (io.ReadCloser, error) {
	time.Sleep(f.rtt)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	f.most.Store(max(f.most.Load(), f.open.Add(1)))
	c := &farConnection{f: f, ctx: ctx, left: bytes.NewReader(content)}
	if f.cut != nil {
		c.until = f.cut()
	}
	if f.silent != nil {
		c.silentAt = f.silent()
	}
	return c, nil
}

// pass lets n bytes through the link.
func (f *farSource) pass(n int) {
	f.mu.Lock()
	now := time.Now()
	if f.free.Before(now) {
		f.free = now
	}
	f.free = f.free.Add(time.Duration(float64(n) / float64(f.perLink) * 1e9))
	wait := max(f.free.Sub(now), time.Duration(float64(n)/float64(f.perConnection)*1e9))
	f.mu.Unlock()
	time.Sleep(wait)
}

type farConnection struct {
	f        *farSource
	ctx      context.Context
	left     *bytes.Reader
	until    int
	silentAt int
	over     sync.Once
}

func (c *farConnection) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.left.Read(p[:min(len(p), 64<<10, c.f.perConnection/50)])
	if c.silentAt > 0 {
		if c.silentAt -= n; c.silentAt <= 0 {
			<-c.ctx.Done()
			return 0, context.Cause(c.ctx)
		}
	}
	c.f.pass(n)
	c.f.given.Add(int64(n))
	if c.until > 0 {
		if c.until -= n; c.until <= 0 {
			return n, errors.New("connection reset")
		}
	}
	return n, err
}

func (c *farConnection) Close() error {
	c.over.Do(func() { c.f.open.Add(-1) })
	return nil
}

func randomBlob(size int) ([]byte, v1.Descriptor) {
	content := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(content)
	return content, v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromBytes(content), Size: int64(size)}
}

// readAll reads a blob through a blobReader as a flight does, waiting for what
// becomes of each chunk.
func readAll(t *testing.T, f *farSource, desc v1.Descriptor, p *pool, perChunk time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	in := &blobReader{ctx: t.Context(), src: f, desc: desc, pool: p, read: func(int) {}, others: func() int { return 0 }, nearest: func(d time.Duration) time.Duration { return d }}
	defer func() {
		in.close()
		if p.available() != p.total || f.open.Load() != 0 {
			t.Errorf("left over: %d of %d chunks, %d connections", p.total-p.available(), p.total, f.open.Load())
		}
	}()
	hashed := oci.NewHashingReader(in, desc)
	buf := make([]byte, chunkSize)
	for {
		_, err := io.ReadFull(hashed, buf)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return time.Since(began)
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(perChunk)
	}
}

const mega = 1 << 20

func TestAGreatBlobFromFarAwayComesOverManyConnections(t *testing.T) {
	content, desc := randomBlob(128 * mega)
	for name, c := range map[string]struct {
		source   *farSource
		perChunk time.Duration
		chunks   int
		atMost   time.Duration
		most     int64 // connections
		requests int64
	}{
		// One connection would take 6.7 s, the link 0.67 s.
		"far, a slow connection": {&farSource{rtt: 80 * time.Millisecond, perConnection: 20e6, perLink: 200e6}, 0, 192, 1800 * time.Millisecond, 40, 120},
		// Near: it takes some time to see that the connection is the bottleneck.
		"near, a slow connection": {&farSource{rtt: time.Millisecond, perConnection: 20e6, perLink: 200e6}, 0, 192, 2 * time.Second, 40, 120},
		// 134 MB at 20 MB/s: more connections bring no more, and are no more than at first.
		"a slow link": {&farSource{rtt: time.Millisecond, perConnection: 20e6, perLink: 20e6}, 0, 192, 8 * time.Second, 1 + firstStreams, 120},
		// What becomes of the bytes is slower than the connection: 512 chunks of 10 ms.
		"a slow destination": {&farSource{rtt: time.Millisecond, perConnection: 200e6, perLink: 200e6}, 10 * time.Millisecond, 192, 7 * time.Second, 1, 6},
		// Memory for less than one segment: it goes on with what it has.
		"little memory": {&farSource{rtt: 80 * time.Millisecond, perConnection: 20e6, perLink: 200e6}, 0, 4, 12 * time.Second, 40, 120},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := c.source
				f.content = content
				took := readAll(t, f, desc, newPool(c.chunks), c.perChunk)
				if took > c.atMost || f.most.Load() > c.most || f.requests.Load() > c.requests || f.given.Load() != desc.Size {
					t.Errorf("%s over %d connections, %d requests, %d bytes of %d", took, f.most.Load(), f.requests.Load(), f.given.Load(), desc.Size)
				}
			})
		})
	}
}

func TestBlobsUpToASizeAreOneRequest(t *testing.T) {
	content, desc := randomBlob(wholeSize)
	synctest.Test(t, func(t *testing.T) {
		f := &farSource{content: content, rtt: 80 * time.Millisecond, perConnection: 20e6, perLink: 200e6}
		readAll(t, f, desc, newPool(192), 0)
		if f.requests.Load() != 1 {
			t.Errorf("%d requests", f.requests.Load())
		}
	})
}

// A blob that would have come by one request comes in pieces after a break, and
// over more connections where they are slow: it is no great blob, and may be
// the only one.
func TestABlobThatBrokeIsReadAheadAlone(t *testing.T) {
	content, desc := randomBlob(wholeSize)
	synctest.Test(t, func(t *testing.T) {
		var connections atomic.Int64
		f := &farSource{content: content, rtt: 80 * time.Millisecond, perConnection: 20e6, perLink: 200e6, cut: func() int {
			if connections.Add(1) == 1 {
				return 8 * mega
			}
			return 0
		}}
		copier := New(Options{})
		r := copier.reads.reader("oci://eu", f, desc)
		in, err := (&body{r: r, sent: func(int) {}}).Open(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, in)
		if err := errors.Join(err, in.Close()); err != nil || n != desc.Size {
			t.Errorf("%d of %d bytes, %v", n, desc.Size, err)
		}
		r.leave()
		if f.given.Load() != desc.Size || f.most.Load() < fewestStreams {
			t.Errorf("%d bytes for %d, over %d connections", f.given.Load(), desc.Size, f.most.Load())
		}
		noLeaks(t, copier)
	})
}

func TestBrokenConnectionsCostLittle(t *testing.T) {
	content, desc := randomBlob(128 * mega)
	for _, rtt := range []time.Duration{time.Millisecond, 80 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			var mu sync.Mutex
			f := &farSource{content: content, rtt: rtt, perConnection: 100e6, perLink: 200e6, cut: func() int {
				mu.Lock()
				defer mu.Unlock()
				return 1 + int(random.ExpFloat64()*8*mega)
			}}
			readAll(t, f, desc, newPool(192), 0)
			if f.given.Load() != desc.Size {
				t.Errorf("%s: %d bytes for %d", rtt, f.given.Load(), desc.Size)
			}
		})
	}
}

// Connections that go silent for good are given up one by one; one that is slow
// and steady is not.
func TestSilentConnectionsAreReplaced(t *testing.T) {
	content, desc := randomBlob(96 * mega)
	for name, c := range map[string]struct {
		rtt       time.Duration
		silentAt  []int
		perSecond int
		atMost    time.Duration
		requests  int64
	}{
		"one, near":  {time.Millisecond, []int{3 * mega}, 200e6, 6 * time.Second, 80},
		"three, far": {80 * time.Millisecond, []int{mega, mega, mega}, 50e6, 16 * time.Second, 120},
		// The piece under way is drawn in; what lies between it and what the
		// others read is read all the same.
		"after others have begun": {time.Millisecond, []int{0, 3 * mega}, 20e6, 16 * time.Second, 120},
		"slow and steady":         {time.Millisecond, nil, 200e3, 10 * time.Minute, 120},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				left := c.silentAt
				f := &farSource{content: content, rtt: c.rtt, perConnection: c.perSecond, perLink: c.perSecond, silent: func() int {
					mu.Lock()
					defer mu.Unlock()
					if len(left) == 0 {
						return 0
					}
					at := left[0]
					left = left[1:]
					return at
				}}
				took := readAll(t, f, desc, newPool(192), 0)
				if took > c.atMost || f.requests.Load() > c.requests {
					t.Errorf("%s, %d requests", took, f.requests.Load())
				}
			})
		})
	}
}

func TestASourceWithoutRangesIsReadAsAWhole(t *testing.T) {
	content, desc := randomBlob(128 * mega)
	for name, c := range map[string]struct {
		noRanges func(int64) bool
		extra    int64
	}{
		"never":                 {func(int64) bool { return true }, 0},
		"no longer, in between": {func(n int64) bool { return n > 1 }, firstPiece},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &farSource{content: content, rtt: 80 * time.Millisecond, perConnection: 100e6, perLink: 200e6, noRanges: c.noRanges}
				readAll(t, f, desc, newPool(192), 0)
				if f.given.Load() > desc.Size+c.extra {
					t.Errorf("%d bytes for %d", f.given.Load(), desc.Size)
				}
			})
		})
	}
}

func TestReadingAheadEndsWithItsContextAndWithErrors(t *testing.T) {
	content, desc := randomBlob(128 * mega)
	for name, fault := range map[string]error{"context": nil, "denied": oci.ErrDenied} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &farSource{content: content, rtt: 80 * time.Millisecond, perConnection: 20e6, perLink: 200e6}
				ctx, cancel := context.WithCancelCause(t.Context())
				cause := fmt.Errorf("enough")
				p := newPool(192)
				var src oci.Repository = f
				if fault != nil {
					src = &failing{f, fault, 10}
				}
				in := &blobReader{ctx: ctx, src: src, desc: desc, pool: p, read: func(int) {}, others: func() int { return 0 }, nearest: func(d time.Duration) time.Duration { return d }}
				if fault == nil {
					time.AfterFunc(time.Second/2, func() { cancel(cause) })
				}
				_, err := io.Copy(io.Discard, in)
				in.close()
				cancel(nil)
				if want := cause; fault == nil && !errors.Is(err, want) || fault != nil && !errors.Is(err, fault) {
					t.Errorf("%v", err)
				}
				if p.available() != p.total {
					t.Errorf("%d chunks are left", p.total-p.available())
				}
			})
		})
	}
}

// A failing source refuses every range after some.
type failing struct {
	*farSource
	err   error
	after int64
}

func (f *failing) FetchRange(ctx context.Context, desc v1.Descriptor, from, n int64) (io.ReadCloser, error) {
	if f.requests.Load() >= f.after {
		return nil, f.err
	}
	return f.farSource.FetchRange(ctx, desc, from, n)
}
