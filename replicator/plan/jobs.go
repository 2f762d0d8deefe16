package plan

import (
	"slices"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// A Decision is what follows from one event.
type Decision struct {
	Jobs    []replicator.Job
	Skipped []Skip
}

// A Skip is one "no". Route is empty where no route was asked, Destination
// where the reason holds for all of the route's.
type Skip struct{ Route, Destination, Reason string }

// Jobs decides which routes want an event and what they want done. An event's
// tag counts as newest, so that maxAge and newest never drop it. A job's ID,
// state and times of its own are the journal's to give.
func (r *Rules) Jobs(ev replicator.Event) Decision {
	var d Decision
	skip := func(route, destination, reason string) {
		d.Skipped = append(d.Skipped, Skip{route, destination, reason})
	}
	if reason := r.unusable(ev); reason != "" {
		skip("", "", reason)
		return d
	}
	flows := flowFinder{rules: r, tag: ev.Tag}
	rows := make(map[row]int)
	source := replicator.Place{Registry: ev.Registry, Identity: r.identities[ev.Registry], Repository: ev.Repository}
	for _, ru := range r.bySource[ev.Registry] {
		if ok, reason := ru.selects(ev.Repository); !ok {
			skip(ru.Name, "", reason)
			continue
		}
		if ok, reason := ru.wants(ev); !ok {
			skip(ru.Name, "", reason)
			continue
		}
		repository, err := ru.destination(ev.Repository)
		if err != nil {
			skip(ru.Name, "", err.Error())
			continue
		}
		for _, to := range ru.To {
			if ev.Destinations != nil && !slices.Contains(ev.Destinations, to) {
				skip(ru.Name, to, "the event is meant for other destinations")
				continue
			}
			destination := replicator.Place{Registry: to, Identity: r.identities[to], Repository: repository}
			if isSame(source, destination) {
				skip(ru.Name, to, "repository "+ev.Repository+" would be copied onto itself")
				continue
			}
			job := newJob(ev, source, destination)
			if ev.Tag != "" {
				job.Flow = flows.flow(node{ev.Registry, ev.Repository}, node{to, repository})
			}
			if job.Flow == replicator.TwoWay {
				job.Source, job.Destination = canonical(source, destination)
			}
			want := replicator.Want{Route: ru.Name, Destination: to}
			key := rowOf(job)
			if at, known := rows[key]; known {
				d.Jobs[at].Wants = append(d.Jobs[at].Wants, want)
				continue
			}
			rows[key] = len(d.Jobs)
			job.Wants = []replicator.Want{want}
			d.Jobs = append(d.Jobs, job)
		}
	}
	return d
}

// unusable says why an event means nothing to any route.
func (r *Rules) unusable(ev replicator.Event) string {
	if ev.Action != replicator.Push && ev.Action != replicator.Delete {
		return "the event is neither a push nor a delete"
	}
	if len(r.bySource[ev.Registry]) == 0 {
		return "no route reads from registry " + ev.Registry
	}
	if err := oci.CheckRepository(ev.Repository); err != nil {
		return err.Error()
	}
	if ev.Tag == "" && ev.Digest == "" && ev.Action == replicator.Push {
		return "the event names neither a tag nor a digest"
	}
	if ev.Tag != "" {
		if err := oci.CheckTag(ev.Tag); err != nil {
			return err.Error()
		}
	}
	if ev.Digest != "" {
		if err := oci.CheckDigest(ev.Digest); err != nil {
			return err.Error()
		}
	}
	return ""
}

// wants tells whether a route wants the tag or digest of an event in one of its
// repositories.
func (ru *rule) wants(ev replicator.Event) (bool, string) {
	switch {
	case ev.Action == replicator.Delete:
		if ru.Deletes.Mirror {
			return false, "a deletion that is told is a hint: what is gone, the sweeps of route " + ru.Name + " see, and carry it over when its grace has passed"
		}
		return false, "the destinations of route " + ru.Name + " keep what they have (deletes: keep)"
	case ev.Tag != "":
		return ru.selectsTag(ev.Tag)
	case ru.Untagged:
		return true, ""
	case ev.MayRefer && ru.Referrers != "false":
		return true, ""
	case ev.MayRefer:
		return false, "the manifest was pushed by digest alone, and route " + ru.Name +
			" carries neither referrers (referrers: false) nor untagged manifests (untagged: skip)"
	}
	return false, "the manifest was pushed by digest alone, and route " + ru.Name +
		" copies such ones only as part of a tagged image (untagged: skip)"
}

func newJob(ev replicator.Event, source, destination replicator.Place) replicator.Job {
	return replicator.Job{
		Source: source, Destination: destination,
		Tag: ev.Tag, Digest: ev.Digest,
		Lane: ev.Lane, Full: ev.Full,
		PushedAt: ev.PushedAt, SenderTime: ev.SenderTime, BehindSince: ev.PushedAt,
	}
}

// A row is what makes two jobs of an event one: the tag or digest is the
// event's, so the ends are enough.
type row struct{ source, destination end }

type end struct{ registry, repository string }

func rowOf(job replicator.Job) row {
	return row{endOf(job.Source), endOf(job.Destination)}
}

func endOf(place replicator.Place) end {
	if place.Identity != "" {
		return end{place.Identity, place.Repository}
	}
	return end{place.Registry, place.Repository}
}

func isSame(a, b replicator.Place) bool { return endOf(a) == endOf(b) }
