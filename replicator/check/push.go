package check

import (
	"context"
	"errors"
	"fmt"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

// push looks whether the account may push, mount and delete, in a repository of
// the routes'. A whole image is pushed only where it can be deleted again.
func (r *run) push(ctx context.Context) {
	r.found[cMount] = skipped("not tried: no blob was pushed")
	if r.gone != "" {
		for _, name := range []string{cPush, cMount, cDelete} {
			r.found[name] = skipped("%s", r.gone)
		}
		return
	}
	r.found[cPush] = within(ctx, probeTime, func(ctx context.Context) outcome {
		if len(r.to) == 0 {
			return r.pushNowhere(ctx)
		}
		repo := r.to[0].repo
		may, err := mayErase(ctx, repo)
		if unanswered(err) {
			r.found[cDelete] = skipped("not tried: the registry does not answer")
			return r.fail(err)
		}
		if !may {
			r.found[cDelete] = r.noDelete(err)
			return r.rehearse(ctx, repo, reason(err))
		}
		return r.pushWhole(ctx, repo)
	})
	if r.s.To.Delete && len(r.to) > 0 && r.gone == "" && r.found[cDelete].state != Failed {
		if err := mayUntag(ctx, r.to[0].repo); err != nil {
			r.found[cDelete] = r.fail(err)
		}
	}
}

// rehearse tries a push without storing anything.
func (r *run) rehearse(ctx context.Context, repo oci.Repository, why string) outcome {
	if rehearser, is := repo.(oci.Rehearser); is {
		if err := rehearser.RehearsePush(ctx); err != nil {
			return r.fail(err)
		}
		return ok("may push to %s: each step was tried with content that is refused, for %s", repo.Name(), why)
	}
	content := partOf(v1.MediaTypeImageLayer, []byte(nonce()))
	upload, mounted, err := repo.Start(ctx, content.desc, nil)
	if err != nil {
		return r.fail(err)
	}
	if !mounted {
		err = giveUp(ctx, upload)
	}
	o := ok("may upload to %s: begun and cancelled; no manifest was pushed, for %s", repo.Name(), why)
	if err != nil {
		return o.but(err)
	}
	return o
}

// pushNowhere is for destinations that hold nothing of the routes' yet: a
// repository that would stay is not made.
func (r *run) pushNowhere(ctx context.Context) outcome {
	r.found[cDelete] = skipped("not tried: nothing of the routes' is there yet")
	if r.s.Makes && r.s.To.Create && r.s.To.Example != "" {
		repo := r.s.Client.Repository(r.s.To.Example)
		temporary, is := repo.(oci.TemporaryRepository)
		if !is {
			return skipped("not tried: none of the routes' repositories is there yet, and one that is made for it would stay")
		}
		err := temporary.Remove(ctx)
		if err != nil && !errors.Is(err, oci.ErrNotFound) {
			detail, hint := told(err)
			o := skipped("not tried: none of the routes' repositories is there yet, and one made for it could not be deleted again (%s)", detail)
			o.hint = "check again after the first copy, or for the check alone: " + hint
			return o
		}
		return r.pushTemporary(ctx, repo, temporary)
	}
	if names := r.candidates(ctx); r.s.Traceless && len(names) > 0 {
		return r.rehearse(ctx, r.s.Client.Repository(names[0]), "the repository would stay")
	}
	return skipped("not tried: none of the routes' repositories is there yet, and a push for trial would leave one")
}

// pushTemporary makes a repository for the push and takes it away again.
func (r *run) pushTemporary(ctx context.Context, repo oci.Repository, temporary oci.TemporaryRepository) (o outcome) {
	if err := temporary.Make(ctx); err != nil {
		r.found[cCreate] = r.fail(err)
		return skipped("not tried: no repository could be made")
	}
	r.found[cCreate] = ok("made %s, and took it away again", repo.Name())
	defer func() {
		clean, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), cleanTime, late(cleanTime))
		defer cancel()
		if err := temporary.Remove(clean); err != nil && !errors.Is(err, oci.ErrNotFound) {
			detail, hint := told(err)
			r.found[cCreate] = failure(leftHint(hint), "left behind: the repository %s: %s", repo.Name(), detail)
		}
	}()
	may, err := mayErase(ctx, repo)
	if unanswered(err) {
		return r.fail(err)
	}
	if !may {
		r.found[cDelete] = r.noDelete(err)
		return r.rehearse(ctx, repo, reason(err))
	}
	return r.pushWhole(ctx, repo)
}

// pushWhole pushes an image, reads it back, mounts a blob of it, asks for its
// referrers, and takes it all away again, come what may.
func (r *run) pushWhole(ctx context.Context, repo oci.Repository) outcome {
	p, err := newProbe()
	if err != nil {
		return failed(err)
	}
	reference := p.tag
	if fixer, is := repo.(oci.TagFixer); is {
		// A tag that cannot be taken away again is not set.
		if fixed, err := fixer.FixesTags(ctx); err != nil || fixed {
			reference = p.manifest.Digest.String()
		}
	}
	pushed, whole := []oci.Repository{repo}, false
	defer func() {
		r.found[cDelete] = erase(ctx, pushed, reference, p)
		if o := r.found[cDelete]; o.state == OK && !whole {
			r.found[cDelete] = ok("may delete; nothing was pushed")
		}
	}()
	for _, b := range []part{p.config, p.layer} {
		if err := upload(ctx, repo, b); err != nil {
			return r.fail(err)
		}
	}
	if _, err := repo.PushManifest(ctx, reference, p.manifest); err != nil {
		return r.fail(err)
	}
	whole = true
	r.subject, r.at = p.manifest.Descriptor(), repo
	if err := readBack(ctx, repo, reference, p); err != nil {
		// A replica of the registry may not know it yet.
		_, settles := r.s.Client.(oci.Settler)
		if !settles || !errors.Is(err, oci.ErrNotFound) && !errors.Is(err, oci.ErrInterrupted) {
			r.found[cPull] = r.fail(fmt.Errorf("read back what was pushed: %w", err))
		}
	} else if o := r.found[cPull]; o.state == Skipped {
		r.found[cPull] = ok("what was pushed was read back")
	}
	to := repo
	if len(r.to) > 1 {
		to = r.to[1].repo
	}
	if r.gone == "" {
		r.found[cMount] = within(ctx, askTime, func(ctx context.Context) outcome { return r.mount(ctx, repo, to, p.layer) })
		if to != repo {
			pushed = append(pushed, to)
		}
	}
	switch {
	case !r.s.Referrers:
	case r.found[cPull].state == Failed:
		r.found[cReferrers] = skipped("not tried: nothing can be read")
	default:
		r.step(ctx, cReferrers, "", askTime, r.referrers)
	}
	what := repo.Name() + ":" + p.tag
	if reference != p.tag {
		what = repo.Name() + "@" + p.manifest.Digest.Encoded()[:12] + " (no tag: it could not be taken away again)"
	}
	return ok("pushed %s", what)
}

func upload(ctx context.Context, repo oci.Repository, b part) error {
	u, mounted, err := repo.Start(ctx, b.desc, nil)
	if err != nil || mounted {
		return err
	}
	if err := u.Put(ctx, b); err != nil {
		_ = giveUp(ctx, u) // the first error is the one to tell
		return err
	}
	return nil
}

// giveUp ends a session, even where the look has been interrupted.
func giveUp(ctx context.Context, u oci.Upload) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), cleanTime, late(cleanTime))
	defer cancel()
	return u.Cancel(ctx)
}

// mount asks for the probe's blob in another repository, or in its own.
func (r *run) mount(ctx context.Context, from, to oci.Repository, b part) outcome {
	u, mounted, err := to.Start(ctx, b.desc, []string{from.Name()})
	switch {
	case err != nil:
		return r.fail(err)
	case mounted && from.Name() == to.Name():
		return ok("granted within %s", to.Name())
	case mounted:
		return ok("granted from %s to %s", from.Name(), to.Name())
	}
	if err := giveUp(ctx, u); err != nil {
		return r.fail(err)
	}
	const refused = "not granted: a blob that several repositories share is uploaded to each"
	if r.s.MountHint != "" {
		return warning(r.s.MountHint, refused)
	}
	return ok(refused)
}
