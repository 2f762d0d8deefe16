package oci

import (
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// NewHashingReader passes a blob's bytes on and, at their end, tells whether
// they were the descriptor's: a wrong digest or too many bytes are ErrMismatch,
// too few ErrInterrupted. The last byte comes together with the verdict, so
// that no reader can take the whole of a false blob for sound.
func NewHashingReader(r io.Reader, desc v1.Descriptor) io.Reader {
	return &hashingReader{r: r, desc: desc, verifier: desc.Digest.Verifier()}
}

type hashingReader struct {
	r        io.Reader
	desc     v1.Descriptor
	verifier digest.Verifier
	n        int64
	err      error
}

func (h *hashingReader) Read(p []byte) (int, error) {
	if h.err != nil {
		return 0, h.err
	}
	n, err := h.r.Read(p)
	h.n += int64(n)
	if n > 0 {
		_, _ = h.verifier.Write(p[:n]) // a hash.Hash never fails
	}
	switch {
	case h.n > h.desc.Size:
		h.err = fmt.Errorf("blob %s is longer than its %d bytes: %w", h.desc.Digest, h.desc.Size, ErrMismatch)
		return 0, h.err
	case h.n == h.desc.Size && err == nil && n > 0:
		err = h.atEnd()
	case err == io.EOF && h.n < h.desc.Size:
		err = fmt.Errorf("blob %s ended after %d of %d bytes: %w", h.desc.Digest, h.n, h.desc.Size, ErrInterrupted)
	}
	if err == io.EOF && !h.verifier.Verified() {
		h.err = fmt.Errorf("blob of %d bytes is not %s: %w", h.n, h.desc.Digest, ErrMismatch)
		return 0, h.err
	}
	h.err = err
	return n, err
}

// atEnd reads on after the last expected byte: there must be none.
func (h *hashingReader) atEnd() error {
	var extra [1]byte
	for range 100 {
		n, err := h.r.Read(extra[:])
		if n > 0 {
			return fmt.Errorf("blob %s is longer than its %d bytes: %w", h.desc.Digest, h.desc.Size, ErrMismatch)
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}
