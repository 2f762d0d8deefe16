package harbor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/replicator"
)

const d1 = "sha256:965aa447b1307600f801f28039133a7d2249ba09afec2bce5fbd2dd6773341f2"

func TestDecode(t *testing.T) {
	at := time.Unix(1778750497, 0).UTC()
	push := func(repository, resources string) string {
		return `{"type":"PUSH_ARTIFACT","occur_at":1778750497,"event_data":{"repository":{"repo_full_name":"` + repository + `"},"resources":[` + resources + `]}}`
	}
	tagged := `{"digest":"` + d1 + `","tag":"v1","resource_url":"harbor.example.net:8443/team/deep/app:v1"}`
	untagged := `{"digest":"` + d1 + `","tag":"` + d1 + `","resource_url":"harbor.example.net/team/app@` + d1 + `"}`
	one := replicator.Event{Action: replicator.Push, Repository: "team/app", Tag: "v1", Digest: d1, PushedAt: at, SenderTime: true}
	byDigest := one
	byDigest.Tag, byDigest.MayRefer = "", true
	deep, late := one, one
	deep.Repository = "team/deep/app"
	late.PushedAt, late.SenderTime = time.Time{}, false
	for name, c := range map[string]struct {
		body string
		want replicator.Decoded
	}{
		"tagged":                 {push("team/app", tagged), replicator.Decoded{Events: []replicator.Event{one}}},
		"many resources":         {push("team/app", tagged+","+untagged), replicator.Decoded{Events: []replicator.Event{one, byDigest}}},
		"no full name":           {push("", tagged), replicator.Decoded{Events: []replicator.Event{deep}}},
		"no full name, untagged": {push("", untagged), replicator.Decoded{Events: []replicator.Event{byDigest}}},
		"no time":                {strings.Replace(push("team/app", tagged), "1778750497", "0", 1), replicator.Decoded{Events: []replicator.Event{late}}},
		"cloudevents": {
			`{"specversion":"1.0","type":"harbor.artifact.pushed","time":"2026-05-14T11:21:37+02:00","data":{"repository":{"repo_full_name":"team/app"},"resources":[` + untagged + `]}}`,
			replicator.Decoded{Events: []replicator.Event{byDigest}},
		},
		"an event of no interest":   {`{"type":"harbor.scan.completed"}`, replicator.Decoded{Ignored: 1}},
		"of another shape, no push": {`{"type":"PULL_ARTIFACT","event_data":[]}`, replicator.Decoded{Ignored: 1}},
		"an unknown type":           {`{"type":"push"}`, replicator.Decoded{Unusable: 1, Why: `unknown type "push"`}},
		"no type":                   {`{"events":[]}`, replicator.Decoded{Unusable: 1, Why: "no event of Harbor: it has no type"}},
		"no resources":              {push("team/app", ""), replicator.Decoded{Unusable: 1, Why: "PUSH_ARTIFACT without resources"}},
		"another shape":             {`{"type":"PUSH_ARTIFACT","event_data":{"resources":[7]}}`, replicator.Decoded{Unusable: 1, Why: "PUSH_ARTIFACT of another shape"}},
	} {
		if diff := cmp.Diff(c.want, Webhook{}.Decode(nil, []byte(c.body))); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
	many := strings.Repeat(`{"tag":"v1"},`, 2*replicator.MaxWebhookEvents) + `{"tag":"v1"}`
	if d := (Webhook{}).Decode(nil, []byte(push("team/app", many))); len(d.Events) != replicator.MaxWebhookEvents || d.Unusable != 1 {
		t.Error(fmt.Sprint(len(d.Events), " events, ", d.Unusable, " unusable of too many"))
	}
}
