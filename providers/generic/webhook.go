package generic

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

// Webhook reads the notifications of CNCF Distribution, versions 2 and 3, and
// of what descends from it (GitLab's registry): one envelope of events, whose
// v1 and v2 differ in nothing we read. The zero value is ready.
type Webhook struct{}

// notification is one event of an envelope (distribution, notifications/event.go).
type notification struct {
	Timestamp string `json:"timestamp"`
	Action    string `json:"action"`
	Target    struct {
		MediaType  string `json:"mediaType"`
		Digest     string `json:"digest"`
		Repository string `json:"repository"`
		Tag        string `json:"tag"`
		URL        string `json:"url"`
		// Size may be of any shape: it is a hint alone.
		Size json.RawMessage `json:"size"`
	} `json:"target"`
}

// Decode reads an envelope, one event at a time. Whether a digest that was
// deleted is a manifest's or a blob's, the sender does not tell.
func (Webhook) Decode(_ http.Header, body []byte) replicator.Decoded {
	var d replicator.Decoded
	found, err := eachEvent(body, func(dec *json.Decoder) error {
		if len(d.Events) >= replicator.MaxWebhookEvents {
			d.Refuse("more events than are read of one request")
			var skipped struct{}
			return skipWrongType(dec.Decode(&skipped))
		}
		var n notification
		if err := dec.Decode(&n); err != nil {
			d.Refuse("an event of another shape")
			return skipWrongType(err)
		}
		n.into(&d)
		return nil
	})
	if err != nil || !found {
		d.Refuse("no envelope of distribution's notifications (an object with events)")
	}
	return d
}

// skipWrongType: such a value has been read whole, the next can follow.
func skipWrongType(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return nil
	}
	return err
}

func (n notification) into(d *replicator.Decoded) {
	e := replicator.Event{
		Repository: n.Target.Repository, Tag: n.Target.Tag,
		Digest: digest.Digest(n.Target.Digest), MediaType: n.Target.MediaType,
	}
	e.PushedAt, e.SenderTime = parseTime(n.Timestamp)
	switch n.Action {
	case "push":
		if n.ofBlob() {
			b := replicator.Blob{Repository: e.Repository, Digest: e.Digest}
			if size, err := strconv.ParseInt(string(n.Target.Size), 10, 64); err == nil {
				b.Size = size
			}
			d.IgnoreBlob(b)
			return
		}
		e.Action = replicator.Push
	case "delete":
		if e.Tag == "" && e.Digest == "" { // of a whole repository
			d.Ignored++
			return
		}
		e.Action = replicator.Delete
	case "pull", "mount":
		d.Ignored++
		return
	default:
		d.Refuse(fmt.Sprintf("unknown action %.40q", n.Action))
		return
	}
	d.Add(e)
}

// ofBlob: blobs are pushed as octet streams, to an address that says so.
func (n notification) ofBlob() bool {
	blob, manifest := strings.LastIndex(n.Target.URL, "/blobs/"), strings.LastIndex(n.Target.URL, "/manifests/")
	return n.Target.MediaType == "application/octet-stream" || blob > manifest
}

func parseTime(s string) (at time.Time, ok bool) {
	at, err := time.Parse(time.RFC3339Nano, s)
	return at.UTC(), err == nil
}

// eachEvent walks an envelope's events and tells whether it has any list of them.
func eachEvent(body []byte, read func(*json.Decoder) error) (found bool, err error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return false, err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return found, err
		}
		if key != "events" {
			var skipped struct{}
			if err := skipWrongType(dec.Decode(&skipped)); err != nil {
				return found, err
			}
			continue
		}
		if t, err := dec.Token(); err != nil || t != json.Delim('[') {
			return false, err
		}
		found = true
		for dec.More() {
			if err := read(dec); err != nil {
				return found, err
			}
		}
		if _, err := dec.Token(); err != nil {
			return found, err
		}
	}
	return found, nil
}
