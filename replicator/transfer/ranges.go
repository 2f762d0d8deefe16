package transfer

import (
	"context"
	"errors"
	"io"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// wholeSize is the largest blob that is read by one request; greater ones
	// come in pieces, the first of firstPiece and each twice the one before, so
	// that several connections can take over without a byte being read twice.
	wholeSize  = 64 << 20
	firstPiece = 4 << 20
	// calmBytes without a break let the pieces grow again.
	calmBytes = 256 << 20
	// worthAhead is how much must be left for more connections to be worth it.
	worthAhead = 16 << 20
	// A source whose first bytes all took farAway gives one connection no more
	// than its window each round trip: it counts as slow at once. Of a nearer one
	// slowFor is watched, and slowShare is which part of that time its reader
	// must have waited for it; one that brings fastEnough bytes a second is not
	// slow, and where more than nearReads blobs are read, it is not the connection.
	farAway    = 20 * time.Millisecond
	fastEnough = 64e6
	slowFor    = 300 * time.Millisecond
	slowShare  = 0.7
	nearReads  = 2
)

// A blobReader gives a blob's bytes in order: from one connection, or from
// several where one is slower than what becomes of its bytes. What it gives has
// still to be hashed.
type blobReader struct {
	ctx  context.Context
	src  oci.Repository
	desc v1.Descriptor
	pool *pool
	read func(n int) // told every byte from the source
	// others tells how many great blobs are being read beside this one.
	others func() int
	// nearest is told how long the first byte took; it gives the least of this
	// source's.
	nearest func(time.Duration) time.Duration

	at    int64
	piece *resumingReader // nil: none is under way
	step  int64           // of the last piece
	calm  int64           // read since the last break
	whole bool            // no ranges: the rest is one piece
	ahead *ahead
	met   int64 // where ahead begins: the pieces before it go on up to there

	watched time.Time // zero: not yet
	from    int64     // at, then
	waited  time.Duration
}

// Read implements io.Reader.
func (r *blobReader) Read(p []byte) (int, error) {
	for {
		if r.at >= r.desc.Size && r.desc.Size > 0 {
			return 0, io.EOF
		}
		if r.piece == nil && r.ahead != nil && r.at >= r.met {
			n, err := r.ahead.Read(p)
			r.at += int64(n)
			if errors.Is(err, oci.ErrUnsupported) {
				r.noRanges()
				continue
			}
			return n, err
		}
		if r.piece == nil {
			r.piece = r.next()
		}
		began := time.Now()
		n, err := r.piece.Read(p)
		r.watch(began, time.Now())
		r.at += int64(n)
		r.calm += int64(n)
		if r.piece.broke {
			r.piece.broke, r.calm = false, 0
		}
		switch {
		case err == io.EOF && r.at < r.desc.Size:
			r.piece.drop()
			r.piece = nil
			if n > 0 {
				return n, nil
			}
			continue
		case errors.Is(err, oci.ErrUnsupported) && r.piece.ranged:
			r.noRanges()
			continue
		}
		return n, err
	}
}

// next is the piece that begins here.
func (r *blobReader) next() *resumingReader {
	rest := r.desc.Size - r.at
	_, ranged := r.src.(oci.RangeFetcher)
	length := rest
	switch {
	case r.whole || !ranged:
	case r.calm < calmBytes && r.calm < r.at: // it broke not long ago
		r.step = brokenPiece
		length = brokenPiece
	case r.desc.Size > wholeSize:
		r.step = max(firstPiece, 2*r.step)
		length = r.step
	}
	if rest-length < length/2 && length > brokenPiece {
		length = rest
	}
	if r.ahead != nil { // the piece before was drawn in by a break
		rest = r.met - r.at
	}
	length = min(length, rest)
	return &resumingReader{
		ctx: r.ctx, src: r.src, desc: r.desc, at: r.at, mark: r.at, end: r.at + length,
		ranged: length < r.desc.Size && !r.whole, read: r.read,
	}
}

// noRanges goes on by reading all the rest as one.
func (r *blobReader) noRanges() {
	r.close()
	r.piece, r.ahead, r.whole = nil, nil, true
}

// watch judges whether the connection is slower than what becomes of its
// bytes, and if so has others read what comes after the piece under way.
func (r *blobReader) watch(began, now time.Time) {
	far := false
	if r.watched.IsZero() {
		r.watched = began
		far = r.nearest(now.Sub(began)) >= farAway
	}
	r.waited += now.Sub(began)
	since := now.Sub(r.watched)
	if since < slowFor && !far || r.ahead != nil {
		return
	}
	slow := far || float64(r.waited) > slowShare*float64(since)
	rate := float64(r.at-r.from) / since.Seconds()
	if far {
		rate = 0
	}
	r.watched, r.from, r.waited = now, r.at, 0
	blobs := 1 + r.others()
	slow = slow && (far || blobs <= nearReads && rate < fastEnough)
	if slow && !r.whole && r.piece.ranged && r.desc.Size-r.piece.end >= worthAhead {
		r.met = r.piece.end
		r.ahead = readAhead(r.ctx, r, r.met, blobs, rate)
	}
}

// close ends what is under way.
func (r *blobReader) close() {
	if r.piece != nil {
		r.piece.drop()
	}
	if r.ahead != nil {
		r.ahead.close()
	}
}
