package journal

import (
	"github.com/twinport/twinport/replicator"
)

// A push is what an event tells about a row.
type push struct {
	digest string // empty: unknown
	lane   replicator.Lane
	pushed int64
	behind int64
	sender bool
	full   bool
	joins  bool // a route that the running job did not know of
}

// A verdict is what became of a push.
type verdict int

const (
	made verdict = iota
	renewed
	isHeld
	isRefused
)

// A refusalCheck tells why a digest is refused at the row's destination, and
// whether that is remembered.
type refusalCheck func(digest string) (jobError, bool, error)

// begin makes a row of its first push.
func (r *row) begin(p push, now int64, check refusalCheck) (verdict, error) {
	r.digest, r.lane, r.pushed, r.sender, r.behind, r.full = p.digest, p.lane, p.pushed, p.sender, p.behind, p.full
	r.state, r.generation, r.next = waiting, 1, now
	return r.refuse(check, made)
}

// refuse makes a waiting row refused where its digest is remembered so.
func (r *row) refuse(check refusalCheck, otherwise verdict) (verdict, error) {
	if r.digest == "" {
		return otherwise, nil
	}
	why, remembered, err := check(r.digest)
	if err != nil || !remembered {
		return otherwise, err
	}
	r.state, r.err = refused, why
	return isRefused, nil
}

// push tells a live row of another push. The last push wins, whatever came of
// earlier ones; replaced is the digest that ends as superseded by it, with the
// time it was pushed at.
func (r *row) push(p push, now int64, check refusalCheck) (v verdict, replaced *superseding, err error) {
	same := p.digest != "" && p.digest == r.digest
	// A sweep that sees what the row knows already brings no push.
	quiet := p.lane.Background() && (same || p.digest == "") && (r.full || !p.full)
	switch r.state {
	case waiting:
		if quiet {
			r.lane = min(r.lane, p.lane)
			return renewed, nil, nil
		}
		r.generation++
		replaced = r.take(p, same)
		r.next = now
		v, err = r.refuse(check, renewed)
		return v, replaced, err
	case running:
		if quiet && !p.joins {
			r.lane = min(r.lane, p.lane)
			return renewed, nil, nil
		}
		r.generation++
		claimedStill := r.pending == 0
		replaced = r.take(p, same)
		if claimedStill && replaced != nil && replaced.digest == r.claimed {
			replaced = nil // it runs: its outcome tells what became of it
		}
		r.pending = earliest(r.pending, p.behind)
		if r.heldBy != "" && !same && p.digest != "" {
			r.heldBy, r.heldDigest = "", ""
		}
		return renewed, replaced, nil
	case failed:
		if quiet {
			r.lookAgain(now)
			return made, nil, nil
		}
		replaced = r.revive(p, now)
		v, err = r.refuse(check, made)
		return v, replaced, err
	case refused:
		if quiet {
			if _, remembered, err := check(r.digest); err != nil || remembered {
				return isRefused, nil, err
			}
			r.lookAgain(now)
			return made, nil, nil
		}
		replaced = r.revive(p, now)
		if p.digest == "" {
			return made, replaced, nil // it may name another one by now
		}
		v, err = r.refuse(check, made)
		return v, replaced, err
	default: // held
		return r.pushHeld(p, same, now, check)
	}
}

// lookAgain gives a row that has stalled one more attempt, but no new day of
// them: no push came.
func (r *row) lookAgain(now int64) {
	r.generation++
	r.state, r.next = waiting, now
}

// pushHeld frees a row that is held, unless by a person at this very digest.
func (r *row) pushHeld(p push, same bool, now int64, check refusalCheck) (verdict, *superseding, error) {
	if r.heldBy == heldByPerson && (same || p.digest == "" && p.lane.Background()) {
		return isHeld, nil, nil
	}
	if r.heldBy == heldByPerson && p.digest != "" && p.pushed >= r.pushed {
		r.heldDigest = ""
	}
	// While it was held nothing counted as behind.
	r.behind = 0
	r.heldBy = ""
	replaced := r.revive(p, now)
	v, err := r.refuse(check, made)
	return v, replaced, err
}

// revive makes a row that had ended wait again, as if never tried.
func (r *row) revive(p push, now int64) *superseding {
	r.generation++
	r.state, r.next = waiting, now
	return r.take(p, false)
}

// A superseding is a digest that another push replaced.
type superseding struct {
	digest string
	pushed int64
	sender bool
}

// take merges the push into what is wanted: the latest push and its digest,
// the earliest time, the highest lane. An earlier push that comes late is
// superseded at once. Times choose a hint here, never an order of writes: the
// source is asked again before anything is copied.
func (r *row) take(p push, same bool) *superseding {
	var replaced *superseding
	if p.pushed >= r.pushed || r.digest == "" {
		if p.digest != "" {
			if r.digest != "" && r.digest != p.digest {
				replaced = &superseding{r.digest, r.pushed, r.sender}
			}
			r.digest = p.digest
		}
		if p.pushed >= r.pushed {
			r.pushed, r.sender = p.pushed, p.sender
		}
	} else if p.digest != "" && !same {
		replaced = &superseding{p.digest, p.pushed, p.sender}
	}
	r.behind = earliest(r.behind, p.behind)
	r.lane = min(r.lane, p.lane)
	r.full = r.full || p.full
	if !same {
		r.attempts, r.first, r.err = 0, 0, jobError{}
	}
	return replaced
}

// earliest is the smaller time of two, where 0 is none.
func earliest(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
