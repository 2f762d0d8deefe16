package plan

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/replicator"
)

// A blob goes ahead only where its manifest is going to be wanted whatever its
// tag is, and comes back from nowhere.
func TestAhead(t *testing.T) {
	registries := []Registry{{"eu", "oci://eu"}, {"us", "oci://us"}, {"ap", "oci://ap"}, {"us2", "oci://us"}}
	blob := replicator.Blob{Registry: "eu", Repository: "team/app", Digest: "sha256:aa", Size: 1}
	for name, c := range map[string]struct {
		routes []Route
		want   string
	}{
		"every tag of every repository": {[]Route{{Name: "r", From: "eu", To: []string{"us", "ap"}}}, "r us/team/app, r ap/team/app"},
		"a pattern for every tag":       {[]Route{{Name: "r", From: "eu", To: []string{"us"}, Tags: TagFilter{Include: []string{"v*", "*"}}}}, "r us/team/app"},
		"newest and age take a push":    {[]Route{{Name: "r", From: "eu", To: []string{"us"}, Tags: TagFilter{Newest: 3, MaxAge: 1}}}, "r us/team/app"},
		"renamed":                       {[]Route{{Name: "r", From: "eu", To: []string{"us"}, Rename: "dr/{repository}"}}, "r us/dr/team/app"},
		"one place by two names":        {[]Route{{Name: "r", From: "eu", To: []string{"us", "us2"}}, {Name: "s", From: "eu", To: []string{"us2"}}}, "r us/team/app"},
		"a chain goes on":               {[]Route{{Name: "r", From: "eu", To: []string{"us"}}, {Name: "s", From: "us", To: []string{"ap"}}}, "r us/team/app"},
		"some tags":                     {[]Route{{Name: "r", From: "eu", To: []string{"us"}, Tags: TagFilter{Include: []string{"v*"}}}}, ""},
		"all tags but some":             {[]Route{{Name: "r", From: "eu", To: []string{"us"}, Tags: TagFilter{Exclude: []string{"*-dev"}}}}, ""},
		"versions":                      {[]Route{{Name: "r", From: "eu", To: []string{"us"}, Tags: TagFilter{Semver: ">=1"}}}, ""},
		"another repository":            {[]Route{{Name: "r", From: "eu", To: []string{"us"}, Repositories: Filter{Include: []string{"other/**"}}}}, ""},
		"another source":                {[]Route{{Name: "r", From: "us", To: []string{"ap"}}}, ""},
		"two that feed each other":      {[]Route{{Name: "r", From: "eu", To: []string{"us", "ap"}}, {Name: "s", From: "us", To: []string{"eu"}}}, "r ap/team/app"},
	} {
		rules, err := New(c.routes, registries)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, way := range rules.Ahead(blob) {
			if way.Source != (replicator.Place{Registry: "eu", Identity: "oci://eu", Repository: "team/app"}) {
				t.Errorf("%s: from %v", name, way.Source)
			}
			got = append(got, way.Route+" "+way.Destination.String())
		}
		if diff := cmp.Diff(c.want, strings.Join(got, ", ")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
