package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/vbauerster/mpb/v8"

	"github.com/twinport/twinport/replicator/api"
)

// The bars are drawn by a goroutine of their own, which reads what tell writes.
func TestBarsAreDrawnWhileToldOf(t *testing.T) {
	var out bytes.Buffer
	p := &progress{started: time.Now()}
	p.draw(mpb.WithOutput(&out), mpb.WithAutoRefresh(), mpb.WithRefreshRate(time.Millisecond))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range int64(5000) {
			p.tell(api.Progress{Waiting: 5000 - i, Running: 1, Ended: i, WrittenBytes: i << 20})
		}
		p.end()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("the bars and what tells of progress wait for each other")
	}
	for _, want := range []string{"images", "bytes", "/s", "left"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("nothing on the screen says %q", want)
		}
	}
}

func TestPlainLinesWhereThereIsNoTerminal(t *testing.T) {
	var out bytes.Buffer
	p := &progress{out: &out, started: time.Now().Add(-time.Minute), lastRow: time.Now().Add(-plainEvery)}
	p.tell(api.Progress{Waiting: 2, Running: 1, Ended: 7, WrittenBytes: 3 << 20})
	p.tell(api.Progress{Waiting: 1, Running: 1, Ended: 8, WrittenBytes: 4 << 20})
	p.end()
	if got, want := out.String(), "1m00s: 7 of 10 images, 3.0 MiB written, 1 running\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
