package zot

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// Webhook reads zot's events: CloudEvents 1.0, in binary mode as its HTTP sink
// sends them (type and time in headers, the body is the data alone), or
// structured, as a relay of its NATS sink does. The zero value is ready.
type Webhook struct{}

const typePrefix = "zotregistry."

// Decode reads one event.
func (Webhook) Decode(header http.Header, body []byte) replicator.Decoded {
	var d replicator.Decoded
	kind, at, data := header.Get("Ce-Type"), header.Get("Ce-Time"), json.RawMessage(body)
	if kind == "" {
		var event struct {
			Type string          `json:"type"`
			Time string          `json:"time"`
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(body, &event); err != nil || event.Type == "" {
			d.Refuse("no CloudEvent: neither a Ce-Type header nor a type in the body")
			return d
		}
		kind, at, data = event.Type, event.Time, event.Data
	}
	switch kind {
	case typePrefix + "image.updated":
		decodeImage(&d, replicator.Push, at, data)
	case typePrefix + "image.deleted":
		decodeImage(&d, replicator.Delete, at, data)
	default:
		if strings.HasPrefix(kind, typePrefix) {
			d.Ignored++ // a repository created, a lint that failed, a scan
		} else {
			d.Refuse(fmt.Sprintf("unknown type %.60q", kind))
		}
	}
	return d
}

func decodeImage(d *replicator.Decoded, action replicator.Action, at string, data json.RawMessage) {
	var image struct {
		Name      string `json:"name"`
		Reference string `json:"reference"`
		Digest    string `json:"digest"`
		MediaType string `json:"mediaType"`
		Manifest  string `json:"manifest"`
	}
	if err := json.Unmarshal(data, &image); err != nil {
		d.Refuse("an event whose data has another shape")
		return
	}
	e := replicator.Event{
		Action: action, Repository: image.Name, Tag: image.Reference,
		Digest: digest.Digest(image.Digest), MediaType: image.MediaType,
	}
	if oci.IsDigest(e.Tag) { // the reference it was asked for by
		e.Tag, e.Digest = "", digest.Digest(e.Tag)
		e.MayRefer = action == replicator.Push && hasSubject(image.Manifest)
	}
	if t, err := time.Parse(time.RFC3339Nano, at); err == nil {
		e.PushedAt, e.SenderTime = t.UTC(), true
	}
	d.Add(e)
}

// hasSubject: zot sends the manifest along, so whether it refers is known.
func hasSubject(manifest string) bool {
	var m struct {
		Subject *struct {
			Digest string `json:"digest"`
		} `json:"subject"`
	}
	return json.Unmarshal([]byte(manifest), &m) == nil && m.Subject != nil
}
