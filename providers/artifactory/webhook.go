package artifactory

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// Webhook reads Artifactory's predefined webhooks of domain docker.
type Webhook struct {
	// Host is that of the registry's address. Where its first label is, or
	// after a dash ends in, the key of a repository, that one has the host for
	// itself (Artifactory's sub-domain method), and the key is no part of names.
	Host string
}

// secretHeader holds the secret as it is, or the HMAC-SHA256 of the body in hex
// where the webhook signs with it (JFrog's documentation, "Webhooks").
const secretHeader = "X-JFrog-Event-Auth"

// Shows takes the sender's own header either way.
func (Webhook) Shows(header http.Header) replicator.Shown {
	value := header.Get(secretHeader)
	if value == "" {
		return replicator.Shown{}
	}
	shown := replicator.Shown{Secrets: []string{value}}
	if mac, err := hex.DecodeString(value); err == nil && len(mac) == 32 {
		shown.Signatures = []replicator.Signature{{MAC: mac}}
	}
	return shown
}

// Decode reads one event.
func (w Webhook) Decode(_ http.Header, body []byte) replicator.Decoded {
	var d replicator.Decoded
	var n struct {
		Domain string `json:"domain"`
		Type   string `json:"event_type"`
		Data   struct {
			Key    string `json:"repo_key"`
			Image  string `json:"image_name"`
			Tag    string `json:"tag"`
			SHA256 string `json:"sha256"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &n); err != nil || n.Domain == "" {
		d.Refuse("no event of Artifactory: it has no domain")
		return d
	}
	if n.Domain != "docker" {
		d.Ignored++
		return d
	}
	e := replicator.Event{Repository: n.Data.Image, Tag: n.Data.Tag}
	switch n.Type {
	case "pushed", "promoted":
		e.Action = replicator.Push
	case "deleted":
		e.Action = replicator.Delete
	default:
		d.Refuse(fmt.Sprintf("unknown event %.40q", n.Type))
		return d
	}
	if n.Data.Image == "" || n.Data.Key == "" {
		d.Refuse("an event without repository or image")
		return d
	}
	if !w.ownHost(n.Data.Key) {
		e.Repository = n.Data.Key + "/" + n.Data.Image
	}
	if n.Data.SHA256 != "" {
		e.Digest = digest.Digest("sha256:" + strings.TrimPrefix(n.Data.SHA256, "sha256:"))
	}
	if isUntagged(e.Tag) {
		e.Tag, e.Digest = "", digest.Digest(strings.Replace(e.Tag, "__", ":", 1))
		e.MayRefer = e.Action == replicator.Push // it does not say
	}
	if e.Digest != "" && oci.CheckDigest(e.Digest) != nil && e.Tag != "" {
		e.Digest = "" // a hint that is none
	}
	d.Add(e)
	return d
}

func (w Webhook) ownHost(key string) bool {
	label, _, _ := strings.Cut(strings.ToLower(w.Host), ".")
	key = strings.ToLower(key)
	return label == key || strings.HasSuffix(label, "-"+key)
}
