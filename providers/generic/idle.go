package generic

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

// Why a request without a byte for too long was ended: the limiter's breaker
// counts the one, not the other.
var (
	errNoAnswer = fmt.Errorf("no answer in time: %w", oci.ErrUnreachable)
	errStalled  = fmt.Errorf("no byte within the idle time: %w", oci.ErrInterrupted)
)

// A watch ends a request when what is waited for takes too long. It runs only
// while the network is waited for: not while a permit is, nor a reader of the
// answer, nor the source of a body. Slow but steady is left alone.
type watch struct {
	cancel context.CancelCauseFunc
	idle   time.Duration

	mu     sync.Mutex
	timer  *time.Timer
	why    error // what the running timer would say
	closed bool
}

func newWatch(cancel context.CancelCauseFunc, idle time.Duration) *watch {
	return &watch{cancel: cancel, idle: idle}
}

// arm begins to wait; why is told should it take too long.
func (w *watch) arm(d time.Duration, why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.why = why
	switch {
	case w.closed:
	case w.timer == nil:
		w.timer = time.AfterFunc(d, func() {
			w.mu.Lock()
			why := w.why
			w.mu.Unlock()
			w.cancel(why)
		})
	default:
		w.timer.Reset(d)
	}
}

// rest stops waiting.
func (w *watch) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}

// end stops for good and frees the request.
func (w *watch) end() {
	w.mu.Lock()
	w.closed = true
	if w.timer != nil {
		w.timer.Stop()
	}
	w.mu.Unlock()
	w.cancel(context.Canceled)
}

// A sendBody is a body on its way out: the time between two reads is the network's.
type sendBody struct {
	io.ReadCloser
	w *watch

	mu  sync.Mutex
	err error // what reading the content gave, other than its end
}

func (b *sendBody) Read(p []byte) (int, error) {
	b.w.rest()
	n, err := b.ReadCloser.Read(p)
	b.w.arm(b.w.idle, errStalled)
	if err != nil && err != io.EOF {
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
	}
	return n, err
}

// failed is the content's own error, nil where reading it went well.
func (b *sendBody) failed() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// A readBody is an answer's body; its faults are told by kind.
type readBody struct {
	io.ReadCloser
	w    *watch
	wrap func(error) error
	err  error
}

func (b *readBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	b.w.arm(b.w.idle, errStalled)
	n, err := b.ReadCloser.Read(p)
	b.w.rest()
	if err != nil && err != io.EOF {
		err = b.wrap(err)
	}
	b.err = err
	return n, err
}

func (b *readBody) Close() error {
	b.w.end()
	return b.ReadCloser.Close()
}
