package gcr

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

// Webhook reads what Artifact Registry publishes on the topic `gcr` of its
// project, as a Pub/Sub push subscription delivers it, wrapped or unwrapped
// (Google Cloud, "Configure Pub/Sub notifications" and "Payload unwrapping").
type Webhook struct {
	// Host is the registry's: the topic is the project's, and tells of all its
	// registries; what is about another is ignored. Empty: none is.
	Host string
}

// A delivery is what a push subscription sends.
type delivery struct {
	Message *message `json:"message"`
}

// A message is one of Pub/Sub's, as pushes and pulls give it.
type message struct {
	Data    []byte `json:"data"` // base64 on the wire
	ID      string `json:"messageId"`
	Publish string `json:"publishTime"`
}

// A notice is what the registry published.
type notice struct {
	Action string `json:"action"`
	Digest string `json:"digest"` // HOST/PROJECT/…/IMAGE@sha256:…
	Tag    string `json:"tag"`    // HOST/PROJECT/…/IMAGE:TAG
}

var actions = map[string]replicator.Action{"INSERT": replicator.Push, "DELETE": replicator.Delete}

// Decode reads one delivery.
func (w Webhook) Decode(header http.Header, body []byte) replicator.Decoded {
	var d replicator.Decoded
	var wrapped delivery
	if json.Unmarshal(body, &wrapped) != nil {
		d.Refuse("no delivery of Pub/Sub: it has another shape")
		return d
	}
	if wrapped.Message != nil {
		w.notice(&d, wrapped.Message.Data, wrapped.Message.Publish)
		return d
	}
	// Unwrapped, the time is in a header where the subscription writes metadata.
	w.notice(&d, body, header.Get("X-Goog-Pubsub-Publish-Time"))
	return d
}

func (w Webhook) notice(d *replicator.Decoded, text []byte, publish string) {
	var n notice
	if json.Unmarshal(text, &n) != nil {
		d.Refuse("a message that is no notice of Artifact Registry")
		return
	}
	action, known := actions[n.Action]
	if !known {
		d.Refuse(fmt.Sprintf("unknown action %.60q", n.Action))
		return
	}
	e := replicator.Event{Action: action}
	var host, named string
	if n.Digest != "" {
		name, sum, ok := strings.Cut(n.Digest, "@")
		if !ok {
			d.Refuse(fmt.Sprintf("digest %.80q names no image", n.Digest))
			return
		}
		named, e.Digest = name, digest.Digest(sum)
	}
	if n.Tag != "" {
		colon := strings.LastIndexByte(n.Tag, ':')
		if colon <= strings.LastIndexByte(n.Tag, '/') || named != "" && n.Tag[:colon] != named {
			d.Refuse(fmt.Sprintf("tag %.80q names no tag of the image", n.Tag))
			return
		}
		named, e.Tag = n.Tag[:colon], n.Tag[colon+1:]
	}
	host, e.Repository, _ = strings.Cut(named, "/")
	switch {
	case e.Repository == "":
		d.Refuse("a notice without an image")
		return
	case w.Host != "" && !strings.EqualFold(host, w.Host):
		d.Ignored++
		return
	}
	// It has a referrers API, so its pushers keep no fallback tag, and it does
	// not say whether there is a subject.
	e.MayRefer = action == replicator.Push && e.Tag == ""
	if at, err := time.Parse(time.RFC3339Nano, publish); err == nil {
		e.PushedAt, e.SenderTime = at.UTC(), true
	}
	d.Add(e)
}
