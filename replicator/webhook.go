package replicator

import "github.com/opencontainers/go-digest"

// MaxWebhookEvents is how many events of one webhook request are read; what is
// over it is unusable, and the sweep finds it.
const MaxWebhookEvents = 10000

// Decoded is what one webhook request told, as its registry words it: a
// provider's decoder gives it, intake checks it.
type Decoded struct {
	// Events are pushes and deletes of manifests and tags, in the sender's
	// order. Repository is as the registry names it, its prefix included; Tag,
	// Digest and PushedAt are as sent and unchecked. Registry, ReceivedAt, Lane
	// and Cause are not set.
	Events []Event
	// Ignored counts what was understood and is no such push or delete: pulls,
	// blobs, mounts, scans.
	Ignored int
	// Blobs are those of the ignored that were pushed just now, at most
	// MaxWebhookBlobs: a manifest that names them is on its way. Repository and
	// Digest are unchecked.
	Blobs []Blob
	// Unusable counts what was not understood and may have been one; Why is the
	// reason of the first, in one short line.
	Unusable int
	Why      string
	// Ping: the request only asks whether somebody is there.
	Ping bool
	// Answer, with Ping, is the JSON a handshake wants to be answered with;
	// empty: the counts.
	Answer []byte
}

// Add takes an event in, or counts it as unusable when there are too many.
func (d *Decoded) Add(e Event) {
	if len(d.Events) >= MaxWebhookEvents {
		d.Refuse("more events than are read of one request")
		return
	}
	d.Events = append(d.Events, e)
}

// MaxWebhookBlobs bounds the blobs taken from one request.
const MaxWebhookBlobs = 256

// A Blob is one that a source was given before a manifest that names it.
type Blob struct {
	// Registry is the config's name of the registry that told.
	Registry string
	// Repository is the name below the registry's prefix.
	Repository string
	Digest     digest.Digest
	// Size is what the registry says it has.
	Size int64
}

// IgnoreBlob counts a blob's push as ignored, and keeps it as a hint where its
// size is told.
func (d *Decoded) IgnoreBlob(b Blob) {
	d.Ignored++
	if b.Size > 0 && len(d.Blobs) < MaxWebhookBlobs {
		d.Blobs = append(d.Blobs, b)
	}
}

// Refuse counts one thing that cannot be used.
func (d *Decoded) Refuse(why string) {
	if d.Unusable == 0 {
		d.Why = why
	}
	d.Unusable++
}

// Shown is what a webhook shows to prove its sender in ways of its own kind,
// beyond those that intake takes of any: secrets in clear, and MACs of the raw
// body keyed with the secret.
type Shown struct {
	Secrets    []string
	Signatures []Signature
}

// A Signature is an HMAC of a body as it was received.
type Signature struct {
	// SHA1: it is made with SHA-1, for the senders that know no other;
	// otherwise with SHA-256.
	SHA1 bool
	MAC  []byte
}
