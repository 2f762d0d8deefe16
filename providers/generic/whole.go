package generic

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// wholeTime is how long an answer that is read whole may take to come: the
	// idle time alone would let a registry hold a request for days.
	wholeTime = 5 * time.Minute
	// discardTime is how long it is worth to read what nobody wants.
	discardTime = 2 * time.Second
	// smallAnswer is read at once. Of larger ones a registry has largeAnswers
	// under way at a time, so that memory does not grow with its connections.
	smallAnswer  = 64 << 10
	largeAnswers = 4
)

// pieceSize is how much of an answer of unknown length is read at a time.
const pieceSize = 1 << 20

var errDrip = fmt.Errorf("answer not whole in time: %w", oci.ErrInterrupted)

// readWhole reads an answer up to a limit.
func (r *Registry) readWhole(ctx context.Context, resp *http.Response, limit int64) ([]byte, error) {
	defer endAfter(resp.Body, wholeTime)()
	size := int64(512)
	if n := resp.ContentLength; n > 0 {
		size = min(n, limit-1, smallAnswer-1) + 1 // one more finds the end
	}
	buf := bytes.NewBuffer(make([]byte, 0, size))
	n, err := io.Copy(buf, io.LimitReader(resp.Body, min(limit, smallAnswer)))
	if err != nil || n < smallAnswer || n == limit {
		return buf.Bytes(), err
	}
	select {
	case r.large <- struct{}{}:
		defer func() { <-r.large }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	rest := io.LimitReader(resp.Body, limit-n)
	if told := resp.ContentLength; told > n {
		buf.Grow(int(min(told-n, limit-n) + bytes.MinRead))
		_, err = io.Copy(buf, rest)
		return buf.Bytes(), err
	}
	// A buffer that doubles leaves as much again behind as it comes to hold.
	pieces := [][]byte{buf.Bytes()}
	for err == nil {
		piece := make([]byte, 0, pieceSize)
		for err == nil && len(piece) < cap(piece) {
			var m int
			m, err = rest.Read(piece[len(piece):cap(piece)])
			piece = piece[:len(piece)+m]
		}
		pieces = append(pieces, piece)
	}
	if err == io.EOF {
		err = nil
	}
	return slices.Concat(pieces...), err
}

// endAfter ends a body's request should it take longer; the timer is stopped by
// what it gives.
func endAfter(body io.Reader, d time.Duration) (stop func()) {
	b, ok := body.(*readBody)
	if !ok {
		return func() {}
	}
	timer := time.AfterFunc(d, func() { b.w.cancel(errDrip) })
	return func() { timer.Stop() }
}

// discard frees a response whose body nobody wants, keeping the connection
// where little is left to read.
func discard(body io.ReadCloser) {
	stop := endAfter(body, discardTime)
	_, _ = io.CopyN(io.Discard, body, maxErrorBody)
	stop()
	_ = body.Close()
}

func (r *Registry) tooLarge(c *call, status int, message string) *failure {
	return &failure{err: &oci.RegistryError{
		Registry: r.spec.Name, Operation: c.what, Status: status, Message: message, Kind: oci.ErrTooLarge,
	}}
}
