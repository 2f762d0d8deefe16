package replicator

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
