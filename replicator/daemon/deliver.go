package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/limit"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/transfer"
	"github.com/twinport/twinport/replicator/verify"
)

const (
	// rightBefore is how old a reading of the source's tag may be at the PUT.
	// A tag that a sweep found is no news: its reading may be older, and the
	// one after the PUT sees what changed meanwhile.
	rightBefore      = time.Second
	rightBeforeSwept = 10 * time.Second
	// lookHolds is how old the look at a destination's tag may be at the PUT
	// where only the source is pushed to.
	lookHolds = time.Minute
	// leaseMargin lies between the PUT's deadline and the lease's end.
	leaseMargin = 2 * time.Second
)

// errMoved says that the source's tag names something else by now.
var errMoved = errors.New("the source's tag has moved on")

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

// A sighting is the last reading of the source's tag, shared by the
// destinations of a claim.
type sighting struct {
	turn    turn // of who reads it
	digest  digest.Digest
	started time.Time
	// failed is why the last reading gave nothing, until when it tried.
	failed   error
	failedAt time.Time
}

func newSighting(d digest.Digest, started time.Time) *sighting {
	return &sighting{turn: newTurn(), digest: d, started: started}
}

// since gives what the tag names by a reading that began after t; a tag that
// is gone gives the empty digest. All that wait for a reading get what came of it.
func (s *sighting) since(ctx context.Context, from delivery, t time.Time, now func() time.Time) (digest.Digest, error) {
	asked := now()
	if err := s.turn.take(ctx); err != nil {
		return "", err
	}
	defer s.turn.give()
	switch {
	case s.started.After(t):
		return s.digest, nil
	case s.failed != nil && asked.Before(s.failedAt):
		return "", s.failed
	}
	started := now()
	desc, err := from.repo.Resolve(ctx, from.tag)
	if err != nil && !errors.Is(err, oci.ErrNotFound) {
		err = fmt.Errorf("read the source's tag again: %w", err)
		if ctx.Err() == nil {
			s.failed, s.failedAt = err, now()
		}
		return "", err
	}
	s.digest, s.started = desc.Digest, started
	return s.digest, nil
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

// A copyRequest is transfer's request under the context of its routes' caps.
type copyRequest struct {
	transfer.Request
	ctx context.Context
}

// request describes a copy to transfer, with what the journal knows of blobs.
func (r *run) request(ctx context.Context, from delivery, targets []*target) copyRequest {
	mode := transfer.ReferrersNone
	req := transfer.Request{
		SourceIdentity: from.readFrom(), Source: from.repo, Root: from.root,
		Progress: func(p transfer.Progress) { r.step(); r.journey.progress(p) },
	}
	var caps []*limit.Bandwidth
	for _, t := range targets {
		switch t.route.Referrers {
		case "required":
			mode = transfer.ReferrersRequire
		case "false":
		default:
			if mode == transfer.ReferrersNone {
				mode = transfer.ReferrersFollow
			}
		}
		known := newLocator(r.journal, t.place)
		req.Destinations = append(req.Destinations, transfer.Destination{
			Identity: t.place.Identity, Repository: t.repo,
			MountFrom: known.elsewhere, Present: known.here,
		})
		caps = append(caps, r.state.RouteBandwidth[t.route.Name])
	}
	req.Referrers = mode
	if targets[0].job.Lane != replicator.LaneWebhook && !from.gone {
		req.SourceTags = r.companions.of(from.place, r.now())
	}
	for _, t := range targets {
		req.Full = req.Full || t.job.Full
		req.Merge = req.Merge || t.job.Flow != replicator.OneWay
	}
	return copyRequest{Request: req, ctx: limit.WithBandwidth(ctx, caps...)}
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

// moveTag is the last step of a delivery, by one holder per tag (design, P3):
// source tag and lease are checked right before the PUT, whose deadline lies
// before the lease's end, and both are read again after it.
func (r *run) moveTag(ctx context.Context, from delivery, t *target) error {
	if err := r.awaitLease(ctx); err != nil {
		return err
	}
	if from.gone {
		if err := r.stillGone(from, t); err != nil {
			return err
		}
	} else if err := r.unchanged(ctx, from, t); err != nil {
		return err
	}
	if err := r.unmoved(ctx, from, t); err != nil {
		return err
	}
	return r.putTag(ctx, from, t)
}

// unchanged gives errMoved where the source's tag no longer names the root.
func (r *run) unchanged(ctx context.Context, from delivery, t *target) error {
	fresh := rightBefore
	if t.job.Lane != replicator.LaneWebhook {
		fresh = rightBeforeSwept
	}
	now, err := from.seen.since(ctx, from, r.now().Add(-fresh), r.now)
	if err != nil {
		return err
	}
	if now != from.root.Digest && !from.last {
		return errMoved
	}
	return nil
}

// putTag moves a tag whose ends have just been looked at, and reads both again.
func (r *run) putTag(ctx context.Context, from delivery, t *target) error {
	if t.preserve {
		if err := r.keepLost(ctx, from, t); err != nil {
			return err
		}
	}
	if t.intent || t.known {
		// Should we end before the record is written, whoever looks next finds a
		// tag that is not as recorded: this says that it was us.
		intent := replicator.Intent{At: t.place.Identity, Old: t.present, New: from.root.Digest}
		if err := r.journal.Begin(ctx, r.claim, t.job.ID, intent); err != nil {
			return fmt.Errorf("write down the tag's move: %w", err)
		}
		t.begun = append(t.begun, intent)
	}
	until := r.journal.ClaimUntil(r.claim)
	if r.now().After(until.Add(-leaseMargin)) {
		return fmt.Errorf("the lease ends at %s: %w", until.UTC().Format(time.RFC3339), oci.ErrInterrupted)
	}
	arrived := r.arrivals.begin(t.place, t.job.Tag, from.root.Digest, t.job.PushedAt)
	r.mu.Lock()
	r.ended = append(r.ended, arrived)
	r.mu.Unlock()
	put, cancel := context.WithDeadline(ctx, until.Add(-leaseMargin))
	err := r.copier.Tag(put, transfer.Destination{Identity: t.place.Identity, Repository: t.repo}, t.job.Tag, from.root)
	cancel()
	r.late(ctx, from, t, until)
	if err != nil {
		return fmt.Errorf("move the tag: %w", err)
	}
	ended := r.now()
	r.journey.moved()
	r.step()

	// The tag read back, and the source's tag read again, beside each other.
	again := make(chan error, 1)
	go func() {
		if from.gone { // nobody to ask
			again <- nil
			return
		}
		again <- r.successor(ctx, from, t, ended)
	}()
	report, err := verify.Tag(ctx, t.repo, t.job.Tag, from.root)
	if serr := <-again; serr != nil {
		// The move stands; whether the source moved on is the sweep's to find.
		r.log.Debug("read the source's tag after the move: " + bounded(serr.Error()))
	}
	if err != nil {
		return fmt.Errorf("read the tag back: %w", err)
	}
	if !report.Sound() {
		return fmt.Errorf("%s:%s was moved to something else right after our move: %w", t.place, t.job.Tag, oci.ErrInterrupted)
	}
	return nil
}

// unmoved gives errMoved where the destination's tag no longer names what it
// did when the move was decided on: whoever may push there may have done so
// while the content was copied.
func (r *run) unmoved(ctx context.Context, from delivery, t *target) error {
	holds := lookHolds
	if t.intent { // pushes there are nothing unusual
		holds = rightBefore
	}
	if r.now().Sub(t.looked) < holds {
		return nil
	}
	desc, err := t.repo.Resolve(ctx, t.job.Tag)
	switch {
	case err != nil && !errors.Is(err, oci.ErrNotFound):
		return fmt.Errorf("read the destination's tag again: %w", err)
	case desc.Digest == t.present || desc.Digest == from.root.Digest:
		return nil
	case from.last:
		return fmt.Errorf("%s:%s moves all the time: %w", t.place, t.job.Tag, oci.ErrInterrupted)
	}
	return errMoved
}

// successor queues the tag again where the source's tag has moved on since.
func (r *run) successor(ctx context.Context, from delivery, t *target, after time.Time) error {
	d, err := from.seen.since(ctx, from, after, r.now)
	if err != nil || d == from.root.Digest || d == "" {
		return err
	}
	next := t.job
	next.Digest = d
	next.PushedAt, next.BehindSince, next.SenderTime = r.now(), r.now(), false
	_, err = r.journal.Accept(ctx, journal.Intake{Jobs: []replicator.Job{next}})
	return err
}

// keepLost keeps what the tag names now under a tag of its own, unless the
// source still has it: then it is only an older state.
func (r *run) keepLost(ctx context.Context, from delivery, t *target) error {
	_, err := from.repo.Resolve(ctx, t.present.String())
	if err == nil {
		return nil
	}
	if !errors.Is(err, oci.ErrNotFound) {
		return fmt.Errorf("ask the source for what the destination's tag names: %w", err)
	}
	old, err := t.repo.FetchManifest(ctx, t.present.String())
	if errors.Is(err, oci.ErrNotFound) {
		return nil // the tag named nothing that could be pulled
	}
	if err != nil {
		return fmt.Errorf("read what the destination's tag names: %w", err)
	}
	tag := "twinport-lost-" + t.present.Encoded()[:12]
	_, err = t.repo.PushManifest(ctx, tag, old)
	if errors.Is(err, oci.ErrBlobUnknown) {
		// It cannot be pulled whole, nor kept: the tag is not to wait for it.
		f := r.finding(t.job, replicator.FindingDrift,
			fmt.Sprintf("%s:%s named %s, which is not the source's and lacks content; the source wins, and it could not be kept as tag %s", t.place, t.job.Tag, t.present, tag),
			"find out who put it there; it can be read by its digest as far as it goes")
		f.Digest = t.present
		r.note(t.job, f)
		return nil
	}
	if err != nil {
		return fmt.Errorf("keep %s as %s: %w", t.present, tag, err)
	}
	f := r.finding(t.job, replicator.FindingDrift,
		fmt.Sprintf("%s:%s named %s, which is not the source's; the source wins, and it is kept as tag %s", t.place, t.job.Tag, t.present, tag),
		"compare the two; delete the tag when nobody needs it")
	f.Digest = t.present
	r.note(t.job, f)
	return nil
}

// done writes that a target is proven: record, history and locations in the
// one commit that ends the job.
func (r *run) done(t *target, from delivery, d digest.Digest, bytes int64, landed []digest.Digest) {
	now := r.now()
	record := replicator.Record{
		Destination: t.place, Tag: t.job.Tag, Digest: d, Source: from.place, Route: t.route.Name,
		PushedAt: t.job.PushedAt, ProvenAt: now, Wrote: t.present != d || (t.known && t.record.Wrote), Bytes: bytes,
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
	if t.job.Tag != "" && t.present != d {
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
	for i, result := range r.copier.CopyReferrers(request.ctx, request.Request) {
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
