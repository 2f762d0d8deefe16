package journal

import (
	"context"
	"errors"
	"fmt"

	"github.com/twinport/twinport/replicator"
)

// Accept commits an intake as a whole: when it returns nil, its jobs survive
// whatever happens to this process or machine. ErrBusy and errors of the disk
// leave nothing behind; ask again.
func (j *Journal) Accept(ctx context.Context, in Intake) (Accepted, error) {
	desired, err := prepareAll(in.Jobs)
	if err != nil {
		return Accepted{}, fmt.Errorf("accept: %w", err)
	}
	for _, s := range in.History {
		if err := checkTagState(s); err != nil {
			return Accepted{}, fmt.Errorf("accept: %w", err)
		}
	}
	var accepted Accepted
	ahead := func(b *batch) { b.willAccept(desired, in) }
	err = j.writeAhead(ctx, false, ahead, func(b *batch) error {
		accepted = Accepted{}
		for i := range desired {
			v, err := b.accept(&desired[i])
			if err != nil {
				return fmt.Errorf("accept job: %w", err)
			}
			accepted.count(v)
		}
		for _, s := range in.History {
			if err := b.addTagState(s); err != nil {
				return err
			}
		}
		for _, f := range in.Findings {
			if err := b.tell(f); err != nil {
				return err
			}
		}
		for _, name := range in.SweepDue {
			if err := b.exec(sqlSweepDue, clip(name, maxName), b.now); err != nil {
				return fmt.Errorf("mark a sweep due: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return Accepted{}, err
	}
	return accepted, nil
}

func (a *Accepted) count(v verdict) {
	switch v {
	case made:
		a.Made++
	case renewed:
		a.Renewed++
	case isHeld:
		a.Held++
	case isRefused:
		a.Refused++
	}
}

// A desire is a job to accept, checked, with what needs no database worked out.
type desire struct {
	src, dst replicator.Place
	flow     replicator.Flow
	tag, ref string
	wants    []replicator.Want
	push     push
}

func prepareAll(jobs []replicator.Job) ([]desire, error) {
	desired := make([]desire, len(jobs))
	for i := range jobs {
		var err error
		if desired[i], err = prepare(&jobs[i]); err != nil {
			return nil, err
		}
	}
	return desired, nil
}

func prepare(job *replicator.Job) (desire, error) {
	if err := errors.Join(checkPlace(job.Source), checkPlace(job.Destination)); err != nil {
		return desire{}, err
	}
	ref := job.Reference()
	switch {
	case ref == "":
		return desire{}, errors.New("a job has neither tag nor digest")
	case len(ref) > maxName || len(job.Digest) > maxName:
		return desire{}, fmt.Errorf("reference %.64q is over %d bytes", ref, maxName)
	case len(job.Wants) == 0:
		return desire{}, errors.New("no route wants the job")
	case job.Lane < replicator.LaneWebhook || job.Lane > replicator.LaneBackfill:
		return desire{}, fmt.Errorf("no lane %d", int(job.Lane))
	}
	p := push{digest: string(job.Digest), lane: job.Lane, pushed: micros(job.PushedAt),
		behind: micros(job.BehindSince), sender: job.SenderTime, full: job.Full}
	if p.behind == 0 {
		p.behind = p.pushed
	}
	return desire{src: job.Source, dst: job.Destination, flow: job.Flow, tag: job.Tag, ref: ref,
		wants: normalWants(job.Wants), push: p}, nil
}

// accept makes or renews the job's row.
func (b *batch) accept(d *desire) (verdict, error) {
	src, err := b.registry(d.src.Identity, d.src.Registry)
	if err != nil {
		return 0, err
	}
	dst, err := b.registry(d.dst.Identity, d.dst.Registry)
	if err != nil {
		return 0, err
	}
	edge, err := b.edge(src, dst, d.flow, d.wants)
	if err != nil {
		return 0, err
	}
	p := d.push
	if p.pushed == 0 {
		p.pushed = b.now
	}
	if p.behind == 0 {
		p.behind = p.pushed
	}
	if err := b.returned(dst, d.dst.Repository, d.tag); err != nil {
		return 0, err
	}
	k := jobKey{dst: dst, dstRepository: d.dst.Repository, ref: d.ref, src: src, srcRepository: d.src.Repository}
	check := func(digest string) (jobError, bool, error) { return b.refusal(dst, d.dst.Repository, digest) }
	r, err := b.load(k)
	if err != nil {
		return 0, err
	}
	if r == nil {
		r = &row{key: k, edge: edge, flow: d.flow, tag: d.tag}
		v, err := r.begin(p, b.now, check)
		if err != nil {
			return 0, err
		}
		b.add(r)
		return v, nil
	}
	before := *r
	if r.edge, err = b.join(r.edge, edge); err != nil {
		return 0, err
	}
	r.flow = d.flow
	// A running job proves the ends that its routes wanted when it was claimed.
	p.joins = d.flow != replicator.OneWay && r.edge != before.edge
	v, replaced, err := r.push(p, b.now, check)
	if err != nil {
		return 0, err
	}
	if *r != before {
		b.change(r)
	}
	if replaced != nil {
		b.supersede(r, *replaced)
	}
	return v, nil
}

// supersede keeps a replaced digest as a row of its own, for people to see.
func (b *batch) supersede(r *row, s superseding) {
	b.add(&row{key: r.key, edge: r.edge, flow: r.flow, tag: r.tag, digest: s.digest, lane: r.lane,
		pushed: s.pushed, sender: s.sender, behind: s.pushed, state: superseded, generation: r.generation})
}
