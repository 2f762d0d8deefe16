package main

import (
	"fmt"
	"slices"
)

// What counts as flat. Between the medians of the second and the last quarter
// of the daemon's last life, and at rest before and after all of it.
const (
	share         = 20       // percent that anything may differ by, plus:
	fewGoroutines = 80       // connections that are kept open, two each
	fewFiles      = 40       // the same
	fewBytes      = 24 << 20 // memory that the collector had not returned yet
	atRest        = 10       // goroutines or descriptors more than before the load
	// The journal keeps what every push was for its `history` and longer; an
	// action of the load, to two destinations, may cost this much of it.
	journalPerAction = 8 << 10
	// Alive on the heap at rest are memory for blobs, kept for the next ones (small
	// ones take up to 30 MiB of it), and names of what was seen lately, at most so
	// many.
	aliveMore = 40 << 20
	// SQLite's write-ahead log is reused, and cut back to 64 MiB.
	logAtMost = 80 << 20
)

func restAllowed(before int64) int64 { return before + before*share/100 + atRest }

// A report is all that was measured.
type report struct {
	before, after sample // at rest
	samples       []sample
	missed        int
	// alive are bytes on the heap at rest before and after, garbage collected.
	alive, aliveAgain int64
}

func (r report) quarter(n int, of func(sample) int64) int64 {
	part := r.samples[len(r.samples)*(n-1)/4 : len(r.samples)*n/4]
	values := make([]int64, len(part))
	for i, s := range part {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func (r report) most(of func(sample) int64) (most int64) {
	for _, s := range r.samples {
		most = max(most, of(s))
	}
	return most
}

// A row is one thing that has to be flat.
type row struct {
	name string
	of   func(sample) int64
	few  int64 // beside share
	rest bool  // it comes back to what it was before the load
	show func(int64) string
}

var rows = []row{
	{"goroutines", func(s sample) int64 { return s.goroutines }, fewGoroutines, true, count},
	{"descriptors", func(s sample) int64 { return s.descriptors }, fewFiles, true, count},
	{"resident memory", func(s sample) int64 { return s.resident }, fewBytes, false, mebibytes},
	{"heap in use", func(s sample) int64 { return s.heap }, fewBytes, false, mebibytes},
	{"spool and other files", func(s sample) int64 { return s.other }, fewBytes, false, mebibytes},
}

func count(n int64) string     { return fmt.Sprint(n) }
func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// judge prints the table and fails where something is not flat.
func (w *world) judge(r report) {
	if len(r.samples) < 20 || r.missed > len(r.samples)/4 {
		w.Fatalf("%d samples were taken and %d missed: too few to tell", len(r.samples), r.missed)
	}
	w.Say("")
	w.Say("%-22s %12s %12s %12s %12s %12s %12s", "", "at rest", "2nd quarter", "4th quarter", "allowed", "most", "rest again")
	for _, row := range rows {
		second, last := r.quarter(2, row.of), r.quarter(4, row.of)
		allowed := second + second*share/100 + row.few
		verdict := ""
		if last > allowed {
			verdict = "  GREW"
		}
		if row.rest && row.of(r.after) > restAllowed(row.of(r.before)) {
			verdict += "  NOT GIVEN BACK"
		}
		w.Say("%-22s %12s %12s %12s %12s %12s %12s%s", row.name, row.show(row.of(r.before)), row.show(second), row.show(last),
			row.show(allowed), row.show(r.most(row.of)), row.show(row.of(r.after)), verdict)
		if verdict != "" {
			w.Errorf("%s:%s", row.name, verdict)
		}
	}
	verdict := ""
	if r.aliveAgain > r.alive+aliveMore {
		verdict = "  GREW"
		w.Errorf("%s are alive on the heap at rest, before the load %s", mebibytes(r.aliveAgain), mebibytes(r.alive))
	}
	w.Say("%-22s from %s to %s at rest (allowed %s); .cache/profile/soak.{before,after}.heap tell of what%s",
		"alive on the heap", mebibytes(r.alive), mebibytes(r.aliveAgain), mebibytes(r.alive+aliveMore), verdict)
	w.judgeJournal(r)
	w.Say("(medians of %d samples, %d missed; flat: at most %d %% more, and %d goroutines, %d descriptors or %s)",
		len(r.samples), r.missed, share, fewGoroutines, fewFiles, mebibytes(fewBytes))
	w.Say("")
}

// judgeJournal allows the journal what its retention keeps of every action.
func (w *world) judgeJournal(r report) {
	first, last := r.samples[0], r.samples[len(r.samples)-1]
	grown, actions := last.journal-first.journal, max(last.actions-first.actions, 1)
	verdict := ""
	if grown/actions > journalPerAction {
		verdict = "  GREW"
		w.Errorf("the journal grew by %d bytes per action, %d are allowed", grown/actions, journalPerAction)
	}
	w.Say("%-22s from %s to %s: %d bytes per push, retag or delete (allowed %d)%s", "journal",
		mebibytes(first.journal), mebibytes(last.journal), grown/actions, journalPerAction, verdict)
	verdict = ""
	if most := r.most(func(s sample) int64 { return s.log }); most > logAtMost {
		verdict = "  GREW"
		w.Errorf("the journal's write-ahead log was %s, %s are allowed", mebibytes(most), mebibytes(logAtMost))
	}
	w.Say("%-22s at most %s (allowed %s)%s", "its write-ahead log", mebibytes(r.most(func(s sample) int64 { return s.log })), mebibytes(logAtMost), verdict)
}
