package generic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

func (p *Repository) blobCall(method string, d digest.Digest, op oci.Operation) (call, error) {
	if err := oci.CheckDigest(d); err != nil {
		return call{}, err
	}
	u, err := p.path("blobs/" + d.String())
	if err != nil {
		return call{}, err
	}
	return call{
		op: op, what: method + " blob " + p.full + "@" + d.String(), method: method, url: u,
		header: http.Header{}, scopes: p.pull(), digest: d,
	}, nil
}

// Stat asks by HEAD. A storage that takes its signed address for GET alone is
// asked for the first byte.
func (p *Repository) Stat(ctx context.Context, d digest.Digest) (int64, error) {
	c, err := p.blobCall(http.MethodHead, d, oci.OpBlobHead)
	if err != nil {
		return 0, err
	}
	c.limit = maxErrorBody
	c.accept = []int{http.StatusOK, http.StatusForbidden, http.StatusMethodNotAllowed}
	a, err := p.reg.do(ctx, c)
	if err != nil {
		return 0, err
	}
	if a.status == http.StatusOK {
		return a.length, nil
	}
	if a.trust { // the registry's own no
		return 0, p.reg.refusal(&c, a.status, a.header, nil, true).error()
	}
	return p.statByGet(ctx, d)
}

func (p *Repository) statByGet(ctx context.Context, d digest.Digest) (int64, error) {
	c, err := p.blobCall(http.MethodGet, d, oci.OpBlobHead)
	if err != nil {
		return 0, err
	}
	c.header.Set("Range", "bytes=0-0")
	c.accept = []int{http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable}
	a, err := p.reg.do(ctx, c)
	if err != nil {
		return 0, err
	}
	defer a.body.Close()
	switch a.status {
	case http.StatusOK:
		return a.length, nil
	case http.StatusPartialContent:
		_, _, total, ok := parseContentRange(a.header.Get("Content-Range"))
		if ok {
			return total, nil
		}
	}
	return -1, nil
}

// Fetch opens a blob. Its bytes are not hashed yet; an answer of another length
// than the descriptor's is ErrMismatch at once.
func (p *Repository) Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	c, err := p.blobCall(http.MethodGet, desc.Digest, oci.OpBlobRead)
	if err != nil {
		return nil, err
	}
	a, err := p.reg.do(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := p.plain(c.what, a); err != nil {
		_ = a.body.Close()
		return nil, err
	}
	if a.length >= 0 && a.length != desc.Size {
		_ = a.body.Close()
		return nil, p.reg.mismatch(c.what, fmt.Sprintf("the registry gives %d bytes, the manifest says %d", a.length, desc.Size))
	}
	return a.body, nil
}

// FetchRange opens n bytes from an offset; n < 0: to the end. ErrUnsupported:
// the registry, or the storage it redirects to, does not take ranges.
func (p *Repository) FetchRange(ctx context.Context, desc v1.Descriptor, from, n int64) (io.ReadCloser, error) {
	if n < 0 {
		n = desc.Size - from
	}
	if from < 0 || n < 0 || from > desc.Size || n > desc.Size-from {
		return nil, fmt.Errorf("range %d+%d of a blob of %d bytes: %w", from, n, desc.Size, oci.ErrInvalid)
	}
	if n == 0 {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	c, err := p.blobCall(http.MethodGet, desc.Digest, oci.OpBlobRead)
	if err != nil {
		return nil, err
	}
	last := from + n - 1
	c.header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, last))
	c.accept = []int{http.StatusOK, http.StatusPartialContent}
	a, err := p.reg.do(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := p.plain(c.what, a); err != nil {
		_ = a.body.Close()
		return nil, err
	}
	if a.status == http.StatusOK {
		if n == desc.Size && a.length == n {
			return a.body, nil
		}
		_ = a.body.Close() // without reading it: it is the whole blob
		return nil, p.noRanges(c.what, a.status, "the registry ignores ranges")
	}
	first, end, total, ok := parseContentRange(a.header.Get("Content-Range"))
	if !ok || first != from || end != last || (a.length >= 0 && a.length != n) {
		_ = a.body.Close()
		return nil, p.noRanges(c.what, a.status, "the registry gives another range than asked")
	}
	if total >= 0 && total != desc.Size {
		_ = a.body.Close()
		return nil, p.reg.mismatch(c.what, fmt.Sprintf("the registry holds %d bytes, the manifest says %d", total, desc.Size))
	}
	return a.body, nil
}

func (p *Repository) noRanges(what string, status int, message string) error {
	return &oci.RegistryError{Registry: p.reg.spec.Name, Operation: what, Status: status, Message: message, Kind: oci.ErrUnsupported}
}

// plain refuses an answer that something on the way has encoded.
func (p *Repository) plain(what string, a *answer) error {
	if encoding := a.header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return p.reg.senseless(what, a.status, "the answer is encoded as "+encoding+", which nobody asked for")
	}
	return nil
}

// parseContentRange reads `bytes 0-9/100`; total is -1 for `*`.
func parseContentRange(value string) (first, last, total int64, ok bool) {
	var tail string
	if len(value) > 100 {
		return 0, 0, 0, false
	}
	if n, err := fmt.Sscanf(value, "bytes %d-%d/%s", &first, &last, &tail); err != nil || n != 3 {
		return 0, 0, 0, false
	}
	total = -1
	if tail != "*" {
		if _, err := fmt.Sscanf(tail, "%d", &total); err != nil || total <= last {
			return 0, 0, 0, false
		}
	}
	return first, last, total, first >= 0 && last >= first
}

// present tells whether a blob is there after all, with its size.
func (p *Repository) present(ctx context.Context, desc v1.Descriptor) (bool, error) {
	size, err := p.Stat(ctx, desc.Digest)
	if errors.Is(err, oci.ErrNotFound) {
		return false, nil
	}
	return err == nil && (size == desc.Size || size < 0), err
}
