package config

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	put := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to string) { // as a config map is swapped
		t.Helper()
		next := filepath.Join(dir, "next")
		if err := os.Symlink(to, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, "twinport.yaml")); err != nil {
			t.Fatal(err)
		}
	}
	text := three + "api: {token: {file: pw}}\nroutes: []\n"
	put("pw", "one")
	put("v1", text)
	put("v2", text+"# changed\n")
	link("v1")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var calls atomic.Int32
		done := make(chan struct{})
		go func() {
			NewWatcher(filepath.Join(dir, "twinport.yaml")).Run(ctx, func() { calls.Add(1) })
			close(done)
		}()
		want := func(n int32, what string) {
			t.Helper()
			time.Sleep(5 * watchEvery)
			synctest.Wait()
			if got := calls.Load(); got != n {
				t.Errorf("%s: %d calls, want %d", what, got, n)
			}
		}
		synctest.Wait()
		want(0, "nothing happened")
		link("v2")
		want(1, "the link was swapped")
		put("pw", "two")
		want(2, "a secret changed")
		for i := range 6 { // still being written
			put("v2", text+"# changed\n"+string(rune('a'+i)))
			time.Sleep(watchEvery)
			synctest.Wait()
		}
		if got := calls.Load(); got != 2 {
			t.Errorf("half-written: %d calls", got)
		}
		want(3, "it was written")
		put("v2", "registries: {eu: {}\n")
		want(4, "it is broken now")
		put("pw", "three")
		want(5, "files of the last good config are still looked at")
		if err := os.Remove(filepath.Join(dir, "twinport.yaml")); err != nil {
			t.Fatal(err)
		}
		want(5, "it is away")
		link("v2")
		want(5, "it is back as it was")
		put("v2", text+"database: {file: later}\n")
		want(6, "it names a missing file")
		put("later", "postgres://x")
		want(7, "the missing file came")
		cancel()
		<-done
	})
}

func TestWatchWaitsForTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "twinport.yaml")
	v := newVigil(path)
	for range 3 {
		if v.look() {
			t.Error("there is nothing yet")
		}
	}
	if err := os.WriteFile(path, []byte(three), 0o600); err != nil {
		t.Fatal(err)
	}
	if v.look() {
		t.Error("taken at first sight")
	}
	if !v.look() || v.look() {
		t.Error("not told once")
	}
}
