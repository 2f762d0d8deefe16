package generic

import (
	"strings"
	"testing"

	"github.com/twinport/twinport/replicator"
)

func TestWebhookTellsBlobsFromManifests(t *testing.T) {
	const d = "sha256:965aa447b1307600f801f28039133a7d2249ba09afec2bce5fbd2dd6773341f2"
	for name, c := range map[string]struct {
		mediaType, url string
		blob           bool
	}{
		"octet stream":                  {"application/octet-stream", "", true},
		"address of a blob":             {"", "https://r/v2/team/app/blobs/" + d, true},
		"address of a manifest":         {"application/vnd.oci.image.manifest.v1+json", "https://r/v2/team/app/manifests/" + d, false},
		"a repository named blobs":      {"application/vnd.oci.image.manifest.v1+json", "https://r/v2/team/blobs/app/manifests/" + d, false},
		"a blob of one named manifests": {"application/x", "https://r/v2/team/manifests/app/blobs/" + d, true},
		"no address":                    {"application/vnd.oci.image.manifest.v1+json", "", false},
		"a type of its own":             {"application/vnd.example+json", "https://r/v2/team/app/manifests/" + d, false},
	} {
		body := `{"events":[{"action":"push","target":{"repository":"team/app","digest":"` + d + `","mediaType":"` + c.mediaType + `","url":"` + c.url + `"}}]}`
		got := Webhook{}.Decode(nil, []byte(body))
		if (got.Ignored == 1) != c.blob || (len(got.Events) == 1) == c.blob || got.Unusable != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestWebhookBoundsAnEnvelope(t *testing.T) {
	const n = 100000
	body := `{"events":[` + strings.Repeat(`{},`, n) + `{"action":"push","target":{"repository":"team/app","tag":"v1"}}]}`
	if d := (Webhook{}).Decode(nil, []byte(body)); d.Unusable != n || len(d.Events) != 1 {
		t.Errorf("%d unusable, %d events", d.Unusable, len(d.Events))
	}
	events := strings.Repeat(`{"action":"delete","target":{"repository":"a","tag":"b"}},`, replicator.MaxWebhookEvents)
	if d := (Webhook{}).Decode(nil, []byte(`{"events":[`+events+`{},7,{"action":"pull"}]}`)); len(d.Events) != replicator.MaxWebhookEvents || d.Unusable != 3 {
		t.Errorf("%d events, %d unusable", len(d.Events), d.Unusable)
	}
}
