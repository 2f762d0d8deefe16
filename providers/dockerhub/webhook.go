package dockerhub

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/twinport/twinport/replicator"
)

// Webhook reads what Docker Hub sends of a push; it sends nothing else, no
// digest, and no proof of itself. The zero value is ready.
type Webhook struct{}

// Decode reads one push.
func (Webhook) Decode(_ http.Header, body []byte) replicator.Decoded {
	var d replicator.Decoded
	var n struct {
		Push *struct {
			At        float64 `json:"pushed_at"` // seconds since 1970
			Tag       string  `json:"tag"`
			MediaType string  `json:"media_type"`
		} `json:"push_data"`
		Repository struct {
			FullName  string `json:"repo_name"`
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"repository"`
	}
	if err := json.Unmarshal(body, &n); err != nil || n.Push == nil {
		d.Refuse("no push of Docker Hub (an object with push_data and repository)")
		return d
	}
	name := n.Repository.FullName
	if name == "" && n.Repository.Name != "" {
		name = strings.TrimPrefix(n.Repository.Namespace+"/"+n.Repository.Name, "/")
	}
	e := replicator.Event{Action: replicator.Push, Repository: name, Tag: n.Push.Tag, MediaType: n.Push.MediaType}
	if n.Push.At > 0 && n.Push.At < 1<<40 {
		e.PushedAt, e.SenderTime = time.Unix(int64(n.Push.At), 0).UTC(), true
	}
	d.Add(e)
	return d
}
