package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

var (
	pushed = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	dgst   = digest.FromString("an image")
	sigTag = "sha256-" + dgst.Encoded() + ".sig"
)

func push(registry, repository, tag string) replicator.Event {
	return replicator.Event{Action: replicator.Push, Registry: registry, Repository: repository, Tag: tag, Digest: dgst, PushedAt: pushed}
}

func with(ev replicator.Event, change func(*replicator.Event)) replicator.Event {
	change(&ev)
	return ev
}

// line shows a job in one line: source > destination :tag [wants] flow.
func line(job replicator.Job) string {
	wants := make([]string, len(job.Wants))
	for i, want := range job.Wants {
		wants[i] = want.Route + "@" + want.Destination
	}
	flow := [...]string{"", " two-way", " ring"}[job.Flow]
	ref := ":" + job.Tag
	if job.Tag == "" {
		ref = "@digest"
	}
	return fmt.Sprintf("%s > %s %s [%s]%s", job.Source, job.Destination, ref, strings.Join(wants, " "), flow)
}

func TestJobs(t *testing.T) {
	star := []Route{{To: []string{"us", "ap"}}}
	mutual := []Route{{Name: "out", From: "eu", To: []string{"us"}}, {Name: "back", From: "us", To: []string{"eu"}}}
	ring := []Route{{Name: "a", From: "eu", To: []string{"us"}}, {Name: "b", From: "us", To: []string{"ap"}}, {Name: "c", From: "ap", To: []string{"eu"}}}
	digestOnly := with(push("eu", "team/app", ""), func(ev *replicator.Event) { ev.Tag = "" })
	mayRefer := with(digestOnly, func(ev *replicator.Event) { ev.MayRefer = true })
	for _, tt := range []struct {
		name    string
		routes  []Route
		event   replicator.Event
		jobs    []string
		skipped []string // route@destination: reason
	}{
		{"one job per destination", star, push("eu", "team/app", "v1"),
			[]string{"eu/team/app > us/team/app :v1 [prod@us]", "eu/team/app > ap/team/app :v1 [prod@ap]"}, nil},
		{"limited to one destination", star, with(push("eu", "team/app", "v1"), func(ev *replicator.Event) { ev.Destinations = []string{"ap"} }),
			[]string{"eu/team/app > ap/team/app :v1 [prod@ap]"}, []string{"prod@us: the event is meant for other destinations"}},
		{"limited to none", star, with(push("eu", "team/app", "v1"), func(ev *replicator.Event) { ev.Destinations = []string{} }),
			nil, []string{"prod@us: the event is meant for other destinations", "prod@ap: the event is meant for other destinations"}},
		{"renamed", []Route{{Rename: "dr/{repository}"}}, push("eu", "team/app", "v1"),
			[]string{"eu/team/app > us/dr/team/app :v1 [prod@us]"}, nil},
		{"two routes to one name are one job", []Route{{Name: "a"}, {Name: "b"}}, push("eu", "app", "v1"),
			[]string{"eu/app > us/app :v1 [a@us b@us]"}, nil},
		{"two routes to two names are two jobs", []Route{{Name: "a"}, {Name: "b", Rename: "dr/{repository}"}}, push("eu", "app", "v1"),
			[]string{"eu/app > us/app :v1 [a@us]", "eu/app > us/dr/app :v1 [b@us]"}, nil},
		{"a repository that is not included", []Route{{Repositories: include("team/**")}}, push("eu", "app", "v1"),
			nil, []string{"prod@: repository app is not included by route prod (team/**)"}},
		{"one route wants it, the other says why not", []Route{{Name: "a", Tags: TagFilter{Include: []string{"r*"}}}, {Name: "b"}}, push("eu", "app", "v1"),
			[]string{"eu/app > us/app :v1 [b@us]"}, []string{"a@: tag v1 is not included by route a (r*)"}},
		{"a tag of the event counts as newest", []Route{{Tags: TagFilter{MaxAge: time.Second, Newest: 1}}}, push("eu", "app", "v1"),
			[]string{"eu/app > us/app :v1 [prod@us]"}, nil},
		{"no digest is told", []Route{{}}, with(push("eu", "app", "v1"), func(ev *replicator.Event) { ev.Digest = "" }),
			[]string{"eu/app > us/app :v1 [prod@us]"}, nil},
		{"another registry's event", star, push("us", "app", "v1"), nil, []string{"@: no route reads from registry us"}},
		{"an unknown registry's event", star, push("xx", "app", "v1"), nil, []string{"@: no route reads from registry xx"}},
		{"a registry that is not the sender's", star, push("old-eu", "app", "v1"), nil, []string{"@: no route reads from registry old-eu"}},
		{"no repository name", star, push("eu", "../etc", "v1"), nil, []string{`@: "../etc" is no repository name: invalid answer`}},
		{"no tag name", star, push("eu", "app", "v 1"), nil, []string{`@: "v 1" is no tag: invalid answer`}},
		{"no digest", star, with(push("eu", "app", "v1"), func(ev *replicator.Event) { ev.Digest = "sha256:1" }), nil,
			[]string{`@: "sha256:1" is no sha256 or sha512 digest: invalid answer`}},
		{"neither tag nor digest", star, with(push("eu", "app", ""), func(ev *replicator.Event) { ev.Digest = "" }), nil,
			[]string{"@: the event names neither a tag nor a digest"}},
		{"no known action", star, with(push("eu", "app", "v1"), func(ev *replicator.Event) { ev.Action = "pull" }), nil,
			[]string{"@: the event is neither a push nor a delete"}},
		{"onto itself by another name", []Route{{From: "old-eu", To: []string{"eu"}}}, push("old-eu", "app", "v1"),
			nil, []string{"prod@eu: repository app would be copied onto itself"}},
		{"onto itself", []Route{{To: []string{"eu", "us"}}}, push("eu", "app", "v1"),
			[]string{"eu/app > us/app :v1 [prod@us]"}, []string{"prod@eu: repository app would be copied onto itself"}},
		{"within one registry by a rename", []Route{{To: []string{"eu"}, Repositories: include("app"), Rename: "dr/{repository}"}}, push("eu", "app", "v1"),
			[]string{"eu/app > eu/dr/app :v1 [prod@eu]"}, nil},
		{"a rename to no name", []Route{{Rename: "{namespace}-x/{name}"}}, push("eu", "app", "v1"),
			nil, []string{`prod@: rename app by route prod: "-x/app" is no repository name: invalid answer`}},

		{"a digest alone is not wanted", star, digestOnly, nil,
			[]string{"prod@: the manifest was pushed by digest alone, and route prod copies such ones only as part of a tagged image (untagged: skip)"}},
		{"a digest alone with untagged: copy", []Route{{Untagged: true}}, digestOnly,
			[]string{"eu/team/app > us/team/app @digest [prod@us]"}, nil},
		{"a digest that may refer", []Route{{}}, mayRefer, []string{"eu/team/app > us/team/app @digest [prod@us]"}, nil},
		{"a digest that may refer, required", []Route{{Referrers: "required"}}, mayRefer, []string{"eu/team/app > us/team/app @digest [prod@us]"}, nil},
		{"a digest that may refer, referrers off", []Route{{Referrers: "false"}}, mayRefer, nil,
			[]string{"prod@: the manifest was pushed by digest alone, and route prod carries neither referrers (referrers: false) nor untagged manifests (untagged: skip)"}},
		{"a digest that may refer, referrers off, untagged on", []Route{{Referrers: "false", Untagged: true}}, mayRefer,
			[]string{"eu/team/app > us/team/app @digest [prod@us]"}, nil},
		{"a digest of a repository left out", []Route{{Untagged: true, Repositories: include("x")}}, mayRefer, nil,
			[]string{"prod@: repository team/app is not included by route prod (x)"}},
		{"a digest between two registries that feed each other", []Route{{Name: "out", Untagged: true}, {Name: "back", From: "us", To: []string{"eu"}, Untagged: true}},
			with(digestOnly, func(ev *replicator.Event) { ev.Registry = "us" }), []string{"us/team/app > eu/team/app @digest [back@eu]"}, nil},

		{"a signature passes the tag filter", []Route{{Tags: TagFilter{Include: []string{"v*"}}}}, push("eu", "app", sigTag),
			[]string{"eu/app > us/app :" + sigTag + " [prod@us]"}, nil},
		{"a signature of a repository left out", []Route{{Repositories: include("x")}}, push("eu", "app", sigTag),
			nil, []string{"prod@: repository app is not included by route prod (x)"}},
		{"a signature with referrers off", []Route{{Referrers: "false"}}, push("eu", "app", sigTag),
			nil, []string{"prod@: tag " + sigTag + " belongs to a subject and route prod carries no referrers (referrers: false)"}},

		{"a delete makes no job", star, with(push("eu", "app", "v1"), func(ev *replicator.Event) { ev.Action = replicator.Delete }), nil,
			[]string{"prod@: the destinations of route prod keep what they have (deletes: keep)"}},
		{"a delete that names only the repository", star, with(push("eu", "app", ""), func(ev *replicator.Event) { ev.Action, ev.Digest = replicator.Delete, "" }), nil,
			[]string{"prod@: the destinations of route prod keep what they have (deletes: keep)"}},
		{"a delete in a repository left out", []Route{{Repositories: include("x")}}, with(push("eu", "app", "v1"), func(ev *replicator.Event) { ev.Action = replicator.Delete }), nil,
			[]string{"prod@: repository app is not included by route prod (x)"}},

		{"two that feed each other, from one side", mutual, push("eu", "app", "v1"),
			[]string{"eu/app > us/app :v1 [out@us] two-way"}, nil},
		{"two that feed each other, from the other side: the same row", mutual, push("us", "app", "v1"),
			[]string{"eu/app > us/app :v1 [back@eu] two-way"}, nil},
		{"mutual with renames that come back", []Route{{Name: "out", Repositories: include("app"), Rename: "dr-{name}"}, {Name: "back", From: "us", To: []string{"eu"}, Repositories: include("dr-app"), Rename: "app"}},
			push("us", "dr-app", "v1"), []string{"eu/app > us/dr-app :v1 [back@eu] two-way"}, nil},
		{"mutual with renames that do not come back", []Route{{Name: "out", Repositories: include("app"), Rename: "dr-{name}"}, {Name: "back", From: "us", To: []string{"eu"}}},
			push("eu", "app", "v1"), []string{"eu/app > us/dr-app :v1 [out@us]"}, nil},
		{"the way back leaves the repository out", []Route{{Name: "out"}, {Name: "back", From: "us", To: []string{"eu"}, Repositories: include("x")}},
			push("eu", "app", "v1"), []string{"eu/app > us/app :v1 [out@us]"}, nil},
		{"the way back leaves the tag out", []Route{{Name: "out"}, {Name: "back", From: "us", To: []string{"eu"}, Tags: TagFilter{Include: []string{"r*"}}}},
			push("eu", "app", "v1"), []string{"eu/app > us/app :v1 [out@us]"}, nil},
		{"signatures between two that feed each other", []Route{{Name: "out"}, {Name: "back", From: "us", To: []string{"eu"}, Tags: TagFilter{Include: []string{"r*"}}}},
			push("eu", "app", sigTag), []string{"eu/app > us/app :" + sigTag + " [out@us] two-way"}, nil},
		{"mutual, and one more that only reads", append([]Route{{Name: "more", To: []string{"ap"}}}, mutual...), push("eu", "app", "v1"),
			[]string{"eu/app > ap/app :v1 [more@ap]", "eu/app > us/app :v1 [out@us] two-way"}, nil},
		{"two routes each way are one row with both wants", append([]Route{{Name: "out2"}}, mutual...), push("eu", "app", "v1"),
			[]string{"eu/app > us/app :v1 [out2@us out@us] two-way"}, nil},
		{"mutual within one registry", []Route{{Name: "ab", To: []string{"eu"}, Repositories: include("a"), Rename: "b"}, {Name: "ba", To: []string{"eu"}, Repositories: include("b"), Rename: "a"}},
			push("eu", "b", "v1"), []string{"eu/a > eu/b :v1 [ba@eu] two-way"}, []string{"ab@: repository b is not included by route ab (a)"}},

		{"a ring keeps its direction", ring, push("ap", "app", "v1"), []string{"ap/app > eu/app :v1 [c@eu] ring"}, nil},
		{"a ring at another step", ring, push("us", "app", "v1"), []string{"us/app > ap/app :v1 [b@ap] ring"}, nil},
		{"a chain is no ring", ring[:2], push("eu", "app", "v1"), []string{"eu/app > us/app :v1 [a@us]"}, nil},
		{"a ring that comes back to another name ends", []Route{ring[0], ring[1], {Name: "c", From: "ap", To: []string{"eu"}, Rename: "x/{repository}"}},
			push("eu", "app", "v1"), []string{"eu/app > us/app :v1 [a@us]"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newRules(t, append([]Route(nil), tt.routes...)...).Jobs(tt.event)
			var jobs, skipped []string
			for _, job := range d.Jobs {
				jobs = append(jobs, line(job))
			}
			for _, skip := range d.Skipped {
				skipped = append(skipped, skip.Route+"@"+skip.Destination+": "+skip.Reason)
			}
			if diff := cmp.Diff(tt.jobs, jobs); diff != "" {
				t.Errorf("jobs:\n%s", diff)
			}
			if diff := cmp.Diff(tt.skipped, skipped); diff != "" {
				t.Errorf("skipped:\n%s", diff)
			}
		})
	}
}

func TestJobCarriesTheEvent(t *testing.T) {
	ev := push("eu", "app", "v1")
	ev.SenderTime, ev.Lane, ev.Full = true, replicator.LaneManual, true
	d := newRules(t, Route{}).Jobs(ev)
	want := []replicator.Job{{
		Source:      replicator.Place{Registry: "eu", Identity: "oci://eu.example.com", Repository: "app"},
		Destination: replicator.Place{Registry: "us", Identity: "oci://us.example.com", Repository: "app"},
		Tag:         "v1", Digest: dgst, Wants: []replicator.Want{{Route: "prod", Destination: "us"}},
		Lane: replicator.LaneManual, PushedAt: pushed, SenderTime: true, BehindSince: pushed, Full: true,
	}}
	if diff := cmp.Diff(want, d.Jobs); diff != "" {
		t.Error(diff)
	}
}

func TestEndlessRenamesEnd(t *testing.T) {
	rules := newRules(t,
		Route{Name: "out", Rename: "a/{repository}"},
		Route{Name: "back", From: "us", To: []string{"eu"}, Rename: "b/{repository}"},
	)
	if d := rules.Jobs(push("eu", "app", "v1")); len(d.Jobs) != 1 || d.Jobs[0].Flow != replicator.OneWay {
		t.Errorf("got %+v", d)
	}
}

func BenchmarkJobs(b *testing.B) {
	routes := make([]Route, 1000)
	for i := range routes {
		routes[i] = Route{
			Name: fmt.Sprintf("route-%03d", i), From: "eu", To: []string{"us", "ap"},
			Repositories: Filter{Include: []string{fmt.Sprintf("team-%03d/**", i)}, Exclude: []string{"**/tmp-*"}},
			Tags:         TagFilter{Exclude: []string{"*-dev"}}, Rename: "dr/{repository}",
		}
	}
	spread := make([]Route, 1000)
	sources := make([]Registry, 1000)
	for i := range spread {
		spread[i] = routes[i]
		sources[i] = Registry{fmt.Sprintf("registry-%03d", i), ""}
		spread[i].From = sources[i].Name
	}
	mutual := append([]Route(nil), routes[:500]...)
	for i := range mutual {
		mutual[i].Rename = ""
		back := mutual[i]
		back.Name, back.From, back.To = back.Name+"-back", "us", []string{"eu"}
		mutual = append(mutual, back)
	}
	for _, bb := range []struct {
		name   string
		routes []Route
		event  replicator.Event
	}{
		{"of one source", routes, push("eu", "team-500/app", "v1")},
		{"of 1000 sources", spread, push("registry-500", "team-500/app", "v1")},
		{"mutual", mutual, push("eu", "team-400/app", "v1")},
	} {
		b.Run(bb.name, func(b *testing.B) {
			rules, err := New(bb.routes, append(sources, registries...))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if d := rules.Jobs(bb.event); len(d.Jobs) != 2 {
					b.Fatal(d.Jobs)
				}
			}
		})
	}
}
