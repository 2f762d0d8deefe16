package transfer

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// However connections break, fall silent or lose their ranges, at whatever
// speed and with whatever memory, a blob's bytes come in order and whole.
func TestRangedReadsThroughAnyFaults(t *testing.T) {
	content, desc := randomBlob(wholeSize + 41*mega + 12345)
	seeds := uint64(60)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 7))
				pick := func(of ...int) int { return of[random.IntN(len(of))] }
				rtt := time.Duration(pick(1, 10, 80, 250)) * time.Millisecond
				speed := pick(5e6, 20e6, 100e6)
				link := speed * pick(1, 4, 16)
				cuts, silences := pick(0, 4, 20, 60)*mega, pick(0, 0, 30)*mega
				chunks, perChunk := pick(4, 30, 192), time.Duration(pick(0, 0, 5))*time.Millisecond
				lost := int64(pick(0, 0, 0, 5, 40))
				var mu sync.Mutex
				draw := func(mean int) func() int {
					if mean == 0 {
						return nil
					}
					return func() int {
						mu.Lock()
						defer mu.Unlock()
						return 256<<10 + int(random.ExpFloat64()*float64(mean))
					}
				}
				f := &farSource{
					content: content, rtt: rtt, perConnection: speed, perLink: link,
					cut: draw(cuts), silent: draw(silences),
				}
				if lost > 0 {
					f.noRanges = func(request int64) bool { return request > lost }
					// Without ranges each break begins anew: not too many of them.
					f.cut, f.silent = nil, nil
				}
				t.Logf("rtt %s, %d MB/s of %d, cut each %d, silent each %d, %d chunks, %s a chunk, ranges lost after %d",
					rtt, speed/1e6, link/1e6, cuts/mega, silences/mega, chunks, perChunk, lost)
				took := readAll(t, f, desc, newPool(chunks), perChunk)
				if most := 40 * time.Minute; took > most {
					t.Errorf("took %s", took)
				}
			})
		})
	}
}
