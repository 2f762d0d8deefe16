package daemon

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

func TestOneWay(t *testing.T) {
	const a, b, c = digest.Digest("a"), digest.Digest("b"), digest.Digest("c")
	for _, test := range []struct {
		name             string
		src, dst, proven digest.Digest
		overwrite        bool
		want             move
		preserve         bool
	}{
		{"both the same", a, a, a, false, nothing, false},
		{"both the same, nothing on record", a, a, "", false, nothing, false},
		{"destination lacks the tag", a, "", "", false, forward, false},
		{"destination lost the tag", a, "", a, false, forward, false},
		{"source moved", b, a, a, false, forward, false},
		{"source rolled back", a, b, b, false, forward, false},
		{"somebody moved the destination", a, b, a, false, keepDrift, false},
		{"somebody moved the destination, overwrite", a, b, a, true, forward, true},
		{"both moved", b, c, a, false, forward, true},
		{"nothing on record and they differ", a, b, "", false, forward, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, preserve := oneWay(test.src, test.dst, test.proven, test.overwrite)
			if got != test.want || preserve != test.preserve {
				t.Errorf("oneWay(%q, %q, proven %q) = %d, preserve %t; want %d, %t", test.src, test.dst, test.proven, got, preserve, test.want, test.preserve)
			}
		})
	}
}

func TestBetween(t *testing.T) {
	base := func(d digest.Digest, intents ...replicator.Intent) replicator.Base {
		return replicator.Base{Digest: d, Intents: intents}
	}
	for _, test := range []struct {
		name string
		a, b digest.Digest
		base replicator.Base
		want move
	}{
		{"equal", "x", "x", base("w"), nothing},
		{"new at a", "x", "", base(""), forward},
		{"new at b", "", "x", base(""), backward},
		{"a moved", "x", "w", base("w"), forward},
		{"b moved", "w", "x", base("w"), backward},
		{"both moved", "x", "y", base("w"), conflict},
		{"never shared and they differ", "x", "y", base(""), conflict},
		{"our write to b was cut off before the PUT", "x", "w", base("w", replicator.Intent{Old: "w", New: "x"}), forward},
		{"our write to b arrived, then a moved on", "y", "x", base("w", replicator.Intent{Old: "w", New: "x"}), forward},
		{"our write to b arrived, then b moved on", "x", "y", base("w", replicator.Intent{Old: "w", New: "x"}), backward},
		{"our write to a was cut off and b moved on", "w", "y", base("w", replicator.Intent{Old: "w", New: "x"}), backward},
		{"after a cut-off write both moved", "y", "z", base("w", replicator.Intent{Old: "w", New: "x"}), conflict},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := between(test.a, test.b, test.base); got != test.want {
				t.Errorf("between(%q, %q, %+v) = %d, want %d", test.a, test.b, test.base, got, test.want)
			}
		})
	}
}
