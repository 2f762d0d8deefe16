package ecr

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

// A Webhook reads EventBridge's events of one registry, as an API destination
// sends them, and as SNS wraps them. The same events wait in queues of SQS.
type Webhook struct {
	// Account and Region are the registry's: events of others are ignored.
	// Empty: not known, so all are taken.
	Account, Region string
	// Senders proves what SNS sends, nil: its signatures are not looked at.
	Senders *Senders
}

// WebhookOf reads the events of a registry by its host.
func WebhookOf(host string, senders *Senders) Webhook {
	at := ParseHost(host)
	return Webhook{Account: at.Account, Region: at.Region, Senders: senders}
}

// An event is one of EventBridge's, with the details that ECR's pushes and
// deletes have (ECR user guide, "Amazon ECR events and EventBridge").
type event struct {
	DetailType string `json:"detail-type"`
	Source     string `json:"source"`
	Account    string `json:"account"`
	Region     string `json:"region"`
	Time       string `json:"time"`
	Detail     struct {
		Result     string `json:"result"`
		Action     string `json:"action-type"`
		Repository string `json:"repository-name"`
		Tag        string `json:"image-tag"`
		Digest     string `json:"image-digest"`
		MediaType  string `json:"manifest-media-type"`
	} `json:"detail"`
}

// Decode reads one event, bare or in SNS's envelope.
func (w Webhook) Decode(header http.Header, body []byte) replicator.Decoded {
	var d replicator.Decoded
	if n, ok := notificationOf(body); ok {
		switch n.Type {
		case "Notification":
			body = []byte(n.Message)
		case "SubscriptionConfirmation":
			if w.Senders == nil {
				d.Refuse("SNS asks to confirm its subscription, which is not done here")
				return d
			}
			return replicator.Decoded{Ping: true} // Prove has confirmed it
		case "UnsubscribeConfirmation":
			d.Refuse("SNS was told to send nothing more")
			return d
		default:
			d.Refuse(fmt.Sprintf("SNS sends an unknown type %.40q", n.Type))
			return d
		}
	}
	var e event
	if json.Unmarshal(body, &e) != nil || e.DetailType == "" {
		d.Refuse("no event of EventBridge (an object with detail-type)")
		return d
	}
	w.into(e, &d)
	return d
}

func (w Webhook) into(e event, d *replicator.Decoded) {
	if e.Source != "aws.ecr" || w.Account != "" && e.Account != w.Account || w.Region != "" && e.Region != w.Region {
		d.Ignored++ // another registry's, or of another service
		return
	}
	out := replicator.Event{
		Repository: e.Detail.Repository, Tag: e.Detail.Tag, Digest: digest.Digest(e.Detail.Digest), MediaType: e.Detail.MediaType,
	}
	if at, err := time.Parse(time.RFC3339Nano, e.Time); err == nil {
		out.PushedAt, out.SenderTime = at.UTC(), true
	}
	// Replication and pull-through caches tell of themselves by other types, and
	// of what they stored by pushes as well; scans and lifecycles tell of nothing new.
	switch e.DetailType {
	case "ECR Image Action":
	case "ECR Referrer Action":
		// Its shape is documented for pulls; a push of it is one by digest.
		out.Tag = ""
		if e.Detail.Action != "PUSH" {
			d.Ignored++
			return
		}
	default:
		d.Ignored++
		return
	}
	if e.Detail.Result != "SUCCESS" {
		d.Ignored++
		return
	}
	switch e.Detail.Action {
	case "PUSH":
		out.Action = replicator.Push
		// ECR lists referrers itself, so that no fallback tag tells of them.
		out.MayRefer = out.Tag == ""
	case "DELETE":
		out.Action = replicator.Delete
	default:
		d.Ignored++ // archived, restored
		return
	}
	d.Add(out)
}
