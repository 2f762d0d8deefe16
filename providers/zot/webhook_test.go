package zot

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/replicator"
)

const (
	d1 = "sha256:965aa447b1307600f801f28039133a7d2249ba09afec2bce5fbd2dd6773341f2"
	d2 = "sha256:7ad9ba3f6e6ec242686cb59a2e4628b3ea886f8d1e74715d922b983cd19e8601"
)

func TestDecode(t *testing.T) {
	binary := func(kind, at string) http.Header {
		return http.Header{"Ce-Type": {kind}, "Ce-Time": {at}}
	}
	image := func(reference, digest, manifest string) string {
		return `{"name":"team/app","reference":"` + reference + `","digest":"` + digest + `","manifest":` + strconv.Quote(manifest) + `}`
	}
	const now = "2026-05-14T09:21:37.5Z"
	at := time.Date(2026, 5, 14, 9, 21, 37, 5e8, time.UTC)
	tagged := replicator.Event{Action: replicator.Push, Repository: "team/app", Tag: "v1", Digest: d1, PushedAt: at, SenderTime: true}
	byDigest, referrer, deleted, gone, late := tagged, tagged, tagged, tagged, tagged
	byDigest.Tag, referrer.Tag, referrer.MayRefer = "", "", true
	deleted.Action, gone.Action, gone.Tag = replicator.Delete, replicator.Delete, ""
	late.PushedAt, late.SenderTime = time.Time{}, false
	const subject = `{"subject":{"digest":"` + d2 + `"}}`
	for name, c := range map[string]struct {
		header http.Header
		body   string
		want   replicator.Decoded
	}{
		"by tag":                   {binary("zotregistry.image.updated", now), image("v1", d1, subject), replicator.Decoded{Events: []replicator.Event{tagged}}},
		"by digest":                {binary("zotregistry.image.updated", now), image(d1, d1, `{}`), replicator.Decoded{Events: []replicator.Event{byDigest}}},
		"with a subject":           {binary("zotregistry.image.updated", now), image(d1, d1, subject), replicator.Decoded{Events: []replicator.Event{referrer}}},
		"the digest it was put by": {binary("zotregistry.image.updated", now), image(d1, d2, "no JSON"), replicator.Decoded{Events: []replicator.Event{byDigest}}},
		"no digest told":           {binary("zotregistry.image.updated", now), image(d1, "", ""), replicator.Decoded{Events: []replicator.Event{byDigest}}},
		"no time":                  {binary("zotregistry.image.updated", ""), image("v1", d1, ""), replicator.Decoded{Events: []replicator.Event{late}}},
		"delete by tag":            {binary("zotregistry.image.deleted", now), image("v1", d1, ""), replicator.Decoded{Events: []replicator.Event{deleted}}},
		"delete by digest":         {binary("zotregistry.image.deleted", now), image(d1, d1, ""), replicator.Decoded{Events: []replicator.Event{gone}}},
		"structured":               {nil, `{"specversion":"1.0","type":"zotregistry.image.updated","time":"` + now + `","data":` + image("v1", d1, "") + `}`, replicator.Decoded{Events: []replicator.Event{tagged}}},
		"structured without data":  {nil, `{"type":"zotregistry.image.updated"}`, replicator.Decoded{Unusable: 1, Why: "an event whose data has another shape"}},
		"a scan":                   {binary("zotregistry.image.scanned", now), `{}`, replicator.Decoded{Ignored: 1}},
		"a repository":             {binary("zotregistry.repository.created", now), `{"name":"team/app"}`, replicator.Decoded{Ignored: 1}},
		"another sender's":         {binary("com.example.push", now), `{}`, replicator.Decoded{Unusable: 1, Why: `unknown type "com.example.push"`}},
		"no event":                 {nil, `{"events":[]}`, replicator.Decoded{Unusable: 1, Why: "no CloudEvent: neither a Ce-Type header nor a type in the body"}},
		"data of another shape":    {binary("zotregistry.image.updated", now), `{"name":7}`, replicator.Decoded{Unusable: 1, Why: "an event whose data has another shape"}},
	} {
		if diff := cmp.Diff(c.want, Webhook{}.Decode(c.header, []byte(c.body))); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}
