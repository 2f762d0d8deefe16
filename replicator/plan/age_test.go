package plan

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/replicator"
)

const day = 24 * time.Hour

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

func listed(name string, age time.Duration) replicator.DatedTag {
	return replicator.DatedTag{Name: name, ListedAt: ago(age)}
}

func seen(name string, age time.Duration) replicator.DatedTag {
	return replicator.DatedTag{Name: name, SeenAt: ago(age)}
}

func created(tag replicator.DatedTag, age time.Duration) replicator.DatedTag {
	tag.Created = ago(age)
	return tag
}

func TestSelectTags(t *testing.T) {
	type tags = []replicator.DatedTag
	unaged := func(name string) replicator.DatedTag { return replicator.DatedTag{Name: name} }
	epoch := func(name string) replicator.DatedTag {
		return replicator.DatedTag{Name: name, Created: time.Unix(0, 0).UTC()}
	}
	for _, tt := range []struct {
		name   string
		filter TagFilter
		tags   tags
		kept   string // names, in the order given
		noAge  string
		wants  string // names whose Created is wanted
	}{
		{"no filter keeps all, asks nothing", TagFilter{}, tags{unaged("a"), listed("b", 999*day)}, "a b", "", ""},
		{"maxAge by the listing", TagFilter{MaxAge: 90 * day}, tags{listed("a", 89*day), listed("b", 91*day)}, "a", "", ""},
		{"maxAge exactly is not over", TagFilter{MaxAge: 90 * day}, tags{listed("a", 90*day)}, "a", "", ""},
		{"maxAge by first sight", TagFilter{MaxAge: 90 * day}, tags{seen("a", 89*day), seen("b", 91*day)}, "a", "", ""},
		{"maxAge by the image", TagFilter{MaxAge: 90 * day}, tags{created(unaged("a"), 89*day), created(unaged("b"), 91*day)}, "a", "", ""},
		{"the listing is before first sight", TagFilter{MaxAge: 90 * day}, tags{{Name: "a", ListedAt: ago(1 * day), SeenAt: ago(99 * day)}}, "a", "", ""},
		{"first sight is before the image", TagFilter{MaxAge: 90 * day}, tags{created(seen("a", 1*day), 99*day)}, "a", "", ""},
		{"no age is kept, told and asked for", TagFilter{MaxAge: day}, tags{unaged("a")}, "a", "a", "a"},
		{"an image of 1970 has no age", TagFilter{MaxAge: day}, tags{epoch("a")}, "a", "a", ""},
		{"an image of 1990 has no age", TagFilter{MaxAge: day}, tags{{Name: "a", Created: time.Date(1990, 12, 31, 0, 0, 0, 0, time.UTC)}}, "a", "a", ""},
		{"an image of 1991 has one", TagFilter{MaxAge: day}, tags{{Name: "a", Created: time.Date(1991, 1, 1, 0, 0, 0, 0, time.UTC)}}, "", "", ""},
		{"newest by time", TagFilter{Newest: 2}, tags{listed("a", 3*day), listed("b", 1*day), listed("c", 2*day)}, "b c", "", ""},
		{"fewer than newest", TagFilter{Newest: 5}, tags{listed("a", 3*day), listed("b", 1*day)}, "a b", "", ""},
		{"newest of mixed sources of age", TagFilter{Newest: 2}, tags{listed("a", 3*day), seen("b", 1*day), created(unaged("c"), 2*day)}, "b c", "", ""},
		{"no age counts for nothing in newest", TagFilter{Newest: 1}, tags{epoch("a"), listed("b", 1*day), listed("c", 2*day)}, "a b", "a", ""},
		{"maxAge goes before newest", TagFilter{MaxAge: 10 * day, Newest: 2}, tags{listed("a", 1*day), listed("b", 20*day), listed("c", 9*day)}, "a c", "", ""},
		{"companions are not chosen among", TagFilter{MaxAge: day, Newest: 1}, tags{listed("a", 1*time.Hour), listed(sigTag, 99*day)}, "a " + sigTag, "", ""},
		{"the future counts as now", TagFilter{Newest: 1}, tags{listed("v1", -99*day), listed("v2", 0)}, "v2", "", ""},
		{"equal ages go by version, not by name", TagFilter{Newest: 1}, tags{seen("v1.10.0", day), seen("v1.9.0", day)}, "v1.10.0", "", ""},
		{"equal ages by version before created", TagFilter{Newest: 1}, tags{created(seen("v2", day), 9*day), created(seen("v1", day), 1*day)}, "v2", "", ""},
		{"a release is later than its candidates", TagFilter{Newest: 1}, tags{seen("v2-rc1", day), seen("v2", day), seen("v2-rc2", day)}, "v2", "", ""},
		{"equal ages go by created", TagFilter{Newest: 1}, tags{created(seen("a", day), 5*day), created(seen("b", day), 9*day)}, "a", "", ""},
		{"equal ages, one a version, go by created", TagFilter{Newest: 1}, tags{created(seen("latest", day), 9*day), created(seen("v1", day), 5*day)}, "v1", "", ""},
		{"equal ages and created go by name", TagFilter{Newest: 1}, tags{created(seen("a", day), 5*day), created(seen("b", day), 5*day)}, "b", "", ""},
		{"equal ages ask for created, by name till then", TagFilter{Newest: 1}, tags{seen("a", day), created(seen("b", day), 5*day)}, "b", "", "a"},
		{"equal ages above the cut ask nothing", TagFilter{Newest: 2}, tags{seen("a", day), seen("b", day), seen("c", 2*day)}, "a b", "", ""},
		{"equal versions ask nothing", TagFilter{Newest: 1}, tags{seen("v1", day), seen("v2", day)}, "v2", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rules := newRules(t, Route{Tags: tt.filter})
			if needed, newest := rules.Ages("prod"); needed != (tt.name != "no filter keeps all, asks nothing") || newest != tt.filter.Newest {
				t.Errorf("Ages: got %v %d", needed, newest)
			}
			for range 5 { // whatever order they come in
				var kept, noAge, wants []string
				for i, choice := range rules.SelectTags("prod", tt.tags, now) {
					if choice.Kept {
						kept = append(kept, tt.tags[i].Name)
					}
					if choice.Kept != (choice.Reason == "") {
						t.Errorf("%s: kept %v for reason %q", tt.tags[i].Name, choice.Kept, choice.Reason)
					}
					if choice.NoAge {
						noAge = append(noAge, tt.tags[i].Name)
					}
					if choice.WantsCreated {
						wants = append(wants, tt.tags[i].Name)
					}
				}
				for _, list := range []struct {
					got  []string
					want string
				}{{kept, tt.kept}, {noAge, tt.noAge}, {wants, tt.wants}} {
					slices.Sort(list.got)
					want := strings.Fields(list.want)
					slices.Sort(want)
					if diff := cmp.Diff(want, list.got, cmp.Transformer("nil", func(s []string) []string { return append([]string{}, s...) })); diff != "" {
						t.Error(diff)
					}
				}
				rand.Shuffle(len(tt.tags), func(i, j int) { tt.tags[i], tt.tags[j] = tt.tags[j], tt.tags[i] })
			}
		})
	}
}

func TestSelectTagsReasons(t *testing.T) {
	rules := newRules(t, Route{Tags: TagFilter{MaxAge: 90 * day, Newest: 1}})
	tags := []replicator.DatedTag{
		listed("a", 120*day), {Name: "b", Created: ago(100*day + time.Hour)}, listed("c", 1*day), listed("d", 2*day), listed("e", 3*day),
	}
	var got []string
	for _, choice := range rules.SelectTags("prod", tags, now) {
		got = append(got, choice.Reason)
	}
	want := []string{
		"tag a is 120d old, over maxAge 90d of route prod",
		"tag b is 100d old by its image, over maxAge 90d of route prod",
		"",
		"tag d is not among the newest 1 of route prod",
		"tag e is not among the newest 1 of route prod",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if choice := rules.SelectTags("test", tags[:1], now)[0]; choice.Kept || choice.Reason != `no route "test"` {
		t.Errorf("unknown route: got %+v", choice)
	}
	if needed, _ := rules.Ages("test"); needed {
		t.Error("an unknown route needs ages")
	}
}

// Choosing in portions, as a sweep does that holds no listing whole, gives what
// choosing at once gives.
func TestSelectTagsInPortions(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	rules := newRules(t, Route{Tags: TagFilter{Newest: 20}})
	var tags []replicator.DatedTag
	for i := range 500 {
		tags = append(tags, created(seen("v1."+string(rune('0'+i%10))+"."+strings.Repeat("1", 1+i/10%9), time.Duration(random.IntN(30))*day), time.Duration(random.IntN(30))*day))
	}
	names := func(tags []replicator.DatedTag) []string {
		var kept []string
		for i, choice := range rules.SelectTags("prod", tags, now) {
			if choice.Kept {
				kept = append(kept, tags[i].Name+tags[i].SeenAt.String())
			}
		}
		slices.Sort(kept)
		return kept
	}
	var portion []replicator.DatedTag
	for part := range slices.Chunk(tags, 64) {
		portion = append(portion, part...)
		choices := rules.SelectTags("prod", portion, now)
		var kept []replicator.DatedTag
		for i, choice := range choices {
			if choice.Kept {
				kept = append(kept, portion[i])
			}
		}
		portion = kept
	}
	if diff := cmp.Diff(names(tags), names(portion)); diff != "" {
		t.Error(diff)
	}
}
