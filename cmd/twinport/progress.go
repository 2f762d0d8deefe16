package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/twinport/twinport/replicator/api"
)

// plainEvery is how often a line is printed where there is no terminal.
const plainEvery = 10 * time.Second

// A progress shows how far a command is: bars on a terminal, a line now and
// then elsewhere, nothing beside JSON.
type progress struct {
	out     io.Writer
	silent  bool
	started time.Time
	lastRow time.Time
	bars    *mpb.Progress
	images  *mpb.Bar
	bytes   *mpb.Bar

	mu   sync.Mutex
	last api.Progress
}

func newProgress(out *os.File, silent bool) *progress {
	p := &progress{out: out, silent: silent, started: time.Now(), lastRow: time.Now()}
	if silent || !term.IsTerminal(int(out.Fd())) {
		return p
	}
	p.draw(mpb.WithOutput(out), mpb.WithRefreshRate(200*time.Millisecond))
	return p
}

// draw begins the bars.
func (p *progress) draw(options ...mpb.ContainerOption) {
	p.bars = mpb.New(append(options, mpb.WithWidth(40))...)
	p.images = p.bars.AddBar(0,
		mpb.PrependDecorators(decor.Name("images ", decor.WC{W: 8}), decor.CountersNoUnit("%d / %d", decor.WC{W: 18})),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return p.eta() })))
	p.bytes = p.bars.AddSpinner(0,
		mpb.PrependDecorators(decor.Name("bytes ", decor.WC{W: 8}), decor.Any(func(decor.Statistics) string { return p.rate() })))
}

// tell takes how far the work is. The bars are moved without the lock, since
// their own goroutine asks for it while it draws.
func (p *progress) tell(now api.Progress) {
	p.mu.Lock()
	p.last = now
	p.mu.Unlock()
	total := now.Ended + now.Waiting + now.Running
	switch {
	case p.silent:
	case p.bars != nil:
		p.images.SetTotal(max(total, 1), false)
		p.images.SetCurrent(now.Ended)
	case time.Since(p.lastRow) >= plainEvery:
		p.lastRow = time.Now()
		fmt.Fprintf(p.out, "%s: %d of %d images, %s written, %d running\n",
			seconds(time.Since(p.started).Seconds()), now.Ended, total, size(now.WrittenBytes), now.Running)
	}
}

func (p *progress) eta() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := p.last.Waiting + p.last.Running
	if p.last.Ended == 0 || left == 0 {
		return " "
	}
	each := time.Since(p.started).Seconds() / float64(p.last.Ended)
	return " " + seconds(each*float64(left)) + " left"
}

func (p *progress) rate() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	per := float64(p.last.WrittenBytes) / max(time.Since(p.started).Seconds(), 0.001)
	return fmt.Sprintf("%s written, %s/s, %d running", size(p.last.WrittenBytes), size(int64(per)), p.last.Running)
}

// end takes the bars away.
func (p *progress) end() {
	if p.bars == nil {
		return
	}
	p.images.Abort(true)
	p.bytes.Abort(true)
	p.bars.Wait()
}
