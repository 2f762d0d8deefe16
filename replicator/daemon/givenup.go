package daemon

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

const (
	// maxGivenUp bounds the tags whose given-up moves are remembered.
	maxGivenUp = 10_000
	// maxGivenUpMoves bounds those of one tag: the latest count.
	maxGivenUpMoves = 16
)

// givenUp remembers, for lateFor, moves whose answers never came: what is on
// record of them ends with the next proof, and they may come after that. It is
// kept in memory; after a crash the sweeps see what came late.
type givenUp struct {
	mu    sync.Mutex
	moves map[placeTag][]givenUpMove
}

type givenUpMove struct {
	digest digest.Digest
	at     time.Time
}

func (g *givenUp) note(p replicator.Place, tag string, d digest.Digest, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	k := placeTag{p.Identity, p.Repository, tag}
	if g.moves == nil {
		g.moves = make(map[placeTag][]givenUpMove)
	}
	if g.moves[k] == nil && len(g.moves) >= maxGivenUp {
		maps.DeleteFunc(g.moves, func(_ placeTag, moves []givenUpMove) bool {
			return now.Sub(moves[len(moves)-1].at) > lateFor
		})
		if len(g.moves) >= maxGivenUp {
			return
		}
	}
	moves := slices.DeleteFunc(g.moves[k], func(m givenUpMove) bool { return m.digest == d || now.Sub(m.at) > lateFor })
	moves = append(moves, givenUpMove{d, now})
	g.moves[k] = moves[max(0, len(moves)-maxGivenUpMoves):]
}

// of gives the digests that moves of a tag may still bring.
func (g *givenUp) of(p replicator.Place, tag string, now time.Time) []digest.Digest {
	g.mu.Lock()
	defer g.mu.Unlock()
	var digests []digest.Digest
	for _, m := range g.moves[placeTag{p.Identity, p.Repository, tag}] {
		if now.Sub(m.at) <= lateFor {
			digests = append(digests, m.digest)
		}
	}
	return digests
}
