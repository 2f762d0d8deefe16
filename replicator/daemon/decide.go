package daemon

import (
	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

// A move is what is to be done about one tag at one destination.
type move int

const (
	// nothing: both sides name the same digest, or the destination is ahead and
	// what it holds will come round; only the proof is of interest.
	nothing move = iota
	// forward copies the source's digest to the destination.
	forward
	// backward copies the destination's digest to the source (TwoWay only).
	backward
	// keepDrift leaves a destination tag that somebody else moved.
	keepDrift
	// conflict: both sides moved; a person or the route's policy settles it.
	conflict
)

// oneWay decides for a destination that only its source may change. src is the
// source's digest, dst the destination's (empty: no such tag), proven the
// record's (empty: none). preserve says that the digest moved away from is not
// ours and must be kept, unless the source still has it.
func oneWay(src, dst, proven digest.Digest, overwrite bool) (m move, preserve bool) {
	switch {
	case src == dst:
		return nothing, false
	case dst == "" || dst == proven:
		return forward, false
	case proven == src && !overwrite:
		return keepDrift, false
	default:
		return forward, true
	}
}

// between decides for two ends that feed each other, a naming what the canonical
// source holds and b what the destination does. A side that names the base or
// either end of an open intent has not moved by itself. An absent tag has not
// moved either: deletions do not flow.
func between(a, b digest.Digest, base replicator.Base) move {
	if a == b {
		return nothing
	}
	if a == "" {
		return backward
	}
	if b == "" {
		return forward
	}
	moved := func(d digest.Digest) bool {
		if d == base.Digest {
			return false
		}
		for _, intent := range base.Intents {
			if d == intent.Old || d == intent.New {
				return false
			}
		}
		return true
	}
	aMoved, bMoved := moved(a), moved(b)
	switch {
	case aMoved && bMoved:
		return conflict
	case aMoved:
		return forward
	case bMoved:
		return backward
	}
	// Neither moved: a write of ours was cut off half-way. Its new end is where
	// it was going.
	for i := len(base.Intents) - 1; i >= 0; i-- {
		switch base.Intents[i].New {
		case a:
			return forward
		case b:
			return backward
		}
	}
	return conflict
}
