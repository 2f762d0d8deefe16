package limit

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A capped stream moves in chunks of a twentieth of a second, so that
	// streams take turns and a change of the table is felt soon.
	chunksPerSecond = 20
	minChunk        = 512
	maxChunk        = 64 << 10
	// bandwidthBurst is how much unused time a cap gives back after a pause.
	bandwidthBurst = 50 * time.Millisecond
)

// A Bandwidth is one cap that any number of streams share, in the order in
// which they ask. The zero cap (nil) lets everything through.
type Bandwidth struct {
	table  Table
	shares atomic.Int64 // 0: one

	mu   sync.Mutex
	next time.Time // when what has been let through so far is paid for
}

// NewBandwidth makes a cap, nil where the table has none.
func NewBandwidth(t Table) *Bandwidth {
	if t.empty() {
		return nil
	}
	return &Bandwidth{table: t}
}

type bandwidthKey struct{}

// WithBandwidth puts caps on what the requests made under ctx upload, beside
// the registry's own: routes' caps. They count request bodies alone, since a
// read may serve several routes, while an upload serves one; a copy is so
// counted once. Caps already in ctx stay; one given twice counts once.
func WithBandwidth(ctx context.Context, caps ...*Bandwidth) context.Context {
	have := slices.Clone(bandwidthsOf(ctx))
	for _, b := range caps {
		if b != nil && !slices.Contains(have, b) {
			have = append(have, b)
		}
	}
	if len(have) == 0 {
		return ctx
	}
	return context.WithValue(ctx, bandwidthKey{}, have)
}

func bandwidthsOf(ctx context.Context) []*Bandwidth {
	caps, _ := ctx.Value(bandwidthKey{}).([]*Bandwidth)
	return caps
}

// chunk is how many bytes a stream may move at once now, 0 where it is free to
// move any number.
func (b *Bandwidth) chunk(now time.Time) int {
	rate := b.share(b.table.Rate(now))
	if rate <= 0 {
		return 0
	}
	return int(min(maxChunk, max(minChunk, rate/chunksPerSecond)))
}

// reserve books n bytes and tells how long to wait until they are paid for.
func (b *Bandwidth) reserve(now time.Time, n int) time.Duration {
	rate := b.share(b.table.Rate(now))
	if rate <= 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if earliest := now.Add(-bandwidthBurst); b.next.Before(earliest) {
		b.next = earliest
	}
	b.next = b.next.Add(time.Duration(float64(n) / rate * float64(time.Second)))
	return b.next.Sub(now)
}

// pay waits until n bytes are paid for under every cap.
func pay(ctx context.Context, caps []*Bandwidth, n int) error {
	var wait time.Duration
	now := time.Now()
	for _, b := range caps {
		wait = max(wait, b.reserve(now, n))
	}
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A stream is a request's or a response's body under its caps, counted.
type stream struct {
	io.ReadCloser
	ctx   context.Context // of the request whose body it is
	caps  []*Bandwidth
	count func(n int)
	// ended is called once, when the body is closed or has no more to give;
	// nil: nobody asks.
	ended func()
	once  sync.Once
	// failed says that the body itself, not the connection, gave an error;
	// moved that it gave at least one byte.
	failed, moved atomic.Bool
}

func (s *stream) Read(p []byte) (int, error) {
	for _, b := range s.caps {
		if n := b.chunk(time.Now()); n > 0 && n < len(p) {
			p = p[:n]
		}
	}
	n, err := s.ReadCloser.Read(p)
	if n > 0 {
		s.moved.Store(true)
		s.count(n)
		if payErr := pay(s.ctx, s.caps, n); payErr != nil && (err == nil || err == io.EOF) {
			err = payErr
		}
	}
	if err != nil {
		if err != io.EOF {
			s.failed.Store(true)
		}
		s.end()
	}
	return n, err
}

func (s *stream) Close() error {
	err := s.ReadCloser.Close()
	s.end()
	return err
}

func (s *stream) end() {
	if s.ended != nil {
		s.once.Do(s.ended)
	}
}
