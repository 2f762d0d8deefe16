package transfer

import (
	"errors"
	"slices"
	"time"
)

// laggard is the slowest reader of the window where it holds up another: more
// than half the window behind, while one waits for more. nil where there is
// none. pressed: memory is short, so the window is what it holds now. The lock
// is held.
func (f *flight) laggard(pressed bool) *place {
	size := int64(window)
	if pressed {
		size = f.head - f.base
	}
	var slowest *place
	waiting := false
	for _, p := range f.places {
		lag := f.head - p.pos/chunkSize
		if p.came && lag <= size/4 {
			waiting = true
		}
		if !p.spool && (slowest == nil || p.pos < slowest.pos) {
			slowest = p
		}
	}
	if slowest == nil || !waiting || f.small || 2*(f.head-slowest.pos/chunkSize) <= size {
		return nil
	}
	if !slowest.came && time.Now().Before(f.gate) {
		return nil
	}
	return slowest
}

// shed moves the slowest reader out of the window, to the spool if there is
// room, and tells whether it did. Only the reading goroutine sheds.
func (f *flight) shed(pressed bool) bool {
	f.mu.Lock()
	p := f.laggard(pressed)
	if p == nil {
		f.mu.Unlock()
		return false
	}
	if f.spooled != nil { // it begins before every reader of the window
		p.spool = true
		f.trim()
		f.mu.Unlock()
		return true
	}
	first := p.pos / chunkSize
	f.mu.Unlock()

	file, err := f.spill(first)
	if errors.Is(err, errReadOn) {
		return true // who still lags is looked for again
	}

	f.reads.mu.Lock()
	defer f.reads.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case p.gone:
		if file != nil {
			file.close()
		}
	case err == nil:
		f.spooled = file
		p.spool = true
	default:
		f.giveUp(p)
	}
	f.settle()
	return true
}

// errReadOn: who was to read from the spool has read on, or left, while it was
// being written.
var errReadOn = errors.New("the reader has moved on")

// spill writes the window's chunks from one on into a new spool file.
func (f *flight) spill(first int64) (*spoolFile, error) {
	file, err := f.reads.spool.open(f.desc.Digest, first*chunkSize)
	if err != nil {
		return nil, err
	}
	for i := first; ; i++ {
		f.mu.Lock()
		if i >= f.head {
			f.mu.Unlock()
			return file, nil
		}
		if i < f.base {
			f.mu.Unlock()
			file.close()
			return nil, errReadOn
		}
		c := f.ring[i%window]
		c.refs.Add(1)
		f.mu.Unlock()
		err := file.append(c.buf[:c.n])
		f.reads.pool.release(c)
		if err != nil {
			file.close()
			return nil, err
		}
	}
}

// giveUp takes a reader out of the flight: one that has not come yet may join
// another, one that has gets an error. The lock is held.
func (f *flight) giveUp(p *place) {
	p.gone = true
	p.detached, p.dropped = !p.came, p.came
	f.places = slices.DeleteFunc(f.places, func(q *place) bool { return q == p })
}

// loseSpool gives up the readers that need the spool file, which has no room
// for more; those that have caught up go on in the window. The lock is held.
func (f *flight) loseSpool() {
	for _, p := range slices.Clone(f.places) {
		switch {
		case !p.spool:
		case p.pos/chunkSize >= f.base:
			p.spool = false
		default:
			f.giveUp(p)
		}
	}
	f.closeSpool()
}

// reclaim frees the memory of a blob that only waits for readers to come, and
// tells whether it found one.
func (s *reads) reclaim() bool {
	s.mu.Lock()
	var f *flight
	for f = range s.idle {
		break
	}
	if f == nil {
		s.mu.Unlock()
		return false
	}
	delete(s.idle, f)
	s.mu.Unlock()

	// Nobody else reads or writes an idle flight's window but those who come.
	file, err := f.spill(0)
	if errors.Is(err, errReadOn) {
		return true // it is no longer idle
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead || f.spooled != nil {
		if file != nil {
			file.close()
		}
		return true
	}
	for _, p := range slices.Clone(f.places) {
		switch {
		case p.came: // came meanwhile
		case err == nil:
			p.spool = true
		default:
			f.giveUp(p)
		}
	}
	if err == nil {
		f.spooled = file
	}
	if !slices.ContainsFunc(f.places, func(p *place) bool { return p.came }) && len(f.places) > 0 {
		f.clear()
		f.changed.Broadcast()
		return true
	}
	f.settle()
	return true
}

// steal frees the memory of a small blob that all its uploads have read, and is
// kept only in case one has to be sent again; it tells whether there was one.
func (s *reads) steal() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.flights {
		if f.spent() {
			return true
		}
	}
	return false
}

// spent gives the chunks of a small flight back if nobody has to read them.
func (f *flight) spent() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.small || !f.whole || f.base == f.head {
		return false
	}
	for _, p := range f.places {
		if !p.spool && p.pos < f.desc.Size {
			return false
		}
	}
	f.clear()
	return true
}
