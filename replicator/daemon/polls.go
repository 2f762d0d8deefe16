package daemon

import (
	"sync"
	"time"
)

// A Polled is what the polls of one registry have come to.
type Polled struct {
	// Seen is since when the registry has been looked at to its end, by a poll or
	// by the sweeps that made one unnecessary; zero: it has not, or is not ours to
	// poll.
	Seen time.Time
	// Requests were sent by polls since the start of the process.
	Requests int64
}

// polls are those of all registries, by name.
type polls struct {
	mu sync.Mutex
	of map[string]Polled
}

func (p *polls) change(registry string, change func(*Polled)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = make(map[string]Polled)
	}
	one := p.of[registry]
	change(&one)
	p.of[registry] = one
}

func (p *polls) saw(registry string, at time.Time) {
	p.change(registry, func(one *Polled) { one.Seen = at })
}

func (p *polls) sent(registry string, requests int64) {
	p.change(registry, func(one *Polled) { one.Requests += requests })
}

// Polls are what the polls of registries have come to, by name.
func (d *Daemon) Polls() map[string]Polled {
	d.polls.mu.Lock()
	defer d.polls.mu.Unlock()
	out := make(map[string]Polled, len(d.polls.of))
	for name, one := range d.polls.of {
		out[name] = one
	}
	return out
}
