package ecr_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
)

// cutOnce is content whose first reading ends in the middle.
type cutOnce struct {
	content []byte
	done    *atomic.Bool
}

func (c cutOnce) Open(_ context.Context, offset int64) (io.ReadCloser, error) {
	rest := bytes.NewReader(c.content[offset:])
	if c.done.Swap(true) {
		return io.NopCloser(rest), nil
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(rest, int64(len(c.content)/2)), cut{})), nil
}

type cut struct{}

func (cut) Read([]byte) (int, error) { return 0, errors.New("the source broke") }
