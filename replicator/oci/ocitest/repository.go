package ocitest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sort"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

type repo struct {
	r    *Registry
	name string
}

// Name implements oci.Repository.
func (p *repo) Name() string { return p.name }

func (p *repo) fault(what string, kind error) error {
	return &oci.RegistryError{Registry: p.r.identity, Operation: what, Kind: kind}
}

// look runs f over the repository under the lock; f's repository is nil where there is none.
func (p *repo) look(f func(*repository) error) error {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	return f(p.r.repositories[p.name])
}

func (p *repo) manifest(reference string) (oci.Manifest, error) {
	var m oci.Manifest
	what := "manifest " + p.name + " " + reference
	err := p.look(func(rp *repository) error {
		if rp == nil {
			return p.fault(what, oci.ErrRepositoryUnknown)
		}
		d := digest.Digest(reference)
		if !oci.IsDigest(reference) {
			d = rp.tags[reference].digest
		}
		var ok bool
		if m, ok = rp.manifests[d]; !ok {
			return p.fault(what, oci.ErrNotFound)
		}
		return nil
	})
	m.Bytes = bytes.Clone(m.Bytes)
	return m, err
}

// Resolve implements oci.Resolver.
func (p *repo) Resolve(ctx context.Context, reference string) (v1.Descriptor, error) {
	done, err := begin(ctx, p.r, Call{Method: HeadManifest, Repository: p.name, Reference: reference})
	if err != nil {
		return v1.Descriptor{}, err
	}
	m, err := p.manifest(reference)
	done(err, false)
	return m.Descriptor(), err
}

// FetchManifest implements oci.ManifestFetcher.
func (p *repo) FetchManifest(ctx context.Context, reference string) (oci.Manifest, error) {
	done, err := begin(ctx, p.r, Call{Method: GetManifest, Repository: p.name, Reference: reference})
	if err != nil {
		return oci.Manifest{}, err
	}
	m, err := p.manifest(reference)
	if err == nil {
		algorithm := digest.SHA256
		if oci.IsDigest(reference) {
			algorithm = digest.Digest(reference).Algorithm()
		}
		if got := algorithm.FromBytes(m.Bytes); oci.IsDigest(reference) && got.String() != reference {
			err = p.fault("GET manifest "+reference, oci.ErrMismatch)
		} else {
			m.Digest = got
		}
	}
	done(err, false)
	return m, err
}

// PushManifest implements oci.ManifestPusher.
func (p *repo) PushManifest(ctx context.Context, reference string, m oci.Manifest) (oci.Pushed, error) {
	done, err := begin(ctx, p.r, Call{Method: PutManifest, Repository: p.name, Reference: reference})
	if err != nil {
		return oci.Pushed{}, err
	}
	pushed, err := p.push(reference, m)
	done(err, false)
	return pushed, err
}

func (p *repo) push(reference string, m oci.Manifest) (oci.Pushed, error) {
	what := "PUT manifest " + p.name + " " + reference
	refs, err := oci.ParseReferences(m)
	if err != nil {
		return oci.Pushed{}, fmt.Errorf("%s: %w", what, err)
	}
	if m.MediaType == "" || refs.MediaType != m.MediaType || len(m.Bytes) > oci.MaxManifestSize {
		return oci.Pushed{}, p.fault(what, oci.ErrRefused)
	}
	d := digest.FromBytes(m.Bytes)
	if oci.IsDigest(reference) {
		if d = digest.Digest(reference).Algorithm().FromBytes(m.Bytes); d.String() != reference {
			return oci.Pushed{}, p.fault(what, oci.ErrMismatch)
		}
	} else if err := oci.CheckTag(reference); err != nil {
		return oci.Pushed{}, p.fault(what, oci.ErrRefused)
	}
	err = p.look(func(rp *repository) error {
		if rp == nil {
			rp = p.r.create(p.name)
		}
		for _, desc := range refs.Blobs {
			if b, ok := rp.blobs[desc.Digest]; !ok || b.size != desc.Size {
				return p.fault(what+": blob "+desc.Digest.String(), oci.ErrBlobUnknown)
			}
		}
		for _, desc := range refs.Manifests {
			_, isBlob := rp.blobs[desc.Digest]
			if _, ok := rp.manifests[desc.Digest]; !ok && !isBlob {
				return p.fault(what+": child "+desc.Digest.String(), oci.ErrBlobUnknown)
			}
		}
		if !oci.IsDigest(reference) {
			if old, ok := rp.tags[reference]; ok && old.digest != d && p.r.options.Immutable != nil && p.r.options.Immutable(reference) {
				return p.fault(what, oci.ErrImmutable)
			}
			rp.tags[reference] = tagged{d, p.r.now()}
		}
		rp.manifests[d] = oci.Manifest{MediaType: m.MediaType, Digest: d, Bytes: bytes.Clone(m.Bytes)}
		return nil
	})
	return oci.Pushed{SubjectHandled: refs.Subject != nil && p.r.options.ReferrersAPI}, err
}

// Stat implements oci.Statter.
func (p *repo) Stat(ctx context.Context, d digest.Digest) (int64, error) {
	done, err := begin(ctx, p.r, Call{Method: HeadBlob, Repository: p.name, Reference: d.String()})
	if err != nil {
		return 0, err
	}
	b, err := p.blob(d)
	done(err, false)
	if p.r.options.NoSizes && err == nil {
		return -1, nil
	}
	return b.size, err
}

func (p *repo) blob(d digest.Digest) (b blob, err error) {
	err = p.look(func(rp *repository) error {
		what := "blob " + p.name + " " + d.String()
		if rp == nil {
			return p.fault(what, oci.ErrRepositoryUnknown)
		}
		var ok bool
		if b, ok = rp.blobs[d]; !ok {
			return p.fault(what, oci.ErrNotFound)
		}
		return nil
	})
	return b, err
}

// Fetch implements oci.Fetcher.
func (p *repo) Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return p.fetch(ctx, desc, 0, -1)
}

// FetchRange implements oci.RangeFetcher.
func (p *repo) FetchRange(ctx context.Context, desc v1.Descriptor, from, n int64) (io.ReadCloser, error) {
	if p.r.options.NoRanges {
		return nil, p.fault("GET blob range", oci.ErrUnsupported)
	}
	return p.fetch(ctx, desc, from, n)
}

func (p *repo) fetch(ctx context.Context, desc v1.Descriptor, from, n int64) (io.ReadCloser, error) {
	call := Call{Method: GetBlob, Repository: p.name, Reference: desc.Digest.String(), Offset: from}
	done, err := begin(ctx, p.r, call)
	if err != nil {
		return nil, err
	}
	b, err := p.blob(desc.Digest)
	if err == nil && (from < 0 || from > b.size) {
		err = p.fault("GET blob range", oci.ErrInvalid)
	}
	done(err, false)
	if err != nil {
		return nil, err
	}
	var body io.Reader
	switch {
	case b.open != nil:
		body = io.LimitReader(b.open(from), b.size-from)
	case b.data == nil && b.size > 0:
		return nil, p.fault("GET discarded blob", oci.ErrUnsupported)
	default:
		body = bytes.NewReader(b.data[from:])
	}
	if n >= 0 {
		body = io.LimitReader(body, n)
	}
	p.r.mu.Lock()
	hook := p.r.onRead
	p.r.mu.Unlock()
	if hook != nil {
		body = hook(call, body)
	}
	return io.NopCloser(&watchedReader{ctx, body}), nil
}

type watchedReader struct {
	ctx context.Context
	r   io.Reader
}

func (w *watchedReader) Read(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.r.Read(p)
}

// Start implements oci.Uploader.
func (p *repo) Start(ctx context.Context, desc v1.Descriptor, from []string) (oci.Upload, bool, error) {
	call := Call{Method: StartUpload, Repository: p.name, Reference: desc.Digest.String()}
	if len(from) > 0 {
		call.From = from[0]
	}
	done, err := begin(ctx, p.r, call)
	if err != nil {
		return nil, false, err
	}
	mounted := false
	_ = p.look(func(rp *repository) error {
		if rp == nil {
			rp = p.r.create(p.name)
		}
		if len(from) > 0 && !p.r.options.NoMount && p.r.repositories[from[0]] != nil {
			if b, ok := p.r.repositories[from[0]].blobs[desc.Digest]; ok {
				rp.blobs[desc.Digest] = b
				mounted = true
			}
		}
		if !mounted {
			p.r.sessions++
		}
		return nil
	})
	done(nil, mounted)
	if mounted {
		return nil, true, nil
	}
	return &upload{p: p, desc: desc}, false, nil
}

// Tags implements oci.TagLister.
func (p *repo) Tags(ctx context.Context) iter.Seq2[oci.Tag, error] {
	return func(yield func(oci.Tag, error) bool) {
		done, err := begin(ctx, p.r, Call{Method: ListTags, Repository: p.name})
		if err != nil {
			yield(oci.Tag{}, err)
			return
		}
		var tags []oci.Tag
		err = p.look(func(rp *repository) error {
			if rp == nil {
				return p.fault("tags "+p.name, oci.ErrRepositoryUnknown)
			}
			for name, t := range rp.tags {
				tag := oci.Tag{Name: name}
				if p.r.options.ListDigests {
					tag.Digest, tag.PushedAt = t.digest, t.pushedAt
				}
				tags = append(tags, tag)
			}
			return nil
		})
		done(err, false)
		if err != nil {
			yield(oci.Tag{}, err)
			return
		}
		sort.Slice(tags, func(i, j int) bool { return tags[i].Name < tags[j].Name })
		for _, tag := range tags {
			if !yield(tag, nil) {
				return
			}
		}
	}
}

// Referrers implements oci.ReferrerLister.
func (p *repo) Referrers(ctx context.Context, subject digest.Digest) iter.Seq2[v1.Descriptor, error] {
	return func(yield func(v1.Descriptor, error) bool) {
		done, err := begin(ctx, p.r, Call{Method: Referrers, Repository: p.name, Reference: subject.String()})
		if err == nil && !p.r.options.ReferrersAPI {
			err = p.fault("referrers", oci.ErrUnsupported)
			done(err, false)
		}
		if err != nil {
			yield(v1.Descriptor{}, err)
			return
		}
		var list []v1.Descriptor
		_ = p.look(func(rp *repository) error {
			if rp == nil {
				return nil
			}
			for _, m := range rp.manifests {
				if p.r.subjectOf(m) == subject {
					list = append(list, ReferrerDescriptor(m))
				}
			}
			return nil
		})
		done(nil, false)
		sort.Slice(list, func(i, j int) bool { return list[i].Digest < list[j].Digest })
		for _, desc := range list {
			if !yield(desc, nil) {
				return
			}
		}
	}
}

// subjectOf is what a manifest refers to, empty where nothing; the lock is held.
func (r *Registry) subjectOf(m oci.Manifest) digest.Digest {
	subject, known := r.subjects[m.Digest]
	if !known {
		if refs, err := oci.ParseReferences(m); err == nil && refs.Subject != nil {
			subject = refs.Subject.Digest
		}
		r.subjects[m.Digest] = subject
	}
	return subject
}

type upload struct {
	p    *repo
	desc v1.Descriptor
	kept []byte
	over bool
}

// Put implements oci.Upload.
func (u *upload) Put(ctx context.Context, body oci.Body) error {
	call := Call{Method: PutUpload, Repository: u.p.name, Reference: u.desc.Digest.String(), Offset: int64(len(u.kept))}
	done, err := begin(ctx, u.p.r, call)
	if err != nil {
		return err
	}
	err = u.put(ctx, call, body)
	done(err, false)
	return err
}

func (u *upload) put(ctx context.Context, call Call, body oci.Body) error {
	r := u.p.r
	if u.over {
		return u.p.fault("PUT blob", oci.ErrUploadUnknown)
	}
	opened, err := body.Open(ctx, int64(len(u.kept)))
	if err != nil {
		return fmt.Errorf("open body at %d: %w", len(u.kept), err)
	}
	defer opened.Close()
	var in io.Reader = opened
	r.mu.Lock()
	hook := r.onWrite
	r.mu.Unlock()
	if hook != nil {
		in = hook(call, in)
	}
	discard := r.options.DiscardAbove > 0 && u.desc.Size > r.options.DiscardAbove
	verifier := u.desc.Digest.Verifier()
	_, _ = verifier.Write(u.kept)
	var kept bytes.Buffer
	kept.Write(u.kept)
	to := io.Writer(verifier)
	if !discard {
		to = io.MultiWriter(verifier, &kept)
	}
	n, err := io.Copy(to, in)
	size := int64(len(u.kept)) + n
	if err != nil || size < u.desc.Size { // the client's Content-Length was not met
		u.over = true
		if r.options.Resumable && !discard {
			u.kept, u.over = kept.Bytes(), false
		}
		if err == nil {
			err = errors.New("body too short")
		}
		return fmt.Errorf("PUT blob %s: %w: %w", u.desc.Digest, oci.ErrInterrupted, err)
	}
	u.over = true
	if size != u.desc.Size || !verifier.Verified() {
		return u.p.fault("PUT blob "+u.desc.Digest.String(), oci.ErrMismatch)
	}
	b := blob{size: size}
	if !discard {
		b.data = kept.Bytes()
		if b.data == nil {
			b.data = []byte{}
		}
	}
	return u.p.look(func(rp *repository) error {
		if rp == nil {
			rp = r.create(u.p.name)
		}
		rp.blobs[u.desc.Digest] = b
		r.sessions--
		return nil
	})
}

// Offset implements oci.Upload.
func (u *upload) Offset(ctx context.Context) (int64, error) {
	done, err := begin(ctx, u.p.r, Call{Method: GetUpload, Repository: u.p.name, Reference: u.desc.Digest.String()})
	if err != nil {
		return 0, err
	}
	switch {
	case !u.p.r.options.Resumable:
		err = u.p.fault("GET upload", oci.ErrUnsupported)
	case u.over:
		err = u.p.fault("GET upload", oci.ErrUploadUnknown)
	}
	done(err, false)
	return int64(len(u.kept)), err
}

// Cancel implements oci.Upload.
func (u *upload) Cancel(ctx context.Context) error {
	done, err := begin(ctx, u.p.r, Call{Method: DeleteUpload, Repository: u.p.name, Reference: u.desc.Digest.String()})
	if err != nil {
		return err
	}
	u.p.r.mu.Lock()
	u.p.r.sessions--
	u.p.r.mu.Unlock()
	u.over = true
	done(nil, false)
	return nil
}
