package generic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// smallBlob is the size up to which a body can be opened anew at any time
	// (oci.Body), so that it may be sent again without having asked.
	smallBlob = 2 << 20
	// fruitless bounds the goes at one session that bring it no further;
	// maxResumes bounds all.
	fruitless  = 3
	maxResumes = 50
	// cancelTime bounds the end of a session.
	cancelTime = 5 * time.Second
)

// Start opens an upload session, by way of a mount where from names a repository.
func (p *Repository) Start(ctx context.Context, desc v1.Descriptor, from []string) (oci.Upload, bool, error) {
	if err := oci.CheckDescriptor(desc); err != nil {
		return nil, false, err
	}
	if len(from) > 0 {
		source := p.reg.fullName(from[0])
		if err := oci.CheckRepository(source); err != nil {
			return nil, false, err
		}
		u, mounted, err := p.start(ctx, desc, source)
		var refused *oci.RegistryError
		if err == nil || !errors.As(err, &refused) || refused.Status < 400 || refused.Status >= 500 || refused.Status == 429 {
			return u, mounted, err
		}
		// The account may not read there, or the registry knows no mounts.
		oci.Detour(ctx, err)
	}
	return p.start(ctx, desc, "")
}

func (p *Repository) start(ctx context.Context, desc v1.Descriptor, source string) (oci.Upload, bool, error) {
	u, err := p.path("blobs/uploads/")
	if err != nil {
		return nil, false, err
	}
	c := call{
		op: oci.OpUploadStart, what: "POST upload " + p.full, method: http.MethodPost, url: u, scopes: p.push(),
		body: &payload{}, limit: maxErrorBody, accept: []int{http.StatusAccepted}, digest: desc.Digest,
	}
	if source != "" {
		c.what = "POST mount " + p.full + "@" + desc.Digest.String()
		c.scopes = append(c.scopes, "repository:"+source+":pull")
		c.accept = append(c.accept, http.StatusCreated)
		u.RawQuery = url.Values{"mount": {desc.Digest.String()}, "from": {source}}.Encode()
	}
	a, err := p.reg.do(ctx, c)
	if err != nil {
		return nil, false, err
	}
	if a.status == http.StatusCreated {
		if told := digest.Digest(a.header.Get("Docker-Content-Digest")); oci.CheckDigest(told) == nil &&
			told.Algorithm() == desc.Digest.Algorithm() && told != desc.Digest {
			return nil, false, p.reg.mismatch(c.what, "the registry mounted "+told.String())
		}
		return nil, true, nil
	}
	session, err := p.reg.follow(a.url, a.header.Get("Location"))
	if err != nil {
		return nil, false, p.reg.senseless(c.what, a.status, err.Error())
	}
	return &upload{p: p, desc: desc, session: session}, false, nil
}

// An upload is one session; one goroutine at a time uses it.
type upload struct {
	p       *Repository
	desc    v1.Descriptor
	session *url.URL
	done    bool // nothing is left to cancel
}

// call is a request of the session.
func (u *upload) call(method string, to *url.URL) call {
	return call{
		op: oci.OpBlobWrite, what: method + " upload " + u.p.full + "@" + u.desc.Digest.String(), method: method, url: to,
		header: http.Header{}, scopes: u.p.push(), digest: u.desc.Digest, limit: maxErrorBody,
	}
}

// Put sends the blob in one request. Where that breaks and the registry keeps
// what it has received, the rest follows; elsewhere the session is lost
// (ErrUploadUnknown).
func (u *upload) Put(ctx context.Context, body oci.Body) error {
	err := u.finish(ctx, body, 0)
	offset, stuck := int64(0), 0
	for try := 1; err != nil; try++ {
		var throttled *oci.ThrottledError
		var foreign *contentError
		switch {
		case ctx.Err() != nil, errors.As(err, &foreign):
			return err
		case errors.Is(err, oci.ErrUploadUnknown), errors.Is(err, oci.ErrMismatch) && (u.small() || try > 1):
			// The session is gone or out of step: an answer may have been lost
			// after the registry had stored the blob.
			return u.settle(ctx, err)
		case errors.As(err, &throttled), errors.Is(err, oci.ErrInterrupted), errors.Is(err, oci.ErrUnreachable):
		default:
			return err
		}
		if !u.p.reg.ways.Resume {
			return u.lost(err)
		}
		wait := backoff(200*time.Millisecond, stuck+1, 2*time.Second)
		if throttled != nil {
			if wait = max(throttled.Wait, wait); wait > throttleWait {
				return err
			}
		}
		if sleep(ctx, wait) != nil {
			return u.p.reg.canceled(ctx, "PUT upload "+u.p.full)
		}
		kept, statusErr := u.Offset(ctx)
		switch {
		case errors.Is(statusErr, oci.ErrUploadUnknown), errors.Is(statusErr, oci.ErrUnsupported):
			return u.settle(ctx, err)
		case statusErr != nil:
			return statusErr
		case kept > u.desc.Size:
			return u.lost(err)
		}
		if kept > offset {
			offset, stuck = kept, 0
		} else if stuck++; stuck >= fruitless {
			return err
		}
		if try > maxResumes {
			return err
		}
		err = u.goOn(ctx, body, kept)
	}
	u.done = true
	return nil
}

func (u *upload) small() bool { return u.desc.Size <= smallBlob }

// payload is what is left from an offset.
func (u *upload) payload(body oci.Body, offset int64) *payload {
	if offset == u.desc.Size {
		return &payload{}
	}
	return &payload{size: u.desc.Size - offset, kept: u.small(), open: func(ctx context.Context) (io.ReadCloser, error) {
		return body.Open(ctx, offset)
	}}
}

// finish sends what is left from an offset and closes the session.
func (u *upload) finish(ctx context.Context, body oci.Body, offset int64) error {
	to := *u.session
	q := to.Query()
	q.Set("digest", u.desc.Digest.String())
	to.RawQuery = q.Encode()
	c := u.call(http.MethodPut, &to)
	c.header.Set("Content-Type", "application/octet-stream")
	c.body = u.payload(body, offset)
	c.accept = []int{http.StatusCreated, http.StatusNoContent, http.StatusOK}
	c.tries, c.patient = 1, true // the session is asked before anything is sent again
	a, err := u.p.reg.do(ctx, c)
	if err != nil {
		return u.reopened(err)
	}
	told := digest.Digest(a.header.Get("Docker-Content-Digest"))
	if oci.CheckDigest(told) == nil && told.Algorithm() == u.desc.Digest.Algorithm() && told != u.desc.Digest {
		return u.p.reg.mismatch(c.what, "the registry stored "+told.String())
	}
	return nil
}

// goOn takes a broken upload up where the registry has it.
func (u *upload) goOn(ctx context.Context, body oci.Body, offset int64) error {
	if offset == 0 || offset == u.desc.Size {
		return u.finish(ctx, body, offset)
	}
	c := u.call(http.MethodPatch, u.session)
	c.header.Set("Content-Type", "application/octet-stream")
	c.header.Set("Content-Range", fmt.Sprintf("%d-%d", offset, u.desc.Size-1))
	c.body = u.payload(body, offset)
	c.accept = []int{http.StatusAccepted, http.StatusNoContent, http.StatusCreated}
	c.tries, c.patient = 1, true
	a, err := u.p.reg.do(ctx, c)
	if err != nil {
		return u.reopened(err)
	}
	if err := u.moved(a); err != nil {
		return err
	}
	return u.finish(ctx, body, u.desc.Size)
}

// reopened tells bytes that are gone (ErrUnsupported of the body) as a lost
// session, which is what they mean here.
func (u *upload) reopened(err error) error {
	var content *contentError
	if errors.As(err, &content) && errors.Is(err, oci.ErrUnsupported) {
		return &contentError{u.lost(errors.New("the content cannot be read again from there"))}
	}
	return err
}

// settle looks whether a blob whose session is gone is there after all.
func (u *upload) settle(ctx context.Context, err error) error {
	there, statErr := u.p.present(ctx, u.desc)
	switch {
	case statErr != nil:
		return errors.Join(u.lost(err), statErr)
	case there:
		u.done = true
		return nil
	}
	return u.lost(err)
}

// lost is an upload that has to begin anew.
func (u *upload) lost(err error) error {
	if errors.Is(err, oci.ErrUploadUnknown) || errors.Is(err, oci.ErrUnreachable) {
		return err
	}
	return &oci.RegistryError{
		Registry: u.p.reg.spec.Name, Operation: "PUT upload " + u.p.full + "@" + u.desc.Digest.String(),
		Kind: oci.ErrUploadUnknown, Cause: err,
	}
}

// moved takes the session's next address, where an answer gives one.
func (u *upload) moved(a *answer) error {
	location := a.header.Get("Location")
	if location == "" {
		return nil
	}
	next, err := u.p.reg.follow(a.url, location)
	if err != nil {
		return u.p.reg.senseless("upload "+u.p.full, a.status, err.Error())
	}
	u.session = next
	return nil
}

// Offset asks the session how many bytes the registry has kept.
func (u *upload) Offset(ctx context.Context) (int64, error) {
	c := u.call(http.MethodGet, u.session)
	c.accept = []int{http.StatusNoContent, http.StatusOK, http.StatusAccepted}
	if !u.p.reg.ways.Resume {
		return 0, u.p.noRanges(c.what, 0, "sessions of this kind of registry are not taken up again")
	}
	a, err := u.p.reg.do(ctx, c)
	if err != nil {
		var refused *oci.RegistryError
		if errors.As(err, &refused) && refused.Operation == c.what && refused.Status >= 400 && refused.Status < 500 && !errors.Is(err, oci.ErrDenied) && !errors.Is(err, oci.ErrInterrupted) {
			refused.Kind = oci.ErrUploadUnknown // or sessions that tell nothing
		}
		return 0, err
	}
	offset, ok := parseUploadRange(a.header.Get("Range"))
	if !ok {
		return 0, u.p.noRanges(c.what, a.status, "the session does not tell what it has")
	}
	return offset, u.moved(a)
}

// parseUploadRange reads a session's `0-99` (an inclusive end). `0-0` is taken
// for nothing, as registries send it for both none and one byte.
func parseUploadRange(value string) (int64, bool) {
	value = strings.TrimPrefix(value, "bytes=")
	first, last, ok := strings.Cut(value, "-")
	if !ok || first != "0" {
		return 0, false
	}
	n, err := strconv.ParseInt(last, 10, 64)
	switch {
	case last == "-1":
		return 0, true
	case err != nil || n < 0 || n >= 1<<62:
		return 0, false
	case n == 0:
		return 0, true
	}
	return n + 1, true
}

// Cancel ends the session at the registry, even where ctx has ended; one that is
// gone already is no error.
func (u *upload) Cancel(ctx context.Context) error {
	if u.done {
		return nil
	}
	u.done = true
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
	defer cancel()
	c := u.call(http.MethodDelete, u.session)
	c.op, c.tries = oci.OpDelete, 1
	c.accept = []int{200, 202, 204, 404, 405, 501}
	_, err := u.p.reg.do(ctx, c)
	return err
}
