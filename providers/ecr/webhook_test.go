package ecr_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/providers/ecr"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator"
)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	body, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestWebhook(t *testing.T) {
	at := time.Date(2026, 5, 14, 9, 21, 37, 0, time.UTC)
	push := replicator.Decoded{Events: []replicator.Event{{
		Action: replicator.Push, Repository: "team/app", Tag: "v1.4.2",
		Digest: "sha256:7ad9ba3f6e6ec242686cb59a2e4628b3ea886f8d1e74715d922b983cd19e8601", PushedAt: at, SenderTime: true,
	}}}
	remove := replicator.Decoded{Events: []replicator.Event{{
		Action: replicator.Delete, Repository: "team/app", Tag: "v1.3.0",
		Digest: "sha256:6123768aef91263b11986c3147d54e36bc48b28c7ce75dc1563e8e6e53efe527", PushedAt: at, SenderTime: true,
	}}}
	referrer := replicator.Decoded{Events: []replicator.Event{{
		Action: replicator.Push, Repository: "team/app", MediaType: "application/vnd.oci.image.manifest.v1+json", MayRefer: true,
		Digest: "sha256:80e77da81a556214118ffa06baa9680213fa0d7f480974b2c7b48280075eaec7", PushedAt: at, SenderTime: true,
	}}}
	ignored := replicator.Decoded{Ignored: 1}
	unusable := func(why string) replicator.Decoded { return replicator.Decoded{Unusable: 1, Why: why} }
	pushed := string(fixture(t, "ecr-eventbridge-push.json"))
	for name, c := range map[string]struct {
		body string
		want replicator.Decoded
	}{
		"push":               {pushed, push},
		"delete":             {string(fixture(t, "ecr-eventbridge-delete.json")), remove},
		"referrer":           {string(fixture(t, "ecr-eventbridge-referrer.json")), referrer},
		"replication":        {string(fixture(t, "ecr-eventbridge-replication.json")), ignored},
		"scan":               {string(fixture(t, "ecr-eventbridge-scan.json")), ignored},
		"pull through cache": {string(fixture(t, "ecr-eventbridge-pull-through-cache.json")), ignored},
		"sns":                {string(fixture(t, "sns-notification.json")), push},
		"sns confirmation":   {string(fixture(t, "sns-subscription-confirmation.json")), unusable("SNS asks to confirm its subscription, which is not done here")},
		"another account":    {strings.Replace(pushed, "123456789012", "999999999999", 1), ignored},
		"another region":     {strings.Replace(pushed, `"eu-west-1"`, `"eu-west-2"`, 1), ignored},
		"another service":    {strings.Replace(pushed, "aws.ecr", "aws.s3", 1), ignored},
		"failed":             {strings.Replace(pushed, "SUCCESS", "FAILURE", 1), ignored},
		"archived":           {strings.Replace(pushed, "PUSH", "ARCHIVE", 1), ignored},
		"untagged": {strings.Replace(pushed, "v1.4.2", "", 1), replicator.Decoded{Events: []replicator.Event{{
			Action: replicator.Push, Repository: "team/app", Digest: push.Events[0].Digest, PushedAt: at, SenderTime: true, MayRefer: true,
		}}}},
		"no time": {strings.Replace(pushed, "2026-05-14T09:21:37Z", "soon", 1), replicator.Decoded{Events: []replicator.Event{{
			Action: replicator.Push, Repository: "team/app", Tag: "v1.4.2", Digest: push.Events[0].Digest,
		}}}},
		"something else":  {`{"hello":"world"}`, unusable("no event of EventBridge (an object with detail-type)")},
		"list":            {`[]`, unusable("no event of EventBridge (an object with detail-type)")},
		"sns of another":  {`{"Type":"Notification","TopicArn":"t","Message":"hello"}`, unusable("no event of EventBridge (an object with detail-type)")},
		"sns unsubscribe": {`{"Type":"UnsubscribeConfirmation","TopicArn":"t"}`, unusable("SNS was told to send nothing more")},
	} {
		got := ecr.WebhookOf("123456789012.dkr.ecr.eu-west-1.amazonaws.com", nil).Decode(nil, []byte(c.body))
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestFixtures: something is expected of every sample.
func TestFixtures(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{ // what is told: events, ignored, unusable
		"ecr-eventbridge-push.json": "1 0 0", "ecr-eventbridge-delete.json": "1 0 0", "ecr-eventbridge-referrer.json": "1 0 0",
		"ecr-eventbridge-replication.json": "0 1 0", "ecr-eventbridge-scan.json": "0 1 0", "ecr-eventbridge-pull-through-cache.json": "0 1 0",
		"sns-notification.json": "1 0 0", "sns-subscription-confirmation.json": "0 0 1", "ecr-sqs-message.json": "1 0 0",
	}
	if len(files) != len(want) {
		t.Errorf("%d samples, something is expected of %d", len(files), len(want))
	}
	for _, file := range files {
		name := filepath.Base(file)
		body := fixture(t, name)
		if name == "ecr-sqs-message.json" {
			body = []byte(bodyOf(t)) // as the queue hands it on
		}
		d := ecr.WebhookOf("123456789012.dkr.ecr.eu-west-1.amazonaws.com", nil).Decode(nil, body)
		if got := fmt.Sprint(len(d.Events), d.Ignored, d.Unusable); got != want[name] {
			t.Errorf("%s tells %s, want %q", name, got, want[name])
		}
	}
}

func FuzzWebhook(f *testing.F) {
	for _, name := range []string{"ecr-eventbridge-push.json", "sns-notification.json", "sns-subscription-confirmation.json"} {
		f.Add(fixture(f, name))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		d := ecr.Webhook{}.Decode(nil, body)
		if len(d.Events)+d.Ignored+d.Unusable != 1 {
			t.Errorf("%q: %+v, want one thing told", body, d)
		}
	})
}

// TestFakeTells: the fake's events are EventBridge's.
func TestFakeTells(t *testing.T) {
	var told [][]byte
	e := &providertest.ECR{Told: func(event []byte) { told = append(told, event) }}
	hook := ecr.WebhookOf("123456789012.dkr.ecr.eu-west-1.amazonaws.com", nil)
	providertest.RunTold(t, start(t, e, nil)(t).Repository("team/app"), "team/app", func() [][]byte { return told },
		func(body []byte) replicator.Decoded { return hook.Decode(nil, body) })
}
