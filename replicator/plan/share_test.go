package plan

import (
	"slices"
	"testing"

	"github.com/twinport/twinport/replicator"
)

func TestSharing(t *testing.T) {
	registries := []Registry{{"eu", "oci://eu"}, {"us", "oci://us"}, {"ap", "oci://ap"}, {"us2", "oci://us"}}
	at := func(registry, repository string) replicator.Place {
		return replicator.Place{Registry: registry, Identity: "oci://" + registry, Repository: repository}
	}
	mirror := Route{Name: "mirror", From: "eu", To: []string{"us"}, Deletes: Deletes{Mirror: true}}
	for name, c := range map[string]struct {
		other Route
		want  bool
	}{
		"the same tags by another route":      {Route{From: "eu", To: []string{"us"}}, true},
		"by another name of the registry":     {Route{From: "eu", To: []string{"us2"}}, true},
		"another destination":                 {Route{From: "eu", To: []string{"ap"}}, false},
		"another repository":                  {Route{From: "eu", To: []string{"us"}, Repositories: Filter{Include: []string{"other/**"}}}, false},
		"another name there":                  {Route{From: "eu", To: []string{"us"}, Rename: "dr/{repository}"}, false},
		"other tags":                          {Route{From: "eu", To: []string{"us"}, Tags: TagFilter{Exclude: []string{"v*"}}}, false},
		"another source of the same name":     {Route{From: "ap", To: []string{"us"}}, true},
		"a literal repository renamed to it":  {Route{From: "ap", To: []string{"us"}, Repositories: Filter{Include: []string{"app"}}, Rename: "team/{name}"}, true},
		"a literal repository renamed beside": {Route{From: "ap", To: []string{"us"}, Repositories: Filter{Include: []string{"web"}}, Rename: "team/{name}"}, false},
	} {
		c.other.Name = "other"
		rules, err := New([]Route{mirror, c.other}, registries)
		if err != nil {
			t.Fatal(err)
		}
		got := rules.Sharing("mirror", at("eu", "team/app"), at("us", "team/app"), "v1")
		if slices.Contains(got, "other") != c.want || slices.Contains(got, "mirror") {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestFlowOfATag(t *testing.T) {
	registries := []Registry{{"eu", "oci://eu"}, {"us", "oci://us"}, {"ap", "oci://ap"}}
	rules, err := New([]Route{
		{Name: "out", From: "eu", To: []string{"us", "ap"}},
		{Name: "back", From: "us", To: []string{"eu"}, Repositories: Filter{Include: []string{"team/**"}}},
	}, registries)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		to, repository string
		want           replicator.Flow
	}{{"us", "team/app", replicator.TwoWay}, {"us", "other/app", replicator.OneWay}, {"ap", "team/app", replicator.OneWay}} {
		if got := rules.Flow("out", c.to, c.repository, "v1"); got != c.want {
			t.Errorf("%s to %s: %v, want %v", c.repository, c.to, got, c.want)
		}
	}
}
