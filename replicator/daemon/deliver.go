package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/transfer"
	"github.com/twinport/twinport/replicator/verify"
)

// A delivery is one root on its way from one repository.
type delivery struct {
	src   *Registry
	repo  oci.Repository
	place replicator.Place
	tag   string // empty: by digest
	root  oci.Manifest
	seen  *sighting
	// last: the tag is moved to root even if the source has moved on.
	last bool
	// gone: the source does not answer, and repo is another place; the tag is
	// moved unconfirmed. dangling: it answers, and has lost what its tag names.
	gone, dangling bool
	// mended: what the source lacks is read from other places already.
	mended bool
	// identity is of the registry that repo belongs to where that is not the source's.
	identity string
}

// readFrom is the identity under which reads of the delivery's content are
// shared; a source and what mends it are two.
func (f delivery) readFrom() string {
	switch {
	case f.identity != "":
		return f.identity
	case f.mended:
		return f.place.Identity + " and elsewhere"
	}
	return f.place.Identity
}

// deliver copies a root to its targets, proves it there and moves the tag, each
// destination by itself. It gives back the targets whose source tag moved on.
func (r *run) deliver(ctx context.Context, from delivery, targets []*target) (moved []*target) {
	if len(targets) == 0 {
		return nil
	}
	var mu sync.Mutex
	var finishing sync.WaitGroup
	var lacking []*target
	why := make(map[*target]error)
	request := r.request(ctx, from, targets)
	request.Tagged = from.tag != ""
	request.Finished = func(i int, result transfer.Result) {
		r.step()
		finishing.Add(1)
		go func() {
			defer finishing.Done()
			t := targets[i]
			switch err := r.settle(oci.WithJob(ctx, t.job.ID), from, t, result); {
			case errors.Is(err, errMoved):
				mu.Lock()
				moved = append(moved, t)
				mu.Unlock()
			case result.Err != nil && !from.mended && !from.gone && sourceAtFault(result.Findings, err):
				mu.Lock()
				lacking, why[t] = append(lacking, t), err
				mu.Unlock()
			case err != nil:
				r.fail(ctx, t.job, err)
			}
		}()
	}
	r.copier.Copy(request.ctx, request.Request)
	finishing.Wait()
	return append(moved, r.mend(ctx, from, lacking, why)...)
}

// request describes a copy to transfer, with what the journal knows of blobs.
func (r *run) request(ctx context.Context, from delivery, targets []*target) copyRequest {
	mode := transfer.ReferrersNone
	req := transfer.Request{
		SourceIdentity: from.readFrom(), Source: from.repo, Root: from.root,
		Progress: func(p transfer.Progress) { r.step(); r.journey.progress(p) },
	}
	ways := make([]way, len(targets))
	for i, t := range targets {
		ways[i] = way{route: t.route.Name, place: t.place, repo: t.repo}
		switch t.route.Referrers {
		case "required":
			mode = transfer.ReferrersRequire
		case "false":
		default:
			if mode == transfer.ReferrersNone {
				mode = transfer.ReferrersFollow
			}
		}
	}
	req.Referrers = mode
	if targets[0].job.Lane != replicator.LaneWebhook && !from.gone {
		req.SourceTags = r.companions.of(from.place, r.now())
	}
	for _, t := range targets {
		req.Full = req.Full || t.job.Full
		req.Merge = req.Merge || t.job.Flow != replicator.OneWay
	}
	return r.requestTo(ctx, r.state, req, ways)
}

// settle proves what was copied to one destination and moves its tag.
func (r *run) settle(ctx context.Context, from delivery, t *target, result transfer.Result) error {
	roots, err := r.received(ctx, t, result)
	if err != nil {
		return err
	}
	var report verify.Report
	if from.tag == "" {
		report, err = verify.Image(ctx, t.repo, from.root.Digest.String(), r.proof(ctx, t.place, roots))
	} else {
		report, err = verify.Content(ctx, t.repo, from.root, r.proof(ctx, t.place, roots))
	}
	if err != nil {
		return fmt.Errorf("prove the copy: %w", err)
	}
	if err := r.unsound(t, report); err != nil {
		return err
	}
	r.step()
	if from.tag != "" {
		if err := r.moveTag(ctx, from, t); err != nil {
			return err
		}
	}
	r.done(t, from, from.root.Digest, report.Bytes, result.Landed)
	return nil
}

// done writes that a target is proven: record, history and locations in the
// one commit that ends the job.
func (r *run) done(t *target, from delivery, d digest.Digest, bytes int64, landed []digest.Digest) {
	now := r.now()
	moved := t.present != d || t.movedTo(d)
	record := replicator.Record{
		Destination: t.place, Tag: t.job.Tag, Digest: d, Source: from.place, Route: t.route.Name,
		PushedAt: t.job.PushedAt, ProvenAt: now, Wrote: moved || (t.known && t.record.Wrote), Bytes: bytes,
	}
	if t.known && t.record.Digest == d {
		record.PushedAt = t.record.PushedAt
		record.ReferrersAt = t.record.ReferrersAt
	}
	if t.route.Referrers != "false" && !from.gone && (t.asked || t.present != d) {
		record.ReferrersAt = now
	}
	out := journal.Outcome{
		ID: t.job.ID, Generation: t.job.Generation, State: replicator.Done, Counted: true, Digest: d,
	}
	cause := causeCopied
	if from.gone && from.tag != "" {
		record.Unconfirmed, cause = true, kindUnconfirmed
		out.State, out.Counted, out.NextAttempt, out.Error = replicator.Waiting, false, now.Add(confirmAgain), unconfirmedError(from, t)
	}
	out.Records = []replicator.Record{record}
	if t.intent || len(t.begun) > 0 {
		out.Base = d
	}
	if t.job.Tag != "" && moved {
		out.History = []replicator.TagState{{Place: t.place, Tag: t.job.Tag, Digest: d, At: now, Cause: cause}}
	}
	if from.tag != "" && !from.gone {
		r.settled(t, d, &out)
	}
	if from.tag != "" && t.job.Digest != d && !from.gone { // the event told something else, or nothing
		read := replicator.TagState{Place: from.place, Tag: from.tag, Digest: d, At: t.job.PushedAt, Cause: "read"}
		if t.job.Digest != "" {
			read.At = now
		}
		out.History = append(out.History, read)
	}
	for _, blob := range landed {
		out.Locations = append(out.Locations, replicator.Location{Place: t.place, Digest: blob})
	}
	r.set(out)
	r.watchLate(t, d)
	if t.present != d && !t.hollow {
		r.journey.arrived(t.present == "")
	}
}

// copyReferrers brings a root's referrers to targets that have the root, then
// has each one proven by settle.
func (r *run) copyReferrers(ctx context.Context, from delivery, targets []*target, settle func(*target, []digest.Digest) error) {
	request := r.request(ctx, from, targets)
	r.settleEach(ctx, targets, r.copier.CopyReferrers(request.ctx, request.Request), settle)
}

// copyWhole brings a root and its referrers, then has each target proven by
// settle.
func (r *run) copyWhole(ctx context.Context, from delivery, targets []*target, settle func(*target, []digest.Digest) error) {
	request := r.request(ctx, from, targets)
	r.settleEach(ctx, targets, r.copier.Copy(request.ctx, request.Request), settle)
}

func (r *run) settleEach(ctx context.Context, targets []*target, results []transfer.Result, settle func(*target, []digest.Digest) error) {
	for i, result := range results {
		t := targets[i]
		roots, err := r.received(ctx, t, result)
		if err == nil {
			t.asked = true
			err = settle(t, roots)
		}
		if err != nil {
			r.fail(ctx, t.job, err)
		}
	}
}

// received keeps what transfer tells of one destination; it gives the roots of
// the referrers that are there now.
func (r *run) received(ctx context.Context, t *target, result transfer.Result) ([]digest.Digest, error) {
	for _, f := range result.Findings {
		full := r.finding(t.job, f.Kind, f.Message, f.Hint)
		full.Digest = f.Digest
		r.note(t.job, full)
	}
	for _, refused := range result.RefusedMounts {
		place := replicator.Place{Registry: t.place.Registry, Identity: t.place.Identity, Repository: refused.Repository}
		if err := r.journal.ForgetLocation(ctx, replicator.Location{Place: place, Digest: refused.Digest}); err != nil {
			r.log.Debug("forget a blob's location", zap.Error(err))
		}
	}
	r.journey.copied(t.route.Name, t.place.Registry, result.UploadedBytes+result.ManifestBytes)
	roots := make([]digest.Digest, len(result.Referrers))
	for i, desc := range result.Referrers {
		roots[i] = desc.Digest
	}
	return roots, result.Err
}
