package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// earliestCreated: reproducible builds write 1970 or 1980 as an image's time.
var earliestCreated = time.Date(1991, 1, 1, 0, 0, 0, 0, time.UTC)

// Ages tells whether a route chooses tags by their age, so that SelectTags is
// to be asked, and how many of the newest it keeps (0: all that pass maxAge).
func (r *Rules) Ages(route string) (needed bool, newest int) {
	ru := r.byName[route]
	if ru == nil {
		return false, 0
	}
	return ru.Tags.MaxAge > 0 || ru.Tags.Newest > 0, ru.Tags.Newest
}

// SelectTags chooses among the tags of one repository by a route's maxAge and
// newest, one choice per tag in the same order. The tags have passed SelectsTag.
//
// A tag's age is the listing's time for it, else our first sight of it, else
// the image's created if after 1990; times in the future count as now. A tag
// of no known age is kept and counts for nothing. Of equal ages the later
// version goes first, else the later created, else the later name. Tags that
// travel with a subject are not chosen among.
//
// Newest can be chosen in portions: the newest of (the newest of one portion
// and another portion) are the newest of both.
func (r *Rules) SelectTags(route string, tags []replicator.DatedTag, now time.Time) []replicator.TagChoice {
	choices := make([]replicator.TagChoice, len(tags))
	ru := r.byName[route]
	if ru == nil {
		for i := range choices {
			choices[i].Reason = noRoute(route).Error()
		}
		return choices
	}
	aged := make([]aging, 0, len(tags))
	for i, tag := range tags {
		choices[i].Kept = true
		if _, _, companion := oci.CompanionSubject(tag.Name); companion || ru.Tags.MaxAge <= 0 && ru.Tags.Newest <= 0 {
			continue
		}
		at, fromCreated := ageOf(tag, now)
		if at.IsZero() {
			choices[i].NoAge = true
			choices[i].WantsCreated = tag.Created.IsZero()
			continue
		}
		if age := now.Sub(at); ru.Tags.MaxAge > 0 && age > ru.Tags.MaxAge {
			choices[i] = replicator.TagChoice{Reason: fmt.Sprintf("tag %s is %s old%s, over maxAge %s of route %s",
				tag.Name, days(age), map[bool]string{true: " by its image"}[fromCreated], days(ru.Tags.MaxAge), ru.Name)}
			continue
		}
		aged = append(aged, aging{index: i, name: tag.Name, at: at, created: usableCreated(tag, now), asked: !tag.Created.IsZero()})
	}
	if ru.Tags.Newest > 0 && len(aged) > ru.Tags.Newest {
		ru.newest(aged, choices)
	}
	return choices
}

// An aging is a tag whose age is known.
type aging struct {
	index   int
	name    string
	at      time.Time
	created time.Time // zero: unknown or unusable
	asked   bool      // created is known, usable or not
	version *semver.Version
}

// newest keeps the first Newest of the tags and drops the rest.
func (ru *rule) newest(tags []aging, choices []replicator.TagChoice) {
	n := ru.Tags.Newest
	slices.SortStableFunc(tags, func(a, b aging) int { return b.at.Compare(a.at) })
	for from := 0; from < len(tags); {
		to := from + 1
		for to < len(tags) && tags[to].at.Equal(tags[from].at) {
			to++
		}
		if from < n && n < to { // only at the cut does the order of equals matter
			sortEquals(tags[from:to])
			if !allVersions(tags[from:to]) {
				for _, tag := range tags[from:to] {
					choices[tag.index].WantsCreated = !tag.asked
				}
			}
		}
		from = to
	}
	for _, tag := range tags[n:] {
		choice := &choices[tag.index]
		choice.Kept = false
		choice.Reason = fmt.Sprintf("tag %s is not among the newest %d of route %s", tag.name, n, ru.Name)
	}
}

// sortEquals orders tags of one age, later first: by created where all tell
// one, else by name; then those that are versions share out their places among
// themselves by version. So each pair of versions goes by version, and the
// order does not depend on the one they came in.
func sortEquals(tags []aging) {
	byCreated := !slices.ContainsFunc(tags, func(t aging) bool { return t.created.IsZero() })
	slices.SortFunc(tags, func(a, b aging) int {
		if byCreated && !a.created.Equal(b.created) {
			return b.created.Compare(a.created)
		}
		return strings.Compare(b.name, a.name)
	})
	var places []int
	var versions []aging
	for i := range tags {
		if tags[i].version = version(tags[i].name); tags[i].version != nil {
			places = append(places, i)
			versions = append(versions, tags[i])
		}
	}
	slices.SortStableFunc(versions, func(a, b aging) int { return b.version.Compare(a.version) })
	for i, place := range places {
		tags[place] = versions[i]
	}
}

func allVersions(tags []aging) bool {
	return !slices.ContainsFunc(tags, func(t aging) bool { return t.version == nil })
}

// ageOf is when a tag was pushed, as well as we know, and whether only its
// image says so; zero: nothing tells.
func ageOf(tag replicator.DatedTag, now time.Time) (at time.Time, fromCreated bool) {
	for _, at := range []time.Time{tag.ListedAt, tag.SeenAt} {
		if !at.IsZero() {
			return earlier(at, now), false
		}
	}
	return usableCreated(tag, now), true
}

func usableCreated(tag replicator.DatedTag, now time.Time) time.Time {
	if tag.Created.Before(earliestCreated) {
		return time.Time{}
	}
	return earlier(tag.Created, now)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// days shows an age in the words of the config: whole days where it has some.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d < 2*day && d%day != 0 || d < day {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%dd", d/day)
}
