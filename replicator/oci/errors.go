package oci

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The kinds of error a registry or its content gives. Providers classify once,
// at the edge; everybody else asks with errors.Is, never the text.
var (
	// ErrNotFound: the manifest, tag or blob is not there.
	ErrNotFound = errors.New("not found")
	// ErrRepositoryUnknown: the repository itself is not there (NAME_UNKNOWN).
	ErrRepositoryUnknown = fmt.Errorf("repository unknown: %w", ErrNotFound)
	// ErrDenied: authentication or authorization was refused for good.
	ErrDenied = errors.New("denied")
	// ErrMismatch: content is not its digest or size.
	ErrMismatch = errors.New("content is not its digest")
	// ErrUnsupported: this registry does not do that.
	ErrUnsupported = errors.New("unsupported")
	// ErrRefused: the registry refuses this content or name for good (too
	// large, invalid, over quota, read-only); a person has to look.
	ErrRefused = errors.New("refused")
	// ErrImmutable: the tag exists with another digest and may not be moved.
	ErrImmutable = errors.New("tag is immutable")
	// ErrBlobUnknown: a manifest was refused for a blob or child the registry lacks.
	ErrBlobUnknown = errors.New("manifest names content the registry lacks")
	// ErrUploadUnknown: the upload session is gone or out of step; begin a new one.
	ErrUploadUnknown = errors.New("upload session unknown")
	// ErrUnreachable: no connection, no answer in time, 502, 503 or 504.
	ErrUnreachable = errors.New("unreachable")
	// ErrInterrupted: a passing fault in the middle: reset, 500, short body, stall.
	ErrInterrupted = errors.New("interrupted")
	// ErrUnlistable: the registry has no catalog for us.
	ErrUnlistable = errors.New("repositories cannot be listed")
	// ErrTooLarge: an answer is over the bound we read; the registry is not trusted further.
	ErrTooLarge = errors.New("answer exceeds its bound")
	// ErrInvalid: an answer or manifest that makes no sense.
	ErrInvalid = errors.New("invalid answer")
	// ErrSourceIncomplete: the source lists a manifest or blob it does not have.
	ErrSourceIncomplete = errors.New("source incomplete")
)

// A ThrottledError is a 429 (or a provider's equal) that outlasted the
// request's own retries.
type ThrottledError struct {
	// Wait is what the registry asked for, zero when it did not say.
	Wait time.Duration
	Err  error
}

func (e *ThrottledError) Error() string {
	if e.Wait > 0 {
		return fmt.Sprintf("throttled for %s: %v", e.Wait, e.Err)
	}
	return fmt.Sprintf("throttled: %v", e.Err)
}

func (e *ThrottledError) Unwrap() error { return e.Err }

// A RegistryError is an answer of a registry that is no success.
type RegistryError struct {
	// Registry is the config's name for it, Operation what was attempted
	// (`PUT manifest team/app:v1`): no query, no credentials.
	Registry, Operation string
	// Status is the HTTP status, 0 when there was no answer.
	Status int
	// Code and Message are the first of the answer's errors, bounded and in
	// one line; empty where it had none.
	Code, Message string
	// Hint says what an operator can do, where that is known.
	Hint string
	// Kind is one of the sentinels above.
	Kind error
	// Cause is the transport's error where there was no answer.
	Cause error
}

func (e *RegistryError) Error() string {
	s := e.Registry + ": " + e.Operation
	if e.Status != 0 {
		s += fmt.Sprintf(": %d", e.Status)
	}
	if e.Status == 0 && (e.Code != "" || e.Message != "") {
		s += ":"
	}
	if e.Code != "" {
		s += " " + e.Code
	}
	if e.Message != "" {
		s += " " + e.Message
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	} else if e.Code == "" && e.Message == "" && e.Kind != nil {
		s += ": " + e.Kind.Error()
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *RegistryError) Unwrap() []error {
	var errs []error
	if e.Kind != nil {
		errs = append(errs, e.Kind)
	}
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}

// KindOf names an error's kind in one word, as jobs and metrics show it.
func KindOf(err error) string {
	var throttled *ThrottledError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &throttled):
		return "throttled"
	case errors.Is(err, ErrSourceIncomplete):
		return "source-incomplete"
	case errors.Is(err, ErrBlobUnknown):
		return "blob-unknown"
	case errors.Is(err, ErrRepositoryUnknown):
		return "repository-unknown"
	case errors.Is(err, ErrNotFound):
		return "not-found"
	case errors.Is(err, ErrMismatch):
		return "mismatch"
	case errors.Is(err, ErrImmutable):
		return "immutable"
	case errors.Is(err, ErrDenied):
		return "denied"
	case errors.Is(err, ErrUnsupported):
		return "unsupported"
	case errors.Is(err, ErrRefused):
		return "refused"
	case errors.Is(err, ErrUnlistable):
		return "unlistable"
	case errors.Is(err, ErrTooLarge):
		return "too-large"
	case errors.Is(err, ErrInvalid):
		return "invalid"
	case errors.Is(err, ErrUnreachable):
		return "unreachable"
	case errors.Is(err, ErrUploadUnknown):
		return "upload-unknown"
	case errors.Is(err, ErrInterrupted):
		return "interrupted"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "canceled"
	}
	return "other"
}
