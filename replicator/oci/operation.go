package oci

import (
	"context"
	"sync/atomic"
)

// An Operation is the class of a request: limits adapt per class, metrics
// count per class.
type Operation string

// The classes, as metrics name them.
const (
	OpPing          Operation = "ping"
	OpToken         Operation = "token"
	OpManifestRead  Operation = "manifest-read"
	OpManifestHead  Operation = "manifest-head"
	OpManifestWrite Operation = "manifest-write"
	OpBlobRead      Operation = "blob-read"
	OpBlobHead      Operation = "blob-head"
	OpBlobWrite     Operation = "blob-write"
	OpUploadStart   Operation = "upload-start"
	OpList          Operation = "list"
	OpReferrers     Operation = "referrers"
	OpDelete        Operation = "delete"
	OpCreate        Operation = "create" // of a repository
)

type operationKey struct{}
type backgroundKey struct{}

// WithOperation marks the requests made under ctx as of one class.
func WithOperation(ctx context.Context, op Operation) context.Context {
	return context.WithValue(ctx, operationKey{}, op)
}

// OperationOf is the class of a request, "other" when nobody said.
func OperationOf(ctx context.Context) Operation {
	if op, ok := ctx.Value(operationKey{}).(Operation); ok {
		return op
	}
	return "other"
}

// WithBackground marks requests of the sweep and backfill lanes: a quarter of a
// registry's slots is closed to them.
func WithBackground(ctx context.Context) context.Context {
	return context.WithValue(ctx, backgroundKey{}, true)
}

// IsBackground tells whether a request belongs to the sweep or backfill lane.
func IsBackground(ctx context.Context) bool {
	b, _ := ctx.Value(backgroundKey{}).(bool)
	return b
}

type tallyKey struct{}

// WithTally counts the requests made under ctx into n, so that a sweep can say
// how many it made while jobs make theirs.
func WithTally(ctx context.Context, n *atomic.Int64) context.Context {
	return context.WithValue(ctx, tallyKey{}, n)
}

// Tally counts one request; whoever sends it calls this.
func Tally(ctx context.Context) {
	if n, ok := ctx.Value(tallyKey{}).(*atomic.Int64); ok {
		n.Add(1)
	}
}

type freshKey struct{}

// WithFreshConnection asks that requests under ctx use no connection that was
// kept open from before: what came over one was damaged.
func WithFreshConnection(ctx context.Context) context.Context {
	return context.WithValue(ctx, freshKey{}, true)
}

// IsFreshConnection tells whether a request is to use a connection of its own.
func IsFreshConnection(ctx context.Context) bool {
	b, _ := ctx.Value(freshKey{}).(bool)
	return b
}

type jobKey struct{}

// WithJob says for which job, or sweep, the requests and journal writes under ctx are made.
func WithJob(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, jobKey{}, id)
}

// JobOf is the job that ctx belongs to, empty where it is none's.
func JobOf(ctx context.Context) string {
	id, _ := ctx.Value(jobKey{}).(string)
	return id
}
