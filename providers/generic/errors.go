package generic

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/twinport/twinport/replicator/oci"
)

// A failure is a classified error and what it means for trying again.
type failure struct {
	err error
	// passing: the same request may do better soon; quick: or not at all, so
	// ask but once more.
	passing, quick bool
	throttled      bool
	after          time.Duration // what Retry-After said
}

func (f *failure) error() error {
	if f.throttled {
		return &oci.ThrottledError{Wait: f.after, Err: f.err}
	}
	return f.err
}

// refusal classifies an answer that is no success.
func (r *Registry) refusal(c *call, status int, header http.Header, body []byte, trust bool) *failure {
	code, message := parseErrorBody(header.Get("Content-Type"), body)
	e := &oci.RegistryError{
		Registry: r.spec.Name, Operation: c.what, Status: status,
		Code: r.clean(code, 64), Message: r.clean(message, maxMessage),
	}
	f := &failure{err: e, after: parseRetryAfter(header.Get("Retry-After"), time.Now())}
	if status == http.StatusTooManyRequests || e.Code == "TOOMANYREQUESTS" {
		f.throttled = true
		return f
	}
	classify(c, e)
	if !trust && c.op != oci.OpToken && (status == 401 || status == 403) {
		// an address signed for a while is refused once that is over
		e.Kind, e.Hint = oci.ErrInterrupted, "the storage that the registry redirects to refuses the address it gave"
	}
	if r.ways.Classify != nil {
		r.ways.Classify(c.op, e)
	}
	f.passing = errors.Is(e.Kind, oci.ErrUnreachable) || errors.Is(e.Kind, oci.ErrInterrupted)
	if c.body != nil && c.body.open != nil {
		f.passing = false // the session has to be asked what it kept
	}
	return f
}

// noAnswer classifies a request that got none.
func (r *Registry) noAnswer(c *call, err error) *failure {
	e := &oci.RegistryError{Registry: r.spec.Name, Operation: c.what, Kind: oci.ErrUnreachable, Cause: r.cause(err)}
	f := &failure{err: e, passing: true}
	var (
		dns     *net.DNSError
		op      *net.OpError
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		verify  *tls.CertificateVerificationError
		record  tls.RecordHeaderError
	)
	switch {
	case sentinel(err) != nil: // the transport has classified it itself
		e.Kind, f.passing = sentinel(err), false
		if errors.Is(err, oci.ErrDenied) {
			e.Hint = hintAllow
		}
	case errors.As(err, &verify), errors.As(err, &unknown), errors.As(err, &host), errors.As(err, &invalid):
		e.Hint, f.passing = "check the registry's certificate and tls.ca", false
	case errors.As(err, &op) && op.Op == "remote error": // a TLS alert
		e.Hint, f.passing = "the registry refuses the TLS handshake; check tls.cert and tls.key", false
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		e.Hint, f.passing = "the registry does not speak TLS; set plainHTTP if that is meant", false
	case errors.As(err, &dns):
		e.Hint, f.quick = "check the registry's address", true
	case errors.Is(err, syscall.ECONNREFUSED):
		f.quick = true
	case errors.As(err, &op) && op.Op == "dial":
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed),
		strings.Contains(err.Error(), "server closed"), strings.Contains(err.Error(), "connection broken"):
		e.Kind = oci.ErrInterrupted
	}
	if c.body != nil && c.body.open != nil {
		f.passing = false
	}
	return f
}

// sentinel is the kind an error already has, nil when it has none.
func sentinel(err error) error {
	for _, kind := range []error{oci.ErrUnreachable, oci.ErrDenied, oci.ErrInterrupted, oci.ErrInvalid, oci.ErrTooLarge} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return nil
}

// broken is an answer that ended in the middle.
func (r *Registry) broken(c *call, err error) error {
	return &oci.RegistryError{Registry: r.spec.Name, Operation: c.what, Kind: oci.ErrInterrupted, Cause: r.cause(err)}
}

// invalid is an answer that makes no sense.
func (r *Registry) invalid(c *call, status int, err error) *failure {
	return &failure{err: r.senseless(c.what, status, err.Error())}
}

func (r *Registry) senseless(what string, status int, message string) *oci.RegistryError {
	return &oci.RegistryError{Registry: r.spec.Name, Operation: what, Status: status, Message: r.clean(message, maxMessage), Kind: oci.ErrInvalid}
}

func (r *Registry) mismatch(what, message string) *oci.RegistryError {
	return &oci.RegistryError{Registry: r.spec.Name, Operation: what, Message: r.clean(message, maxMessage), Kind: oci.ErrMismatch}
}

// refusedHost is a redirect or session somewhere we do not go.
func (r *Registry) refusedHost(ctx context.Context, c *call, err error) *failure {
	if ctx.Err() != nil {
		return &failure{err: r.canceled(ctx, c.what)}
	}
	e := &oci.RegistryError{Registry: r.spec.Name, Operation: c.what, Kind: sentinel(err), Cause: fmt.Errorf("redirect: %w", r.cause(err))}
	if errors.Is(err, oci.ErrDenied) {
		e.Hint = hintAllow
	}
	return &failure{err: e, passing: errors.Is(err, oci.ErrUnreachable), quick: true}
}

// authFailure is a request that could not even be sent.
func (r *Registry) authFailure(ctx context.Context, c *call, err error) *failure {
	if ctx.Err() != nil {
		return &failure{err: r.canceled(ctx, c.what)}
	}
	var throttled *oci.ThrottledError
	if errors.As(err, &throttled) {
		return &failure{err: fmt.Errorf("%s: %s: %w", r.spec.Name, c.what, throttled.Err), throttled: true, after: throttled.Wait}
	}
	return &failure{err: fmt.Errorf("%s: %w", c.what, err)}
}

// canceled keeps both that the caller ended it and why.
func (r *Registry) canceled(ctx context.Context, what string) error {
	return &oci.RegistryError{Registry: r.spec.Name, Operation: what, Kind: ctx.Err(), Cause: context.Cause(ctx)}
}

// A causeError shows an error of the transport without what must not be shown.
type causeError struct {
	text string
	err  error
}

func (e *causeError) Error() string { return e.text }
func (e *causeError) Unwrap() error { return e.err }

func (r *Registry) cause(err error) error {
	var u *url.Error // its text is the whole address
	if errors.As(err, &u) {
		err = u.Err
	}
	return &causeError{text: r.clean(err.Error(), maxMessage), err: err}
}

const maxMessage = 300

var addressPattern = regexp.MustCompile(`(?i)\b[a-z][a-z0-9+.-]{0,10}://\S+`)

// clean makes foreign text fit for an error: one line, bounded, without the
// secrets of ours that it may echo, addresses without user and query.
func (r *Registry) clean(s string, limit int) string {
	if len(s) > 8*limit {
		s = s[:8*limit]
	}
	s = addressPattern.ReplaceAllStringFunc(s, func(address string) string {
		address, _, _ = strings.Cut(address, "?")
		scheme, rest, _ := strings.Cut(address, "://")
		authority, path, slash := strings.Cut(rest, "/")
		if at := strings.LastIndex(authority, "@"); at >= 0 {
			authority = authority[at+1:]
		}
		if slash {
			path = "/" + path
		}
		return scheme + "://" + authority + path
	})
	return oneLine(r.auth.redact(s), limit)
}

// oneLine keeps printable text in one bounded line.
func oneLine(s string, limit int) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case c == utf8.RuneError:
			return '?'
		case unicode.IsSpace(c):
			return ' '
		case !unicode.IsPrint(c):
			return -1
		}
		return c
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}

// parseErrorBody reads the first error of distribution-spec's list ("Error
// Codes"), or what others send in its place.
func parseErrorBody(contentType string, body []byte) (code, message string) {
	var doc struct {
		Errors []struct {
			Code    any `json:"code"`
			Message any `json:"message"`
			Detail  any `json:"detail"`
		} `json:"errors"`
		Error            any `json:"error"`
		ErrorDescription any `json:"error_description"`
		Details          any `json:"details"`
		Message          any `json:"message"`
		Code             any `json:"code"`
	}
	if json.Unmarshal(body, &doc) == nil {
		text := func(v any) string { s, _ := v.(string); return s }
		if len(doc.Errors) > 0 {
			first := doc.Errors[0]
			// distribution begins a list with an UNKNOWN that says nothing.
			for _, e := range doc.Errors {
				if code := strings.ToUpper(text(e.Code)); code != "UNKNOWN" || text(e.Detail) != "" {
					first = e
					break
				}
			}
			message = text(first.Message)
			if detail := text(first.Detail); detail != "" && detail != message {
				message += ": " + detail
			}
			return strings.ToUpper(text(first.Code)), message
		}
		for _, v := range []any{doc.ErrorDescription, doc.Details, doc.Message, doc.Error} {
			if s := text(v); s != "" {
				return strings.ToUpper(text(doc.Code)), s
			}
		}
		return "", ""
	}
	if strings.HasPrefix(contentType, "text/plain") {
		line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
		return "", line
	}
	return "", ""
}
