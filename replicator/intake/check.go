package intake

import (
	"fmt"
	"strings"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// skew is by how much a sender's clock may run before ours without its
	// time being worth less.
	skew = 5 * time.Second
	// maxMediaType bounds a hint; a longer or stranger one is dropped.
	maxMediaType = 255
)

// oldest is the earliest time a sender is believed: before it lies what broken
// clocks and empty fields give.
var oldest = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)

// refusals counts what cannot be used.
type refusals struct {
	n   int
	why string
}

func (r *refusals) add(n int, why string) {
	if r.n == 0 {
		r.why = why
	}
	r.n += n
}

func (r refusals) message() string {
	if r.n == 1 {
		return "webhook cannot be used: " + r.why
	}
	return fmt.Sprintf("%d events of a webhook cannot be used, the first: %s", r.n, r.why)
}

// unusable is the finding that a webhook told something we cannot use. It is
// one per registry, however often it happens.
func (registry Registry) unusable(message string, now time.Time) replicator.Finding {
	return replicator.Finding{
		Kind: replicator.FindingUnusableEvent, At: now, Registry: registry.Name, Message: message,
		Hint: "check that the registry's kind is that of the sender; a sweep is due and finds what was pushed",
	}
}

// check keeps what can be used of what a decoder gave: names that are names,
// inside the registry's prefix, each state of a tag told once. Repeated events
// count as ignored.
func (registry Registry) check(d replicator.Decoded, now time.Time) (events []replicator.Event, ignored int, refused refusals) {
	ignored = d.Ignored
	if d.Unusable > 0 {
		refused.add(d.Unusable, d.Why)
	}
	type place struct{ repository, reference string }
	last := make(map[place]int)
	for n, e := range d.Events {
		if n >= replicator.MaxWebhookEvents {
			refused.add(len(d.Events)-n, "more events than are read of one request")
			break
		}
		if err := checkNames(e); err != nil {
			refused.add(1, err.Error())
			continue
		}
		name, inside := below(registry.Prefix, e.Repository)
		if !inside {
			ignored++
			continue
		}
		e.Repository, e.Registry = name, registry.Name
		e.ReceivedAt, e.Lane, e.Cause = now, replicator.LaneWebhook, "webhook"
		e.PushedAt, e.SenderTime = pushedAt(e, now)
		if len(e.MediaType) > maxMediaType || strings.ContainsFunc(e.MediaType, unprintable) {
			e.MediaType = ""
		}
		at := place{e.Repository, e.Tag}
		if e.Tag == "" {
			at.reference = e.Digest.String()
		}
		// Only what directly repeats is told twice: a tag that went away and
		// came back has been pushed again.
		if i, seen := last[at]; seen && events[i].Action == e.Action && events[i].Digest == e.Digest {
			if e.PushedAt.Before(events[i].PushedAt) {
				events[i].PushedAt, events[i].SenderTime = e.PushedAt, e.SenderTime
			}
			events[i].MayRefer = events[i].MayRefer || e.MayRefer
			ignored++
			continue
		}
		last[at] = len(events)
		events = append(events, e)
	}
	return events, ignored, refused
}

// checkBlobs keeps the hints that name what can be there.
func (registry Registry) checkBlobs(told []replicator.Blob) []replicator.Blob {
	var blobs []replicator.Blob
	for _, b := range told[:min(len(told), replicator.MaxWebhookBlobs)] {
		name, inside := below(registry.Prefix, b.Repository)
		if !inside || b.Size <= 0 || oci.CheckRepository(b.Repository) != nil || oci.CheckDigest(b.Digest) != nil {
			continue
		}
		b.Registry, b.Repository = registry.Name, name
		blobs = append(blobs, b)
	}
	return blobs
}

// unprintable is what no media type contains.
func unprintable(r rune) bool { return r <= ' ' || r > '~' }

// checkNames holds an event against the specs' grammars.
func checkNames(e replicator.Event) error {
	if err := oci.CheckRepository(e.Repository); err != nil {
		return err
	}
	if e.Tag == "" && e.Digest == "" {
		return fmt.Errorf("%.80q: neither tag nor digest", e.Repository)
	}
	if e.Tag != "" {
		if err := oci.CheckTag(e.Tag); err != nil {
			return err
		}
	}
	if e.Digest != "" {
		return oci.CheckDigest(e.Digest)
	}
	return nil
}

// below takes the prefix off a name; the prefix itself is no name below it.
func below(prefix, repository string) (name string, inside bool) {
	prefix = strings.Trim(prefix, "/")
	if prefix == "" {
		return repository, true
	}
	return strings.CutPrefix(repository, prefix+"/")
}

// pushedAt is the sender's time, never after receipt.
func pushedAt(e replicator.Event, now time.Time) (at time.Time, senders bool) {
	if !e.SenderTime || e.PushedAt.Before(oldest) {
		return now, false
	}
	if e.PushedAt.After(now) {
		return now, e.PushedAt.Sub(now) <= skew
	}
	return e.PushedAt.UTC(), true
}
