package daemon

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

func TestKeep(t *testing.T) {
	one, two := digest.FromString("one"), digest.FromString("two")
	source := replicator.Place{Registry: "eu", Identity: "oci://eu", Repository: "team/app"}
	ours := replicator.Record{Route: "prod", Source: source, Digest: one, Wrote: true}
	good := tagFacts{
		selected: true, oneWay: true, digest: one, record: ours, known: true, wrote: true, source: source, route: "prod",
		deleter: true, looked: true, present: one,
	}
	for _, c := range []struct {
		name   string
		change func(*tagFacts)
		why    string // a part of it, empty: it goes
		quiet  bool
		forget bool
	}{
		{"it goes", func(*tagFacts) {}, "", false, false},
		{"it goes, as far as the journal knows", func(f *tagFacts) { f.looked, f.present = false, "" }, "", false, false},
		{"somebody else has removed it already", func(f *tagFacts) { f.present = "" }, "", false, false},
		{"a removal that was cut off goes on", func(f *tagFacts) { f.begun, f.known, f.wrote, f.record = true, false, false, replicator.Record{} }, "", false, false},
		{"the filter was narrowed", func(f *tagFacts) { f.selected, f.why = false, "tag v1 is excluded" }, "filters", true, false},
		{"two registries that feed each other", func(f *tagFacts) { f.oneWay = false }, "feed each other", false, false},
		{"a fallback tag", func(f *tagFacts) { f.fallback = true }, "both sides", true, false},
		{"another route wants it", func(f *tagFacts) { f.sharing = []string{"dr"} }, "route dr", false, false},
		{"no record: a lost journal", func(f *tagFacts) { f.known, f.wrote, f.record = false, false, replicator.Record{} }, "nothing is on record", true, true},
		{"written by another route", func(f *tagFacts) { f.record.Route = "old" }, "another's", true, true},
		{"from another source", func(f *tagFacts) { f.record.Source.Repository = "team/web" }, "another's", true, true},
		{"proven as something else since", func(f *tagFacts) { f.record.Digest = two }, "another image", true, true},
		{"moved while the source was silent", func(f *tagFacts) { f.record.Unconfirmed = true }, "confirmed", true, false},
		{"there before us", func(f *tagFacts) { f.wrote = false }, "never written", false, false},
		{"a signature whose image stays", func(f *tagFacts) { f.subject, f.subjectStays = two, true }, "stays", true, false},
		{"a registry that removes no tags", func(f *tagFacts) { f.deleter = false }, "removes no tags", false, false},
		{"moved there by somebody else", func(f *tagFacts) { f.present = two }, "somebody else", false, false},
		{"referrers would be left without their subject", func(f *tagFacts) { f.dropped, f.referrers = true, 2 }, "2 referrers", false, false},
		{"the manifest goes with its last tag, and nothing refers to it", func(f *tagFacts) { f.dropped = true }, "", false, false},
		{"a removal that was cut off, and the tag moved since", func(f *tagFacts) {
			f.begun, f.known, f.wrote, f.record, f.present = true, false, false, replicator.Record{}, two
		}, "somebody else", false, false},
	} {
		f := good
		c.change(&f)
		k := keep(f)
		if (k.why == "") != (c.why == "") || !strings.Contains(k.why, c.why) || k.quiet != c.quiet || k.forget != c.forget {
			t.Errorf("%s: %+v", c.name, k)
		}
		if k.why != "" && !k.quiet && k.hint == "" {
			t.Errorf("%s: a person is told %q and not what to do", c.name, k.why)
		}
	}
}

func TestMost(t *testing.T) {
	for _, c := range []struct {
		atMost float64
		proven int64
		want   int64
	}{{0.05, 0, 1}, {0.05, 1, 1}, {0.05, 20, 1}, {0.05, 39, 1}, {0.05, 40, 2}, {0.05, 1000, 50}, {1, 7, 7}, {0.001, 100, 1}, {0.29, 100, 29}} {
		if got := most(c.atMost, c.proven); got != c.want {
			t.Errorf("%g of %d: %d, want %d", c.atMost, c.proven, got, c.want)
		}
	}
}
