package oci

import "context"

// A Mark put into the context of a tag listing asks for no more than what may
// have changed since an earlier listing of the same repository. A registry that
// cannot tell lists all tags and leaves the mark as it is.
type Mark struct {
	// Since is the Next of the earlier listing, empty: there was none.
	Since string
	// Next is set by a listing that ended well and can be gone on from.
	Next string
	// Partial: what was listed is what is new or may have been moved since; all
	// else is as it was, or gone.
	Partial bool
}

type markKey struct{}

// WithMark has the tag listing under ctx look at m, and fill it in.
func WithMark(ctx context.Context, m *Mark) context.Context {
	return context.WithValue(ctx, markKey{}, m)
}

// MarkOf is the mark of a tag listing, nil where there is none.
func MarkOf(ctx context.Context) *Mark {
	m, _ := ctx.Value(markKey{}).(*Mark)
	return m
}

type noPullKey struct{}

// WithoutPulls has Resolve under ctx ask by HEAD alone: where that does not
// tell, it gives ErrUnsupported instead of reading the manifest, which a
// registry may count as a pull.
func WithoutPulls(ctx context.Context) context.Context {
	return context.WithValue(ctx, noPullKey{}, true)
}

// IsWithoutPulls tells whether requests under ctx may not be pulls.
func IsWithoutPulls(ctx context.Context) bool {
	b, _ := ctx.Value(noPullKey{}).(bool)
	return b
}
