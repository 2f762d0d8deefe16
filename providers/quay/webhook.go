package quay

import (
	"encoding/json"
	"net/http"

	"github.com/twinport/twinport/replicator"
)

// Webhook reads the notifications of a repository that Quay sends by method
// Webhook POST, with their default body. They carry neither digest nor time,
// and nothing is sent of pushes by digest. The zero value is ready.
type Webhook struct{}

// Decode reads one notification.
func (Webhook) Decode(_ http.Header, body []byte) replicator.Decoded {
	var d replicator.Decoded
	var n struct {
		Repository string          `json:"repository"`
		Namespace  string          `json:"namespace"`
		Name       string          `json:"name"`
		Updated    json.RawMessage `json:"updated_tags"`
		// What other notifications carry (quay/quay, notifications/notificationevent.py).
		Message       json.RawMessage `json:"message"`
		Vulnerability json.RawMessage `json:"vulnerability"`
		Build         json.RawMessage `json:"build_id"`
		Tags          json.RawMessage `json:"tags"`
	}
	if err := json.Unmarshal(body, &n); err != nil || n.Repository == "" && n.Name == "" {
		d.Refuse("no notification of Quay: it names no repository")
		return d
	}
	repository := n.Repository
	if repository == "" {
		repository = n.Namespace + "/" + n.Name
	}
	if n.Updated == nil {
		if n.Message != nil || n.Vulnerability != nil || n.Build != nil || n.Tags != nil {
			d.Ignored++ // mirroring, scans and builds
		} else {
			d.Refuse("neither updated_tags nor another notification of Quay; leave its body template empty")
		}
		return d
	}
	var tags []string
	if json.Unmarshal(n.Updated, &tags) != nil {
		d.Refuse("updated_tags is no list of tags")
		return d
	}
	if len(tags) == 0 {
		d.Ignored++
	}
	for _, tag := range tags {
		d.Add(replicator.Event{Action: replicator.Push, Repository: repository, Tag: tag})
	}
	return d
}
