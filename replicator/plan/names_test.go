package plan

import "testing"

func TestMayWrite(t *testing.T) {
	team := Filter{Include: []string{"team/**"}, Exclude: []string{"team/scratch/**"}}
	for _, tt := range []struct {
		name, rename, destination string
		want                      bool
	}{
		{"the same name", "", "team/app", true},
		{"an excluded one", "", "team/scratch/app", false},
		{"another's", "", "other/app", false},
		{"below a prefix", "dr/{repository}", "dr/team/app", true},
		{"outside the prefix", "dr/{repository}", "team/app", false},
		{"the prefix alone", "dr/{repository}", "dr", false},
		{"a dot is a dot", "d.r/{repository}", "dxr/team", false},
		{"flat has no slash", "{flat}", "team-app", true},
		{"flat with a slash", "{flat}", "team/app", false},
		{"by registry", "{registry}/{name}", "eu/app", true},
		{"by another registry", "{registry}/{name}", "us/app", false},
		{"no namespace", "x/{namespace}/{name}", "x/app", true},
		{"some namespace", "x/{namespace}/{name}", "x/a/b/app", true},
	} {
		rules := newRules(t, Route{Repositories: team, Rename: tt.rename})
		if got := rules.MayWrite("prod", tt.destination); got != tt.want {
			t.Errorf("%s: may write %s: %v", tt.name, tt.destination, got)
		}
	}
	if newRules(t, Route{}).MayWrite("none", "app") {
		t.Error("a route that is none may write")
	}
}

func TestExample(t *testing.T) {
	for _, tt := range []struct {
		name   string
		filter Filter
		want   string // empty: none
	}{
		{"everything", Filter{}, "probe"},
		{"below", include("team/**"), "team/probe"},
		{"one folder", include("team/*"), "team/probe"},
		{"an ending", include("team/*-app"), "team/probe-app"},
		{"in the middle", include("**/app"), "probe/app"},
		{"a literal", include("team/app"), "team/app"},
		{"alternatives", include("{a,b}/*"), "a/probe"},
		{"alternatives with patterns", include("{a-*,b}/x"), "a-probe/x"},
		{"a class", include("r[0-9]/?"), "r0/x"},
		{"an excluded first", Filter{Include: []string{"a/*", "b/*"}, Exclude: []string{"a/**"}}, "b/probe"},
		{"all excluded", Filter{Exclude: []string{"**"}}, ""},
		{"a negated class", include("[!a]pp"), ""},
	} {
		rules := newRules(t, Route{Repositories: tt.filter})
		got, ok := rules.Example("prod", "probe")
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, ok, tt.want)
		}
	}
}
