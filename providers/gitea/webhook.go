package gitea

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

// Webhook reads the event package of Gitea and Forgejo. It names a tag without
// its digest, or the digest of what was pushed without a tag. The zero value is
// ready.
type Webhook struct{}

// Decode reads one event; events that are not of packages are ignored, the test
// delivery (a push to a repository of code) too.
func (Webhook) Decode(header http.Header, body []byte) replicator.Decoded {
	var d replicator.Decoded
	for _, name := range []string{"X-Gitea-Event", "X-Forgejo-Event"} {
		if event := header.Get(name); event != "" && event != "package" {
			d.Ignored++
			return d
		}
	}
	var n struct {
		Action  string `json:"action"`
		Package *struct {
			Owner struct {
				Login string `json:"login"`
			} `json:"owner"`
			Type    string `json:"type"`
			Name    string `json:"name"`
			Version string `json:"version"`
			Created string `json:"created_at"`
		} `json:"package"`
	}
	if err := json.Unmarshal(body, &n); err != nil || n.Package == nil {
		d.Refuse("no event of a package")
		return d
	}
	p := n.Package
	if p.Type != "container" {
		d.Ignored++
		return d
	}
	// Owners may have capitals, their names in the registry have none.
	e := replicator.Event{Repository: strings.ToLower(p.Owner.Login + "/" + p.Name), Tag: p.Version}
	if oci.IsDigest(p.Version) {
		e.Tag, e.Digest = "", digest.Digest(p.Version)
	}
	switch n.Action {
	case "created":
		e.Action = replicator.Push
		// Whether it has a subject is not told.
		e.MayRefer = e.Tag == ""
		if at, err := time.Parse(time.RFC3339Nano, p.Created); err == nil {
			e.PushedAt, e.SenderTime = at.UTC(), true
		}
	case "deleted":
		e.Action = replicator.Delete // created_at is the creation's
	default:
		d.Refuse(fmt.Sprintf("unknown action %.40q", n.Action))
		return d
	}
	d.Add(e)
	return d
}
