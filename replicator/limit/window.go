package limit

import "time"

// An outcome is what an answer says about how many requests at once a registry
// bears.
type outcome int

const (
	// silent: it says nothing (the caller gave up, the body to send failed).
	silent outcome = iota
	good
	// refused: 429.
	refused
	// overloaded: 502, 503, 504 or no answer.
	overloaded
)

const (
	// firstWindow is where a class begins, firstCheap where one does whose
	// answers are small: asking for a thousand tags takes few round trips then.
	firstWindow, firstCheap = 8, 64
	// latencyFloor is the window below which rising latency shrinks nothing:
	// the registry is slow, not crowded.
	latencyFloor = 4
	// latencyNoise in seconds is what a busy machine adds by itself.
	latencyNoise = 0.2
	// A judgement needs so many answers.
	enoughAnswers = 16
	// deafTime is how long refusals that do not depend on the window are left alone.
	deafTime = time.Minute
	// baseTime is how long a lowest latency is remembered, at least.
	baseTime = time.Minute
)

// A window is how many requests of one class may be under way at once. It
// grows while it is used: by one with each good answer until the first
// shrinking, then by one with each windowful. It shrinks once per epoch, that
// is, by answers to requests that set out after the last shrinking: to half on
// overload; to four fifths when latency has risen to three times the lowest of
// late; to half on a 429, by way of trial: if the share of refusals at a window
// of one is still what it was (a quota over time refuses so), the window is
// restored and refusals shrink nothing for a minute. Where they fade on the way
// they grow with the window, and it goes on from there.
type window struct {
	size, limit float64
	first       float64
	epoch       int
	seeking     bool // no shrinking yet

	cur   sample
	trial sample // where the halving began; size 0: no trial
	deaf  time.Time

	latency  float64 // seconds, smoothed over the epoch
	answers  int     // in latency
	low, old float64 // lowest latency of this and the last baseTime; 0: none
	lowSince time.Time
}

// A sample is what a window's size met with.
type sample struct {
	id         int
	size       float64
	n, refused int
}

func (s sample) share() float64 {
	if s.n == 0 {
		return 0
	}
	return float64(s.refused) / float64(s.n)
}

func newWindow(first, limit int) window {
	w := window{first: float64(first), limit: float64(limit)}
	w.reset()
	return w
}

// reset begins anew: after an outage nothing of what was learned holds.
func (w *window) reset() {
	size := min(w.first, w.limit)
	*w = window{first: w.first, size: max(size, min(w.size, w.limit)), limit: w.limit, epoch: w.epoch + 1, seeking: true, cur: sample{id: w.cur.id + 1}}
	w.cur.size = w.size
}

// whole is the window in requests.
func (w *window) whole() int { return int(w.size) }

// A start is what a request remembers of the window it set out under.
type start struct{ epoch, sample int }

func (w *window) start() start { return start{w.epoch, w.cur.id} }

// answered learns from one answer. busy says that the window was in use;
// latency of 0 is not judged.
func (w *window) answered(s start, o outcome, busy bool, latency time.Duration, now time.Time) {
	if o == silent {
		return
	}
	for _, sample := range []*sample{&w.cur, &w.trial} {
		if sample.id == s.sample {
			sample.n++
			if o == refused {
				sample.refused++
			}
		}
	}
	fresh := s.epoch == w.epoch
	switch {
	case o == good:
		if fresh && latency > 0 && w.rising(latency.Seconds(), now) {
			if w.size > latencyFloor {
				w.resize(max(latencyFloor, w.size*0.8))
			}
			return
		}
		if fresh && busy {
			w.grow()
		}
	case !fresh:
	case o == overloaded:
		w.resize(w.size / 2)
	default:
		w.refuse(now)
	}
}

func (w *window) grow() {
	if w.trial.size > 0 {
		if w.cur.n < enoughAnswers || w.cur.share() >= w.trial.share()/3 {
			return
		}
		w.trial = sample{}
	}
	step := 1.0
	if !w.seeking {
		step = 1 / w.size
	}
	w.size = min(w.limit, w.size+step)
	if w.size >= 1.1*w.cur.size && w.cur.n >= enoughAnswers {
		w.nextSample()
	}
}

// resize ends the epoch with another size.
func (w *window) resize(size float64) {
	w.size = min(w.limit, max(1, size))
	w.epoch++
	w.seeking = false
	w.latency, w.answers = 0, 0
	w.nextSample()
}

func (w *window) nextSample() {
	w.cur = sample{id: w.cur.id + 1, size: w.size}
}

// refuse answers a 429.
func (w *window) refuse(now time.Time) {
	switch {
	case now.Before(w.deaf) || w.cur.refused < 2:
	case w.trial.size == 0:
		w.trial = w.cur
		w.trial.size = w.size
		w.resize(w.size / 2)
	case w.size > 1:
		w.resize(w.size / 2)
	case w.cur.n >= enoughAnswers && w.cur.share() >= w.trial.share()/3:
		w.resize(w.trial.size)
		w.trial = sample{}
		w.deaf = now.Add(deafTime)
	}
}

// rising takes one latency in and tells whether it has risen: the registry
// queues what we send it.
func (w *window) rising(latency float64, now time.Time) bool {
	if now.Sub(w.lowSince) >= baseTime {
		w.old, w.low, w.lowSince = w.low, 0, now
	}
	if w.low == 0 || latency < w.low {
		w.low = latency
	}
	base := w.low
	if w.old > 0 {
		base = min(base, w.old)
	}
	w.answers++
	if w.answers == 1 {
		w.latency = latency
	} else {
		w.latency += 0.2 * (latency - w.latency)
	}
	return w.answers >= enoughAnswers && w.latency > 3*base+latencyNoise
}
