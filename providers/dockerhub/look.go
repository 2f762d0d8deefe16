package dockerhub

import (
	"strconv"
	"strings"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// markPrefix begins the marks of lists that came newest first; the time of
	// the newest tag follows, by the Hub's clock, in microseconds.
	markPrefix = "hub "
	// overlap is how far behind a mark is listed again: the Hub's answers need
	// not agree to the second.
	overlap = 5 * time.Minute
)

// A look is a list under a mark. The order `ordering=last_updated` gives is
// newest first, as the Hub's own pages show it, though nowhere written: where a
// list comes otherwise it is read to its end.
type look struct {
	mark     *oci.Mark // nil: a plain list
	since    time.Time // zero: all
	newest   time.Time
	last     time.Time
	unsorted bool
}

func newLook(mark *oci.Mark) *look {
	l := &look{mark: mark}
	if mark == nil {
		return l
	}
	if micros, ok := strings.CutPrefix(mark.Since, markPrefix); ok {
		if n, err := strconv.ParseInt(micros, 10, 64); err == nil {
			l.since = time.UnixMicro(n).Add(-overlap)
			l.newest = time.UnixMicro(n)
		}
	}
	return l
}

// wants takes note of a tag's time and tells whether the mark has not seen it.
func (l *look) wants(updated time.Time) bool {
	if l.mark == nil {
		return true
	}
	if updated.IsZero() || !l.last.IsZero() && updated.After(l.last) {
		l.unsorted = true
	}
	l.last = updated
	// What claims to come from the future would hide what comes next.
	if updated.After(l.newest) && !updated.After(time.Now().Add(overlap)) {
		l.newest = updated
	}
	return l.since.IsZero() || l.unsorted || !updated.Before(l.since)
}

// goesOn tells whether the next page has anything to tell; at the end it fills
// in the mark.
func (l *look) goesOn(more bool) bool {
	if l.mark == nil {
		return more
	}
	seen := !l.since.IsZero() && !l.unsorted && l.last.Before(l.since)
	if more && !seen {
		return true
	}
	l.mark.Partial = !l.since.IsZero()
	if !l.newest.IsZero() {
		l.mark.Next = markPrefix + strconv.FormatInt(l.newest.UnixMicro(), 10)
	}
	return false
}
