package sweep

import (
	"hash/fnv"
	"io"
	"time"
)

// isDue tells whether something done at a time is to be done again, at least
// once in every. Each (repository, tag) has a moment of its own between half of
// every and all of it, always the same, so that what was done at once is done
// again in shares.
func isDue(at time.Time, every time.Duration, now time.Time, what, repository, tag string) bool {
	if every <= 0 {
		return false
	}
	h := fnv.New64a()
	for _, s := range []string{what, repository, tag} {
		_, _ = io.WriteString(h, s) // a hash.Hash never fails
		_, _ = h.Write([]byte{0})
	}
	half := every / 2
	return now.Sub(at) >= half+time.Duration(h.Sum64()%uint64(half+1))
}
