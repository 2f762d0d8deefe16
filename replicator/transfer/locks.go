package transfer

import (
	"context"
	"sync"
)

// keyedLocks are locks by name, there while somebody wants them.
type keyedLocks struct {
	mu   sync.Mutex
	held map[string]*keyedLock
}

type keyedLock struct {
	turn  chan struct{} // holds one token while locked
	wants int
}

// lock waits for a name's lock; unlock gives it back.
func (l *keyedLocks) lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	k := l.held[name]
	if k == nil {
		k = &keyedLock{turn: make(chan struct{}, 1)}
		l.held[name] = k
	}
	k.wants++
	l.mu.Unlock()
	forget := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.wants--; k.wants == 0 {
			delete(l.held, name)
		}
	}
	select {
	case k.turn <- struct{}{}:
		return func() { <-k.turn; forget() }, nil
	case <-ctx.Done():
		forget()
		return nil, context.Cause(ctx)
	}
}
