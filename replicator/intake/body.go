package intake

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

const (
	maxBody = 8 << 20
	// smallBody is read at once; larger ones wait for one of few places, so
	// that memory does not grow with the number of senders.
	smallBody = 64 << 10
	bodyTime  = 15 * time.Second
	busyTime  = 5 * time.Second
)

var (
	errTooLarge = errors.New("body over its bound")
	errTooSlow  = errors.New("body not whole in time")
	errBusy     = errors.New("no place for another large body")
)

// A gate lets as many large bodies in at once as it has places.
type gate chan struct{}

func (g gate) enter(ctx context.Context) error {
	timer := time.NewTimer(busyTime)
	defer timer.Stop()
	select {
	case g <- struct{}{}:
		return nil
	case <-timer.C:
		return errBusy
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// readBody reads a request's body whole. release frees its place and may
// always be called.
func readBody(r *http.Request, g gate) (body []byte, release func(), err error) {
	release = func() {}
	if r.ContentLength > maxBody {
		return nil, release, errTooLarge
	}
	body, err = io.ReadAll(io.LimitReader(r.Body, smallBody))
	if err != nil || len(body) < smallBody {
		return body, release, slow(err)
	}
	if err := g.enter(r.Context()); err != nil {
		return nil, release, err
	}
	release = func() { <-g }
	rest, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1-smallBody))
	if err != nil {
		return nil, release, slow(err)
	}
	if body = append(body, rest...); len(body) > maxBody {
		return nil, release, errTooLarge
	}
	return body, release, nil
}

func slow(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errTooSlow
	}
	return err
}
