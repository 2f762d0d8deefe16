package acr

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

// Webhook reads what a registry's webhook sends, and what Event Grid delivers
// of it in either schema, alone or in batches. Each replica of a registry tells
// of a push once it has it, in the same words; intake and the journal make one
// of them. The zero value is ready.
type Webhook struct{}

// Allows knows Event Grid, which asks before it delivers CloudEvents, from the
// Azure cloud it is in (Microsoft Learn, "Endpoint validation with CloudEvents schema").
func (Webhook) Allows(origin string) bool {
	switch origin {
	case "eventgrid.azure.net", "eventgrid.azure.us", "eventgrid.azure.cn":
		return true
	}
	return false
}

// The actions of a webhook (Microsoft Learn, "Azure Container Registry webhook
// reference"). A tag that is deleted without its manifest is told by none; a
// chart is one of the old Helm repository, no manifest; an image in quarantine
// cannot be pulled, and is pushed again in words when it leaves.
var (
	actions = map[string]replicator.Action{"push": replicator.Push, "delete": replicator.Delete}
	ignored = map[string]bool{"quarantine": true, "chart_push": true, "chart_delete": true}
)

// kinds are the events of Event Grid, by both its schemas' names.
const (
	kindPrefix     = "Microsoft.ContainerRegistry."
	kindValidation = "Microsoft.EventGrid.SubscriptionValidationEvent"
)

// envelope is a webhook, an Event Grid event and a CloudEvent at once.
type envelope struct {
	data                      // of a webhook
	EventType string          `json:"eventType"`
	EventTime string          `json:"eventTime"`
	Type      string          `json:"type"`
	Time      string          `json:"time"`
	Data      json.RawMessage `json:"data"`
}

type data struct {
	Action    string `json:"action"`
	Timestamp string `json:"timestamp"`
	Target    struct {
		MediaType  string        `json:"mediaType"`
		Digest     digest.Digest `json:"digest"`
		Repository string        `json:"repository"`
		Tag        string        `json:"tag"`
	} `json:"target"`
}

// Decode reads one event or a list of them.
func (Webhook) Decode(_ http.Header, body []byte) replicator.Decoded {
	var d replicator.Decoded
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '[' {
		decode(&d, body)
		return d
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if _, err := dec.Token(); err != nil {
		d.Refuse("no list of events")
		return d
	}
	for n := 0; dec.More(); n++ {
		var one json.RawMessage
		if n >= replicator.MaxWebhookEvents || dec.Decode(&one) != nil {
			d.Refuse("more events than are read of one request")
			break
		}
		decode(&d, one)
	}
	return d
}

func decode(d *replicator.Decoded, text []byte) {
	var e envelope
	if json.Unmarshal(text, &e) != nil {
		d.Refuse("no event of Azure Container Registry: it has another shape")
		return
	}
	about, at := e.data, e.data.Timestamp
	if kind := e.EventType + e.Type; kind != "" {
		if kind == kindValidation {
			validate(d, e.Data)
			return
		}
		if !strings.HasPrefix(kind, kindPrefix) {
			d.Refuse(fmt.Sprintf("event type %.80q is not of Azure Container Registry", kind))
			return
		}
		about = data{}
		if json.Unmarshal(e.Data, &about) != nil {
			d.Refuse(kind + " of another shape")
			return
		}
		if at = about.Timestamp; at == "" {
			at = e.EventTime + e.Time
		}
	}
	action, known := actions[about.Action]
	switch {
	case about.Action == "ping":
		d.Ping = true
	case ignored[about.Action]:
		d.Ignored++
	case !known:
		d.Refuse(fmt.Sprintf("unknown action %.60q", about.Action))
	default:
		d.Add(about.event(action, at))
	}
}

func (t data) event(action replicator.Action, at string) replicator.Event {
	e := replicator.Event{
		Action: action, Repository: t.Target.Repository, Tag: t.Target.Tag, Digest: t.Target.Digest, MediaType: t.Target.MediaType,
		// It has a referrers API, so its pushers keep no fallback tag, and it
		// does not say whether there is a subject.
		MayRefer: action == replicator.Push && t.Target.Tag == "",
	}
	if pushed, err := time.Parse(time.RFC3339Nano, at); err == nil {
		e.PushedAt, e.SenderTime = pushed.UTC(), true
	}
	return e
}

// validate answers the handshake of Event Grid's own schema: the code it sends
// goes back (Microsoft Learn, "Endpoint validation with Event Grid event schema").
func validate(d *replicator.Decoded, text []byte) {
	var code struct {
		Code string `json:"validationCode"`
	}
	if json.Unmarshal(text, &code) != nil || code.Code == "" || len(code.Code) > 512 {
		d.Refuse("a validation without a code")
		return
	}
	answer, err := json.Marshal(map[string]string{"validationResponse": code.Code})
	if err != nil {
		d.Refuse("a validation whose code is no text")
		return
	}
	d.Ping, d.Answer = true, answer
}
