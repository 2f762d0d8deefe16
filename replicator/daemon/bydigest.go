package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/verify"
)

// byDigest brings a manifest that is wanted for itself, or as a referrer of
// something that is replicated.
func (r *run) byDigest(ctx context.Context, src *Registry, targets []*target) {
	if len(targets) == 0 {
		return
	}
	first := targets[0].job
	repo := src.Client.Repository(first.Source.Repository)
	root, err := repo.FetchManifest(ctx, first.Digest.String())
	if err != nil {
		targets = r.goneByDigest(ctx, src, targets, err)
		for _, t := range targets {
			if errors.Is(err, oci.ErrNotFound) {
				if r.pending(t.job, "the source does not have it (yet)") {
					continue
				}
				if t.job.Attempts >= 3 {
					r.gone(t.job, "the source no longer has it")
					continue
				}
			}
			r.fail(ctx, t.job, err)
		}
		return
	}
	r.step()
	refs, err := oci.ParseReferences(root)
	if err != nil {
		for _, t := range targets {
			r.fail(ctx, t.job, err)
		}
		return
	}
	from := delivery{src: src, repo: repo, place: first.Source, root: root}
	var whole, referrers []*target
	for _, t := range targets {
		if r.barred(ctx, t, root.Digest) {
			continue
		}
		switch {
		case t.route.Untagged && r.standsByDigest(ctx, from, t):
		case t.route.Untagged:
			whole = append(whole, t)
		case refs.Subject != nil && t.route.Referrers != "false":
			referrers = append(referrers, t)
		default:
			r.gone(t.job, "no tag and no subject: only `untagged: copy` carries it")
		}
	}
	if refs.Subject != nil {
		// Whether or not the source lists it: what is proven is this very manifest.
		whole = append(whole, r.each(ctx, referrers, func(ctx context.Context, t *target) error {
			if err := r.awaitSubject(ctx, t, refs.Subject.Digest); err != nil || r.outcome(t.job) != nil {
				return err
			}
			r.standsByDigest(ctx, from, t)
			return nil
		})...)
	}
	r.deliver(ctx, from, whole)
}

// standsByDigest proves a manifest that the destination has already: it is not
// pushed again, or registries that feed each other would tell of it forever.
func (r *run) standsByDigest(ctx context.Context, from delivery, t *target) bool {
	report, err := verify.Image(ctx, t.repo, from.root.Digest.String(), r.proof(ctx, t.place, nil))
	if err != nil || !report.Sound() {
		return false // the copy finds out what is wrong
	}
	t.present = from.root.Digest
	r.done(t, from, from.root.Digest, report.Bytes, nil)
	return true
}

// companion handles a tag that belongs to a subject: a referrers fallback
// index, or one of cosign's.
func (r *run) companion(ctx context.Context, src *Registry, targets []*target) {
	if len(targets) == 0 {
		return
	}
	first := targets[0].job
	subject, fallback, _ := oci.CompanionSubject(first.Tag)
	repo := src.Client.Repository(first.Source.Repository)
	if fallback {
		index, err := repo.Resolve(ctx, first.Tag)
		if err != nil {
			r.sourceLacks(ctx, repo, targets, err)
			return
		}
		r.referrersOf(ctx, delivery{src: src, repo: repo, place: first.Source}, subject, index.Digest, targets)
		r.settleAll(targets, index.Digest)
		return
	}
	// cosign's tags are images of their own that wait for their subject.
	r.oneWay(ctx, src, r.each(ctx, targets, func(ctx context.Context, t *target) error {
		return r.awaitSubject(ctx, t, subject)
	}))
}

// subjectTries bounds how often a companion waits for a subject that is not there.
const subjectTries = 6

// awaitSubject lets a companion pass once its subject is at the destination. A
// subject that does not come is one that no route carries.
func (r *run) awaitSubject(ctx context.Context, t *target, subject digest.Digest) error {
	_, err := t.repo.Resolve(ctx, subject.String())
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, oci.ErrNotFound):
		return err
	case t.job.Attempts >= subjectTries:
		r.orphans.note(t.place, subject)
		r.gone(t.job, fmt.Sprintf("its subject %s is not replicated", subject))
		return nil
	}
	r.set(journal.Outcome{
		ID: t.job.ID, Generation: t.job.Generation, State: replicator.Waiting, Counted: true,
		NextAttempt: r.now().Add(backoff(t.job.ID, t.job.Attempts)),
		Error:       &replicator.JobError{Kind: "subject", Message: fmt.Sprintf("its subject %s is not at the destination yet", subject)},
	})
	return nil
}

// referrersOf brings what refers to a subject to the destinations that have
// the subject; proven is the digest whose arrival ends the jobs.
func (r *run) referrersOf(ctx context.Context, from delivery, subject, proven digest.Digest, targets []*target) {
	targets = r.each(ctx, targets, func(ctx context.Context, t *target) error {
		return r.awaitSubject(ctx, t, subject)
	})
	if len(targets) == 0 {
		return
	}
	root, err := from.repo.FetchManifest(ctx, subject.String())
	if errors.Is(err, oci.ErrNotFound) {
		// The source has lost the subject or never had it: what it lists is
		// wanted all the same where the subject is.
		root, err = targets[0].repo.FetchManifest(ctx, subject.String())
	}
	if err != nil {
		r.sourceLacks(ctx, from.repo, targets, err)
		return
	}
	from.root = root
	var hollow []*target
	settle := func(t *target, roots []digest.Digest) error {
		report, err := verify.Content(ctx, t.repo, root, r.proof(ctx, t.place, roots))
		if err != nil {
			return err
		}
		if len(report.Missing) > 0 && len(report.Corrupt) == 0 && !t.hollow {
			// The subject itself has lost content. No tag may name it any more, and
			// then nothing else repairs it.
			t.hollow = true
			r.doubt(t.place)
			hollow = append(hollow, t)
			return nil
		}
		if err := r.unsound(t, report); err != nil {
			return err
		}
		t.present = proven // an index is united, not moved
		r.done(t, from, proven, report.Bytes, nil)
		return nil
	}
	r.copyReferrers(ctx, from, targets, settle)
	if len(hollow) > 0 {
		r.copyWhole(ctx, from, hollow, settle)
	}
}
