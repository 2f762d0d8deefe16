package harbor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// Webhook reads what a project's webhook policy sends, in Harbor's default
// format or as structured CloudEvents. The zero value is ready.
type Webhook struct{}

// Harbor's names of its events, in the default format and as CloudEvents
// (goharbor/harbor, src/pkg/notifier).
var actions = map[string]replicator.Action{
	"PUSH_ARTIFACT": replicator.Push, "harbor.artifact.pushed": replicator.Push,
	"DELETE_ARTIFACT": replicator.Delete, "harbor.artifact.deleted": replicator.Delete,
}

var ignored = map[string]bool{
	"PULL_ARTIFACT": true, "SCANNING_COMPLETED": true, "SCANNING_FAILED": true, "SCANNING_STOPPED": true,
	"QUOTA_EXCEED": true, "QUOTA_WARNING": true, "REPLICATION": true, "TAG_RETENTION": true,
}

// event is both formats at once: they share no field but type.
type event struct {
	Type string `json:"type"`

	OccurAt int64 `json:"occur_at"` // seconds since 1970
	Default data  `json:"event_data"`

	SpecVersion string `json:"specversion"`
	Time        string `json:"time"`
	Data        data   `json:"data"`
}

type data struct {
	Resources  resources `json:"resources"`
	Repository struct {
		FullName string `json:"repo_full_name"`
	} `json:"repository"`
}

type resource struct {
	Digest string `json:"digest"`
	Tag    string `json:"tag"`
	URL    string `json:"resource_url"`
}

// resources are at most as many as are read of one request, and one more to
// tell that there were more.
type resources []resource

// UnmarshalJSON stops keeping what is over the bound.
func (r *resources) UnmarshalJSON(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return err // null: none
	}
	for dec.More() && len(*r) <= replicator.MaxWebhookEvents {
		var one resource
		if err := dec.Decode(&one); err != nil {
			return err
		}
		*r = append(*r, one)
	}
	return nil
}

// Decode reads one event, which may name many resources of one repository.
func (Webhook) Decode(_ http.Header, body []byte) replicator.Decoded {
	var d replicator.Decoded
	var kind struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(body, &kind); err != nil || kind.Type == "" {
		d.Refuse("no event of Harbor: it has no type")
		return d
	}
	action, known := actions[kind.Type]
	if !known {
		if ignored[kind.Type] || strings.HasPrefix(kind.Type, "harbor.") {
			d.Ignored++
		} else {
			d.Refuse(fmt.Sprintf("unknown type %.60q", kind.Type))
		}
		return d
	}
	var e event
	if err := json.Unmarshal(body, &e); err != nil {
		d.Refuse(fmt.Sprintf("%s of another shape", kind.Type))
		return d
	}
	about, at, told := e.Default, time.Unix(e.OccurAt, 0).UTC(), e.OccurAt > 0
	if e.SpecVersion != "" {
		var err error
		at, err = time.Parse(time.RFC3339Nano, e.Time)
		about, at, told = e.Data, at.UTC(), err == nil
	}
	if len(about.Resources) == 0 {
		d.Refuse(fmt.Sprintf("%s without resources", kind.Type))
	}
	for _, r := range about.Resources {
		d.Add(r.event(action, about.Repository.FullName, at, told))
	}
	return d
}

func (r resource) event(action replicator.Action, repository string, at time.Time, told bool) replicator.Event {
	if repository == "" {
		repository = r.repository()
	}
	e := replicator.Event{Action: action, Repository: repository, Tag: r.Tag, Digest: digest.Digest(r.Digest)}
	if told {
		e.PushedAt, e.SenderTime = at, true
	}
	// Harbor repeats the digest as the tag of what has none.
	if oci.IsDigest(e.Tag) {
		e.Tag, e.Digest = "", digest.Digest(e.Tag)
	}
	// It has a referrers API, so its pushers keep no fallback tag, and it does
	// not say whether there is a subject.
	e.MayRefer = action == replicator.Push && e.Tag == ""
	return e
}

// repository is what lies between the host and the reference of
// host/project/name:tag or host/project/name@digest.
func (r resource) repository() string {
	_, name, _ := strings.Cut(r.URL, "/")
	if at := strings.IndexByte(name, '@'); at >= 0 {
		name = name[:at]
	}
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	return name
}
