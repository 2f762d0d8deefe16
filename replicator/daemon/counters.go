package daemon

import (
	"maps"
	"sync"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/transfer"
)

// RouteDestination names one destination of one route.
type RouteDestination struct{ Route, Destination string }

// Totals are what the process has done since its start.
type Totals struct {
	// Copied counts destination tags (and untagged digests) that were made and
	// proven, Moved those that named something else before.
	Copied, Moved int64
	// Deleted counts destination tags that were removed with their source's.
	Deleted map[RouteDestination]int64
	// Ended counts jobs that ended, however.
	Ended int64
	// TagWrites counts the PUTs that moved a tag.
	TagWrites int64
	// ReadBytes came from sources, WrittenBytes went to destinations, steps
	// included that a retry repeated.
	ReadBytes, WrittenBytes int64
	// CopiedBytes are those of copies that ended.
	CopiedBytes map[RouteDestination]int64
}

// counters gather totals; replication is told how long each push took to proof.
type counters struct {
	mu          sync.Mutex
	totals      Totals
	replication func(route, destination string, took time.Duration)
}

func (c *counters) progress(p transfer.Progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.Destination < 0 {
		c.totals.ReadBytes += p.Bytes
	} else {
		c.totals.WrittenBytes += p.Bytes
	}
}

func (c *counters) copied(route, destination string, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.totals.CopiedBytes == nil {
		c.totals.CopiedBytes = make(map[RouteDestination]int64)
	}
	c.totals.CopiedBytes[RouteDestination{route, destination}] += bytes
}

func (c *counters) deleted(route, destination string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.totals.Deleted == nil {
		c.totals.Deleted = make(map[RouteDestination]int64)
	}
	c.totals.Deleted[RouteDestination{route, destination}]++
}

func (c *counters) moved() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.totals.TagWrites++
}

// ended counts a job that ended.
func (c *counters) ended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.totals.Ended++
}

// arrived counts a destination tag that names something new: made or moved.
func (c *counters) arrived(made bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if made {
		c.totals.Copied++
	} else {
		c.totals.Moved++
	}
}

func (c *counters) proven(j replicator.Job, now time.Time) {
	c.mu.Lock()
	observe := c.replication
	c.mu.Unlock()
	if observe == nil {
		return
	}
	for _, w := range j.Wants {
		observe(w.Route, w.Destination, max(now.Sub(j.BehindSince), 0))
	}
}

// Totals are what the process has done since its start.
func (d *Daemon) Totals() Totals {
	d.journey.mu.Lock()
	defer d.journey.mu.Unlock()
	t := d.journey.totals
	t.CopiedBytes = make(map[RouteDestination]int64, len(d.journey.totals.CopiedBytes))
	for k, v := range d.journey.totals.CopiedBytes {
		t.CopiedBytes[k] = v
	}
	t.Deleted = maps.Clone(d.journey.totals.Deleted)
	return t
}

// ObserveReplication has f told how long each proven push took from push to
// proof; it is called before Run.
func (d *Daemon) ObserveReplication(f func(route, destination string, took time.Duration)) {
	d.journey.mu.Lock()
	defer d.journey.mu.Unlock()
	d.journey.replication = f
}
