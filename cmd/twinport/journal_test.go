package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinport/twinport/replicator/journal"
)

// TestJournalCommands: damage is refused with what to do, told by check, mended
// by rebuild, and costs one sweep.
func TestJournalCommands(t *testing.T) {
	b := newBench(t, "  - {name: prod, from: eu, to: [us]}\n", "eu", "us")
	b.image("eu", "team/app", "v1", "hello")
	_, stderr := b.ends(1, "journal", "check")
	if !strings.Contains(stderr, "no journal") {
		t.Errorf("without a journal: %s", stderr)
	}
	b.ends(1, "journal", "rebuild")
	b.ends(0, "sync")
	sound := b.json(0, "journal", "check")
	b.keys(sound, "path", "bytes", "schema", "knows", "sound", "problems", "rows", "jobs")
	if sound["sound"] != true {
		t.Errorf("%v", sound)
	}
	if r := b.json(0, "journal", "rebuild"); r["aside"] != "" {
		t.Errorf("a sound journal was rebuilt: %v", r)
	}

	path := filepath.Join(b.dir, "data", "journal.db")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 3 * 4096; at < len(content); at += 5 * 4096 { // every fifth page
		clear(content[at : at+4096])
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"serve"}, {"sync"}} {
		if _, stderr := b.ends(1, command...); !strings.Contains(stderr, "twinport journal rebuild") {
			t.Errorf("%v does not say what to do: %s", command, stderr)
		}
	}
	stdout, stderr := b.ends(1, "journal", "check")
	if !strings.Contains(stdout, "damaged") || !strings.Contains(stdout, "PROBLEM") || !strings.Contains(stderr, "rebuild") {
		t.Errorf("check says %s%s", stdout, stderr)
	}
	if damaged := b.json(1, "journal", "check"); damaged["sound"] != false {
		t.Errorf("%v", damaged)
	}
	r := b.json(0, "journal", "rebuild")
	b.keys(r, "path", "aside", "kept", "lost", "unread")
	aside, err := os.ReadFile(r["aside"].(string))
	if err != nil || !bytes.Equal(aside, content) {
		t.Errorf("what was set aside is not what was there: %v", err)
	}
	b.ends(0, "journal", "check")
	b.ends(0, "sync") // the one sweep
	if checked := b.json(0, "verify"); checked["checked"] == "0" {
		t.Errorf("nothing is proven again: %v", checked)
	}
	if stdout, _ := b.ends(0, "journal", "rebuild", "--force"); !strings.Contains(stdout, "THE OLD ONE") {
		t.Errorf("forced: %s", stdout)
	}
	b.ends(0, "sync")
}

// TestRebuildOfALockedJournal: not under a daemon.
func TestRebuildOfALockedJournal(t *testing.T) {
	b := newBench(t, "  - {name: prod, from: eu, to: [us]}\n", "eu", "us")
	j, err := journal.Open(t.Context(), journal.Options{Dir: filepath.Join(b.dir, "data")})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if _, stderr := b.ends(1, "journal", "rebuild", "--force"); !strings.Contains(stderr, "stop the daemon") {
		t.Errorf("it says %s", stderr)
	}
	b.ends(0, "journal", "check")
}
