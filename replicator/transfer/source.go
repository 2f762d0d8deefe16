package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// sourceTries bounds the openings of a blob without progress between them;
	// sourceProgress is how many bytes count as some.
	sourceTries    = 5
	sourceProgress = 64 << 10
	// silenceMin is how long a connection may give no byte before another takes
	// its place, where that costs no more than a request; each time in vain
	// doubles it, up to silenceMax.
	silenceMin, silenceMax = 4 * time.Second, time.Minute
	// brokenPiece is how much is asked for at once after a break.
	brokenPiece = 3 << 20
)

// A sourceFault is an error that is the source's, not the destination's.
type sourceFault struct{ err error }

func (e *sourceFault) Error() string { return "source: " + e.err.Error() }
func (e *sourceFault) Unwrap() error { return e.err }

// asSource marks an error as the source's; what the source lists and does not
// have is ErrSourceIncomplete.
func asSource(err error) error {
	var fault *sourceFault
	switch {
	case err == nil || errors.As(err, &fault):
		return err
	case errors.Is(err, oci.ErrNotFound) && !errors.Is(err, oci.ErrSourceIncomplete):
		err = fmt.Errorf("%w: %w", oci.ErrSourceIncomplete, err)
	}
	return &sourceFault{err}
}

// lasting tells whether trying again soon is in vain.
func lasting(err error) bool {
	for _, kind := range []error{
		oci.ErrNotFound, oci.ErrDenied, oci.ErrMismatch, oci.ErrUnsupported, oci.ErrRefused, oci.ErrImmutable,
		oci.ErrTooLarge, oci.ErrInvalid, oci.ErrSourceIncomplete, context.Canceled,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// pause waits before try n (1, 2, …): 100 ms, doubled each time, at most 5 s.
func pause(ctx context.Context, n int) error {
	t := time.NewTimer(min(50*time.Millisecond<<min(n, 10), 5*time.Second))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A resumingReader reads a piece of a blob from a repository and, when the
// reading breaks, goes on where it broke: by a range, or else by reading again
// what it has. What it gives has still to be hashed.
type resumingReader struct {
	ctx   context.Context
	src   oci.Repository
	desc  v1.Descriptor
	body  io.ReadCloser
	at    int64 // the next byte
	end   int64 // behind the piece's last byte; a break may draw it in
	mark  int64 // where tries was set to zero
	tries int
	short int  // of the tries: the answers that ended cleanly, too early
	broke bool // at least once
	moved bool // some progress since the last break
	// ranged: where the source has no ranges the reading ends with
	// ErrUnsupported, rather than by reading the blob from its beginning.
	ranged bool
	read   func(n int) // told every byte from the source, those read again too

	begun   bool            // from the first byte, since there are no ranges
	try     context.Context // of the reading under way
	cancel  context.CancelCauseFunc
	silence *time.Timer
}

// errSilent ends a connection that gives nothing.
var errSilent = fmt.Errorf("the connection has been silent for too long: %w", oci.ErrInterrupted)

// Read implements io.Reader.
func (r *resumingReader) Read(p []byte) (int, error) {
	for {
		if r.at >= r.end {
			r.drop()
			return 0, io.EOF
		}
		if r.body == nil {
			if err := r.open(); err != nil {
				if err := r.again(err); err != nil {
					return 0, err
				}
				continue
			}
		}
		r.silence.Reset(r.patience())
		n, err := r.body.Read(p[:min(int64(len(p)), r.end-r.at)])
		r.silence.Stop()
		err = r.silent(err)
		r.at += int64(n)
		r.read(n)
		if r.at-r.mark >= sourceProgress {
			r.mark, r.tries, r.short, r.moved = r.at, 0, 0, true
		}
		switch {
		case err == nil:
			return n, nil
		case r.at >= r.end: // an error behind the last byte decides nothing: the digest does
			return n, io.EOF
		case n > 0:
			r.interrupted()
			return n, nil
		case err == io.EOF:
			r.short++
			err = fmt.Errorf("blob %s ended after %d of %d bytes: %w", r.desc.Digest, r.at, r.end, oci.ErrInterrupted)
		}
		r.interrupted()
		if err := r.again(err); err != nil {
			return 0, err
		}
	}
}

// interrupted ends a broken reading. What is under way when a connection breaks
// is lost, so that the next asks for little.
func (r *resumingReader) interrupted() {
	r.drop()
	r.broke = true
	if _, ranged := r.src.(oci.RangeFetcher); ranged {
		r.end = min(r.end, r.at+brokenPiece)
	}
}

// again says whether to go on after err, and waits before it.
func (r *resumingReader) again(err error) error {
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	r.tries++
	if lasting(err) || r.tries >= sourceTries {
		if r.short == sourceTries { // the source has no more, whatever it lists
			return fmt.Errorf("blob %s has only %d of %d bytes: %w", r.desc.Digest, r.at, r.desc.Size, oci.ErrMismatch)
		}
		if !lasting(err) && oci.KindOf(err) == "other" {
			err = fmt.Errorf("%w: %w", oci.ErrInterrupted, err)
		}
		return err
	}
	if r.moved {
		r.moved = false
		return nil // it had been going well
	}
	return pause(r.ctx, r.tries)
}

// prepare asks for the piece; whatever comes of it, Read tells.
func (r *resumingReader) prepare() {
	if r.body == nil && r.open() != nil {
		r.drop()
	}
}

// patience is how long to wait for the next byte. A reading that would begin
// anew from the first one is left to the registry's own limit.
func (r *resumingReader) patience() time.Duration {
	if _, ranged := r.src.(oci.RangeFetcher); !ranged || r.begun {
		return silenceMax
	}
	return min(silenceMin<<r.tries, silenceMax)
}

// silent tells the end of a reading that was given up as what it is.
func (r *resumingReader) silent(err error) error {
	if err != nil && r.ctx.Err() == nil && r.try.Err() != nil {
		return fmt.Errorf("blob %s at byte %d: %w", r.desc.Digest, r.at, errSilent)
	}
	return err
}

func (r *resumingReader) open() error {
	r.try, r.cancel = context.WithCancelCause(r.ctx)
	cancel := r.cancel
	r.silence = time.AfterFunc(r.patience(), func() { cancel(errSilent) })
	err := r.silent(r.fetch(oci.WithOperation(r.try, oci.OpBlobRead)))
	r.silence.Stop()
	if err != nil {
		cancel(nil)
	}
	return err
}

func (r *resumingReader) fetch(ctx context.Context) error {
	if r.at == 0 && r.end == r.desc.Size {
		body, err := r.src.Fetch(ctx, r.desc)
		r.body = body
		return err
	}
	if ranged, ok := r.src.(oci.RangeFetcher); ok {
		body, err := ranged.FetchRange(ctx, r.desc, r.at, r.end-r.at)
		if err == nil {
			r.body = body
			return nil
		}
		if r.ranged || !errors.Is(err, oci.ErrUnsupported) {
			return err
		}
	}
	r.end, r.begun = r.desc.Size, true
	body, err := r.src.Fetch(ctx, r.desc)
	if err != nil {
		return err
	}
	r.silence.Stop()
	skipped, err := io.CopyN(io.Discard, body, r.at)
	r.read(int(skipped))
	if err != nil {
		_ = body.Close()
		return err
	}
	r.body = body
	return nil
}

func (r *resumingReader) drop() {
	if r.body != nil {
		_ = r.body.Close() // what it could tell was told by Read
		r.cancel(nil)
		r.body = nil
	}
}
