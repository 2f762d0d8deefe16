package simulation

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/limit"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// A client is one process's view of a site, behind its own gate.
type client struct {
	s    *site
	p    *process
	gate *limit.Registry
}

func newClient(s *site, p *process) *client {
	return &client{s: s, p: p, gate: limit.New(limit.Spec{Registry: s.name, Connections: 64}, s, nil)}
}

func (c *client) Identity() string { return c.s.Identity() }

func (c *client) Ping(ctx context.Context) error {
	return c.do(ctx, ocitest.Ping, "", "", func(*request) error { return c.s.Ping(context.Background()) })
}

func (c *client) Repositories(ctx context.Context) iter.Seq2[string, error] {
	return listing(func(add func(string)) error {
		return c.do(ctx, ocitest.Catalog, "", "", func(r *request) error {
			return collect(r, c.s.Repositories(context.Background()), add)
		})
	})
}

// listing yields what ask has added, then its error.
func listing[T any](ask func(add func(T)) error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var all []T
		err := ask(func(one T) { all = append(all, one) })
		for _, one := range all {
			if !yield(one, nil) {
				return
			}
		}
		if err != nil {
			var none T
			yield(none, err)
		}
	}
}

// collect reads a listing of the registry, which may break off.
func collect[T any](r *request, from iter.Seq2[T, error], add func(T)) error {
	n := 0
	for one, err := range from {
		if err != nil {
			return err
		}
		if n++; r.s.suffers(half, r.draw) && n > r.draw.also("half").below(3) {
			return &oci.RegistryError{Registry: r.s.name, Operation: string(r.method), Kind: oci.ErrInterrupted}
		}
		add(one)
	}
	return nil
}

func (c *client) Repository(name string) oci.Repository {
	return &repository{c: c, name: name, inner: c.s.Repository(name)}
}

type repository struct {
	c     *client
	name  string
	inner oci.Repository
}

func (p *repository) Name() string { return p.name }

func (p *repository) Resolve(ctx context.Context, reference string) (desc v1.Descriptor, err error) {
	err = p.c.do(ctx, ocitest.HeadManifest, p.name, reference, func(*request) (err error) {
		desc, err = p.inner.Resolve(context.Background(), reference)
		return err
	})
	if err != nil {
		return v1.Descriptor{}, err
	}
	return desc, nil
}

func (p *repository) FetchManifest(ctx context.Context, reference string) (m oci.Manifest, err error) {
	err = p.c.do(ctx, ocitest.GetManifest, p.name, reference, func(r *request) (err error) {
		m, err = p.inner.FetchManifest(context.Background(), reference)
		if err == nil && r.s.suffers(corrupt, r.draw) {
			return &oci.RegistryError{Registry: r.s.name, Operation: string(r.method), Kind: oci.ErrMismatch}
		}
		if err == nil {
			p.c.s.note(p.c.s.proved, p.name, m.Digest.String())
		}
		return err
	})
	if err != nil {
		return oci.Manifest{}, err
	}
	return m, nil
}

func (p *repository) PushManifest(ctx context.Context, reference string, m oci.Manifest) (pushed oci.Pushed, err error) {
	times := 0 // a proxy may send it twice, and then two are told of, apart
	err = p.c.do(ctx, ocitest.PutManifest, p.name, reference, func(r *request) (err error) {
		times++
		before, _ := p.c.s.Manifest(p.name, reference)
		pushed, err = p.inner.PushManifest(context.Background(), reference, m)
		if err != nil {
			return err
		}
		if !r.tardy { // its sender is past proving it
			p.c.s.note(p.c.s.landed, p.name, m.Digest.String())
		}
		p.c.s.w.wrote(p.c.s, p.name, reference, before.Digest, m.Digest, times, r.tardy)
		return nil
	})
	return pushed, err
}

func (p *repository) Stat(ctx context.Context, d digest.Digest) (size int64, err error) {
	err = p.c.do(ctx, ocitest.HeadBlob, p.name, d.String(), func(*request) (err error) {
		size, err = p.inner.Stat(context.Background(), d)
		if err == nil {
			p.c.s.note(p.c.s.proved, p.name, d.String())
		}
		return err
	})
	return size, err
}

func (p *repository) Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return p.fetch(ctx, desc, 0, func() (io.ReadCloser, error) { return p.inner.Fetch(context.Background(), desc) })
}

func (p *repository) FetchRange(ctx context.Context, desc v1.Descriptor, from, n int64) (io.ReadCloser, error) {
	return p.fetch(ctx, desc, from, func() (io.ReadCloser, error) {
		return p.inner.(oci.RangeFetcher).FetchRange(context.Background(), desc, from, n)
	})
}

func (p *repository) fetch(ctx context.Context, desc v1.Descriptor, from int64, open func() (io.ReadCloser, error)) (body io.ReadCloser, err error) {
	err = p.c.do(ctx, ocitest.GetBlob, p.name, fmt.Sprintf("%s@%d", desc.Digest, from), func(r *request) (err error) {
		if body, err = open(); err == nil {
			whole := body
			if body = r.body(whole); body == whole && from == 0 {
				p.c.s.note(p.c.s.proved, p.name, desc.Digest.String()) // all of it is read, or the reader fails
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return body, nil
}

// body is what arrives of one.
func (r *request) body(in io.ReadCloser) io.ReadCloser {
	cuts, damages := r.s.suffers(cut, r.draw), r.s.suffers(corrupt, r.draw)
	if !cuts && !damages {
		return in
	}
	data, err := io.ReadAll(in) // small, and in memory
	if err != nil || len(data) == 0 {
		return in
	}
	at := r.draw.also("at").below(len(data))
	if damages {
		data[at] ^= 1
	}
	var rest io.Reader = bytes.NewReader(data)
	if cuts {
		rest = io.MultiReader(bytes.NewReader(data[:at]), broken{})
	}
	return struct {
		io.Reader
		io.Closer
	}{rest, in}
}

type broken struct{}

func (broken) Read([]byte) (int, error) {
	return 0, fmt.Errorf("connection reset: %w", oci.ErrInterrupted)
}

func (p *repository) Start(ctx context.Context, desc v1.Descriptor, from []string) (u oci.Upload, mounted bool, err error) {
	err = p.c.do(ctx, ocitest.StartUpload, p.name, desc.Digest.String(), func(*request) (err error) {
		u, mounted, err = p.inner.Start(context.Background(), desc, from)
		if err == nil && mounted {
			p.c.s.note(p.c.s.landed, p.name, desc.Digest.String())
		}
		return err
	})
	if err != nil || mounted {
		return nil, mounted, err
	}
	return &upload{p: p, desc: desc, inner: u}, false, nil
}

func (p *repository) Tags(ctx context.Context) iter.Seq2[oci.Tag, error] {
	return listing(func(add func(oci.Tag)) error {
		return p.c.do(ctx, ocitest.ListTags, p.name, "", func(r *request) error {
			return collect(r, p.inner.Tags(context.Background()), add)
		})
	})
}

func (p *repository) Referrers(ctx context.Context, subject digest.Digest) iter.Seq2[v1.Descriptor, error] {
	return listing(func(add func(v1.Descriptor)) error {
		return p.c.do(ctx, ocitest.Referrers, p.name, subject.String(), func(r *request) error {
			return collect(r, p.inner.Referrers(context.Background(), subject), add)
		})
	})
}

type upload struct {
	p     *repository
	desc  v1.Descriptor
	inner oci.Upload
}

func (u *upload) Put(ctx context.Context, body oci.Body) error {
	return u.p.c.do(ctx, ocitest.PutUpload, u.p.name, u.desc.Digest.String(), func(r *request) error {
		err := u.inner.Put(ctx, sent{body, r})
		if err == nil {
			u.p.c.s.note(u.p.c.s.landed, u.p.name, u.desc.Digest.String())
		}
		return err
	})
}

// sent is an upload's body on its way.
type sent struct {
	oci.Body
	r *request
}

func (b sent) Open(ctx context.Context, offset int64) (io.ReadCloser, error) {
	body, err := b.Body.Open(ctx, offset)
	if err != nil {
		return nil, err
	}
	return b.r.body(body), nil
}

func (u *upload) Offset(ctx context.Context) (n int64, err error) {
	err = u.p.c.do(ctx, ocitest.GetUpload, u.p.name, u.desc.Digest.String(), func(*request) (err error) {
		n, err = u.inner.Offset(context.Background())
		return err
	})
	return n, err
}

func (u *upload) Cancel(ctx context.Context) error {
	return u.p.c.do(ctx, ocitest.DeleteUpload, u.p.name, u.desc.Digest.String(), func(*request) error {
		return u.inner.Cancel(context.Background())
	})
}
