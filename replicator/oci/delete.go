package oci

import "context"

// A TagDeleter removes tags (optional ability of a Repository).
type TagDeleter interface {
	// DeleteTag removes one tag: other tags of its manifest stay, and so does
	// the manifest as long as it has one. ErrNotFound: there is no such tag.
	// ErrUnsupported: this registry removes none, or none without others.
	DeleteTag(ctx context.Context, tag string) error
	// DropsUntagged tells whether a manifest goes with the last of its tags.
	DropsUntagged() bool
}
