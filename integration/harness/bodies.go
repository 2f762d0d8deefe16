package harness

import (
	"errors"
	"io"
)

var errCut = errors.New("cut by the fault proxy")

// cutReader fails after some bytes.
type cutReader struct {
	io.ReadCloser
	left int64
}

func (r *cutReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, errCut
	}
	n, err := r.ReadCloser.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err
}

// stallReader waits after some bytes until one of over is closed.
type stallReader struct {
	io.ReadCloser
	left int64
	over []<-chan struct{}
}

func (r *stallReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		select {
		case <-r.over[0]:
		case <-r.over[1]:
		case <-r.over[2]:
		}
		return r.ReadCloser.Read(p)
	}
	n, err := r.ReadCloser.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err
}

// flipReader flips the first bit it passes on.
type flipReader struct {
	io.ReadCloser
	done bool
}

func (r *flipReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if n > 0 && !r.done {
		p[0] ^= 1
		r.done = true
	}
	return n, err
}
