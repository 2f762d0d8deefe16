package simulation

import (
	"time"
)

// A chance is what a simulation draws from. A draw is a hash of the seed, a name
// and the instant: nothing depends on who of those that draw in one instant is
// first, and two that draw the same name in one instant draw the same.
type chance struct {
	seed  uint64
	began time.Time
}

func (c chance) now(name string) draw { return of(c.seed, name, uint64(time.Since(c.began))) }

// of gives the n-th draw of a name.
func of(seed uint64, name string, n uint64) draw {
	const prime = 1099511628211
	h := uint64(14695981039346656037) ^ seed*prime
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * prime
	}
	return draw(mix(h ^ mix(n+1)))
}

// A draw is 64 random bits, and a name for more.
type draw uint64

func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// also is another draw of the same event.
func (d draw) also(what string) draw { return of(uint64(d), what, 0) }

// below is uniform in [0, n).
func (d draw) below(n int) int { return int(uint64(d) >> 1 % uint64(n)) }

// hits is true with a chance in a thousand.
func (d draw) hits(perMille int) bool { return d.below(1000) < perMille }

// between is a time from low to high, shorter ones likelier. Its nanoseconds
// are random, so that sleepers of different names do not wake together.
func (d draw) between(low, high time.Duration) time.Duration {
	u := float64(uint64(d)>>11) / (1 << 53)
	return low + time.Duration(u*u*u*float64(high-low)) + d.also("apart").evenly(0, 100*time.Microsecond)
}

// evenly is a time in [low, high), none likelier.
func (d draw) evenly(low, high time.Duration) time.Duration {
	return low + time.Duration(d.below(int(high-low)))
}
