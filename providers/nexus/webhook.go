package nexus

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// Webhook reads the repository webhooks of Nexus, components and assets. One
// push is told several times, in no order, without its digest.
type Webhook struct {
	// Prefix is that of the registry's address. Where it begins with the name
	// of a repository in Nexus, that is part of the names there; else the
	// registry is a connector of one repository, and its webhook is that one's.
	Prefix string
}

// signatureHeader holds the HMAC-SHA1 of the body in hex
// (help.sonatype.com, "Working with HMAC Payloads").
const signatureHeader = "X-Nexus-Webhook-Signature"

// Shows takes the sender's own signature.
func (Webhook) Shows(header http.Header) replicator.Shown {
	mac, err := hex.DecodeString(header.Get(signatureHeader))
	if err != nil || len(mac) != 20 {
		return replicator.Shown{}
	}
	return replicator.Shown{Signatures: []replicator.Signature{{SHA1: true, MAC: mac}}}
}

type event struct {
	Timestamp  string `json:"timestamp"`
	Repository string `json:"repositoryName"`
	Action     string `json:"action"`
	Component  *struct {
		Format  string `json:"format"`
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"component"`
	Asset *struct {
		Format string `json:"format"`
		Name   string `json:"name"`
	} `json:"asset"`
}

// Decode reads one event.
func (w Webhook) Decode(_ http.Header, body []byte) replicator.Decoded {
	var d replicator.Decoded
	var n event
	if err := json.Unmarshal(body, &n); err != nil {
		d.Refuse("an event of another shape")
		return d
	}
	var e replicator.Event
	switch {
	case n.Component != nil && n.Component.Format == "docker":
		e.Repository, e.Tag = n.Component.Name, n.Component.Version
	case n.Asset != nil && n.Asset.Format == "docker":
		// v2/team/app/manifests/v1, or with blobs
		name, reference, ok := cutLast(strings.TrimPrefix(strings.TrimPrefix(n.Asset.Name, "/"), "v2/"), "/manifests/")
		if !ok {
			d.Ignored++
			return d
		}
		e.Repository, e.Tag = name, reference
	case n.Component != nil || n.Asset != nil || n.Action != "" && n.Repository == "":
		d.Ignored++ // another format, or what is not of a repository's content
		return d
	default:
		d.Refuse("neither a component nor an asset")
		return d
	}
	if oci.IsDigest(e.Tag) {
		e.Tag, e.Digest = "", digest.Digest(e.Tag)
	}
	if head, _, _ := strings.Cut(strings.Trim(w.Prefix, "/"), "/"); head != "" && head == n.Repository {
		e.Repository = n.Repository + "/" + e.Repository
	}
	switch n.Action {
	case "CREATED", "UPDATED":
		e.Action = replicator.Push
	case "DELETED", "PURGED":
		e.Action = replicator.Delete
	default:
		d.Refuse(fmt.Sprintf("unknown action %.40q", n.Action))
		return d
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999Z0700"} {
		if at, err := time.Parse(layout, n.Timestamp); err == nil {
			e.PushedAt, e.SenderTime = at.UTC(), true
			break
		}
	}
	d.Add(e)
	return d
}

func cutLast(s, separator string) (before, after string, ok bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}
