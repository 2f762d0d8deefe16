package providers_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/providers/artifactory"
	"github.com/twinport/twinport/providers/dockerhub"
	"github.com/twinport/twinport/providers/ghcr"
	"github.com/twinport/twinport/providers/gitea"
	"github.com/twinport/twinport/providers/nexus"
	"github.com/twinport/twinport/providers/quay"
	"github.com/twinport/twinport/replicator"
)

const d1 = "sha256:965aa447b1307600f801f28039133a7d2249ba09afec2bce5fbd2dd6773341f2"

// TestWebhookShapes: what senders are known to send beside their samples, and
// what they do not send.
func TestWebhookShapes(t *testing.T) {
	at := time.Date(2026, 5, 14, 9, 21, 37, 0, time.UTC)
	push := func(change func(*replicator.Event)) replicator.Decoded {
		e := replicator.Event{Action: replicator.Push, Repository: "team/app", Tag: "v1"}
		change(&e)
		return replicator.Decoded{Events: []replicator.Event{e}}
	}
	as := func(*replicator.Event) {} // as it is
	ignored := replicator.Decoded{Ignored: 1}
	unusable := func(why string) replicator.Decoded { return replicator.Decoded{Unusable: 1, Why: why} }
	type decoder interface {
		Decode(http.Header, []byte) replicator.Decoded
	}
	for name, c := range map[string]struct {
		decoder decoder
		header  http.Header
		body    string
		want    replicator.Decoded
	}{
		"quay, two tags": {
			quay.Webhook{}, nil, `{"namespace":"team","name":"app","updated_tags":["v1","v2"]}`,
			replicator.Decoded{Events: []replicator.Event{
				{Action: replicator.Push, Repository: "team/app", Tag: "v1"}, {Action: replicator.Push, Repository: "team/app", Tag: "v2"},
			}},
		},
		"quay, no tags":     {quay.Webhook{}, nil, `{"repository":"team/app","updated_tags":[]}`, ignored},
		"quay, a build":     {quay.Webhook{}, nil, `{"repository":"team/app","build_id":"1"}`, ignored},
		"quay, a template":  {quay.Webhook{}, nil, `{"repository":"team/app","text":"pushed"}`, unusable("neither updated_tags nor another notification of Quay; leave its body template empty")},
		"quay, other tags":  {quay.Webhook{}, nil, `{"repository":"team/app","updated_tags":{"v1":"x"}}`, unusable("updated_tags is no list of tags")},
		"quay, other JSON":  {quay.Webhook{}, nil, `{"events":[]}`, unusable("no notification of Quay: it names no repository")},
		"hub":               {dockerhub.Webhook{}, nil, `{"push_data":{"tag":"v1","pushed_at":1778750497.0},"repository":{"namespace":"team","name":"app"}}`, push(func(e *replicator.Event) { e.PushedAt, e.SenderTime = at, true })},
		"hub, no time":      {dockerhub.Webhook{}, nil, `{"push_data":{"tag":"v1"},"repository":{"repo_name":"team/app"}}`, push(as)},
		"hub, another time": {dockerhub.Webhook{}, nil, `{"push_data":{"tag":"v1","pushed_at":1e300},"repository":{"repo_name":"team/app"}}`, push(as)},
		"hub, other JSON":   {dockerhub.Webhook{}, nil, `[]`, unusable("no push of Docker Hub (an object with push_data and repository)")},
		"ghcr, no address, capitals": {
			ghcr.Webhook{}, nil, `{"action":"published","package":{"name":"App","namespace":"","package_type":"container","owner":{"login":"Team"},"package_version":{"version":"` + d1 + `","container_metadata":{"tag":{"name":"v1"}}}}}`,
			push(func(e *replicator.Event) { e.Digest = d1 }),
		},
		"ghcr, a nested name": {
			ghcr.Webhook{}, nil, `{"action":"updated","registry_package":{"name":"app","package_type":"CONTAINER","package_version":{"package_url":"ghcr.io/team/deep/app@` + d1 + `","version":"` + d1 + `","container_metadata":null}}}`,
			push(func(e *replicator.Event) { e.Repository, e.Tag, e.Digest = "team/deep/app", "", d1 }),
		},
		"ghcr, no metadata": {
			ghcr.Webhook{}, nil, `{"action":"published","package":{"name":"app","namespace":"team","package_type":"CONTAINER","package_version":{"version":"` + d1 + `","container_metadata":[]}}}`,
			push(func(e *replicator.Event) { e.Tag, e.Digest = "", d1 }),
		},
		"ghcr, another package": {ghcr.Webhook{}, nil, `{"action":"published","package":{"name":"app","package_type":"npm"}}`, ignored},
		"ghcr, another event":   {ghcr.Webhook{}, http.Header{"X-Github-Event": {"push"}}, `{"ref":"main"}`, ignored},
		"ghcr, another action":  {ghcr.Webhook{}, nil, `{"action":"moved","package":{"package_type":"CONTAINER"}}`, unusable(`unknown action "moved"`)},
		"ghcr, other JSON":      {ghcr.Webhook{}, nil, `{}`, unusable("no event of a package")},
		"gitea, capitals": {
			gitea.Webhook{}, nil, `{"action":"created","package":{"owner":{"login":"Team"},"type":"container","name":"app","version":"v1","created_at":"2026-05-14T11:21:37+02:00"}}`,
			push(func(e *replicator.Event) { e.PushedAt, e.SenderTime = at, true }),
		},
		"gitea, a test delivery":   {gitea.Webhook{}, http.Header{"X-Gitea-Event": {"push"}}, `{"ref":"refs/heads/main"}`, ignored},
		"forgejo, another event":   {gitea.Webhook{}, http.Header{"X-Forgejo-Event": {"push"}}, `{}`, ignored},
		"gitea, another package":   {gitea.Webhook{}, nil, `{"action":"created","package":{"type":"npm","name":"app"}}`, ignored},
		"gitea, another action":    {gitea.Webhook{}, nil, `{"action":"moved","package":{"type":"container"}}`, unusable(`unknown action "moved"`)},
		"gitea, other JSON":        {gitea.Webhook{}, nil, `{"package":null}`, unusable("no event of a package")},
		"nexus, a blob":            {nexus.Webhook{}, nil, `{"repositoryName":"h","action":"CREATED","asset":{"format":"docker","name":"v2/-/blobs/` + d1 + `"}}`, ignored},
		"nexus, by digest":         {nexus.Webhook{}, nil, `{"repositoryName":"h","action":"UPDATED","asset":{"format":"docker","name":"/v2/team/app/manifests/` + d1 + `"}}`, push(func(e *replicator.Event) { e.Tag, e.Digest = "", d1 })},
		"nexus, another zone":      {nexus.Webhook{}, nil, `{"timestamp":"2026-05-14T11:21:37.000+0200","repositoryName":"h","action":"CREATED","component":{"format":"docker","name":"team/app","version":"v1"}}`, push(func(e *replicator.Event) { e.PushedAt, e.SenderTime = at, true })},
		"nexus, another format":    {nexus.Webhook{}, nil, `{"repositoryName":"h","action":"CREATED","component":{"format":"maven2","name":"app","version":"1"}}`, ignored},
		"nexus, another action":    {nexus.Webhook{}, nil, `{"repositoryName":"h","action":"MOVED","component":{"format":"docker","name":"team/app","version":"1"}}`, unusable(`unknown action "MOVED"`)},
		"nexus, other JSON":        {nexus.Webhook{}, nil, `{}`, unusable("neither a component nor an asset")},
		"artifactory, by digest":   {artifactory.Webhook{Host: "team"}, nil, `{"domain":"docker","event_type":"pushed","data":{"repo_key":"team","image_name":"team/app","tag":"sha256__` + d1[7:] + `","sha256":"` + d1[7:] + `"}}`, push(func(e *replicator.Event) { e.Tag, e.Digest, e.MayRefer = "", d1, true })},
		"artifactory, no digest":   {artifactory.Webhook{}, nil, `{"domain":"docker","event_type":"pushed","data":{"repo_key":"team","image_name":"app","tag":"v1","sha256":"xyz"}}`, push(as)},
		"artifactory, a build":     {artifactory.Webhook{}, nil, `{"domain":"build","event_type":"uploaded"}`, ignored},
		"artifactory, no image":    {artifactory.Webhook{}, nil, `{"domain":"docker","event_type":"pushed","data":{}}`, unusable("an event without repository or image")},
		"artifactory, other event": {artifactory.Webhook{}, nil, `{"domain":"docker","event_type":"moved"}`, unusable(`unknown event "moved"`)},
		"artifactory, other JSON":  {artifactory.Webhook{}, nil, `{}`, unusable("no event of Artifactory: it has no domain")},
	} {
		header := c.header
		if header == nil {
			header = http.Header{}
		}
		if diff := cmp.Diff(c.want, c.decoder.Decode(header, []byte(c.body))); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}
