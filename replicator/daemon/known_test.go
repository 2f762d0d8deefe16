package daemon

import (
	"fmt"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
)

func TestAbsencesAreFewAndFresh(t *testing.T) {
	var a absences
	at := time.Unix(0, 0)
	place := replicator.Place{Identity: "oci://us", Repository: "team/app"}
	for i := range 3 * maxAbsences {
		a.note(place, fmt.Sprint("v", i), at)
		if n := len(a.seen) + len(a.before); n > 2*maxAbsences {
			t.Fatalf("%d are remembered", n)
		}
	}
	last := fmt.Sprint("v", 3*maxAbsences-1)
	if !a.recent(place, last, at.Add(absenceHolds-1)) || a.recent(place, last, at) {
		t.Error("the latest is not known once")
	}
	earlier := fmt.Sprint("v", 2*maxAbsences)
	if a.recent(place, earlier, at.Add(absenceHolds)) {
		t.Error("one that is too old is known")
	}
	for n := range 2 {
		a.note(place, "later", at.Add(time.Duration(n+1)*absenceHolds))
	}
	if n := len(a.seen) + len(a.before); n != 2 {
		t.Errorf("%d are remembered though all but one are too old", n)
	}
}

func TestCompanionsAreFewAndFresh(t *testing.T) {
	var c companions
	at := time.Unix(0, 0)
	tag := func(n int) string { return fmt.Sprintf("sha256-%064x.sig", n) }
	place := func(n int) replicator.Place {
		return replicator.Place{Identity: "oci://eu", Repository: fmt.Sprint("team/app", n)}
	}
	tags := make([]string, 10_000)
	for i := range tags {
		tags[i] = tag(2 * i)
	}
	for r := range 3 * maxListed / len(tags) {
		c.listed(place(r), tags, at)
		c.listed(place(r), tags, at) // once more makes no more
		held := 0
		for _, seen := range c.seen {
			held += len(seen.hashes)
		}
		if held != c.held || held > maxListed {
			t.Fatalf("%d tags are held, counted as %d", held, c.held)
		}
		has := c.of(place(r), at.Add(listingHolds))
		for _, i := range []int{0, 1, 2, 9998, 9999, 20_000} {
			if present, known := has(tag(i)); !known || present != (i%2 == 0 && i < 20_000) {
				t.Errorf("%s: present %t, known %t", tag(i), present, known)
			}
		}
		if _, known := has("v1"); known {
			t.Error("a tag that travels with nothing is known")
		}
	}
	if c.of(place(3*maxListed/len(tags)-1), at.Add(listingHolds+1)) != nil {
		t.Error("a listing that is too old tells something")
	}
	for r := range maxListings + 10 {
		if c.listed(place(r), nil, at); len(c.seen) > maxListings {
			t.Fatalf("%d repositories are remembered", len(c.seen))
		}
	}
}
