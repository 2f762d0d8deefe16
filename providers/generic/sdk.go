package generic

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

// SDKClient is the HTTP client of a provider's SDK: what it asks goes through
// the registry's limits, counted as op where the context says nothing else. It
// follows no redirects and reads no answer beyond 1 MiB.
func SDKClient(rt http.RoundTripper, op oci.Operation) *http.Client {
	return &http.Client{
		Transport:     sdkTransport{rt, op},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type sdkTransport struct {
	rt http.RoundTripper
	op oci.Operation
}

func (s sdkTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if oci.OperationOf(req.Context()) == "other" {
		req = req.WithContext(oci.WithOperation(req.Context(), s.op))
	}
	resp, err := s.rt.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxTokenBody}
	return resp, nil
}

var errAnswerTooLong = errors.New("answer over 1 MiB")

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errAnswerTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// Fault makes an error of this registry, its text bounded, in one line and
// without secrets in use.
func (r *Registry) Fault(e oci.RegistryError) error {
	e.Registry = r.spec.Name
	e.Code, e.Message = r.clean(e.Code, 64), r.clean(e.Message, maxMessage)
	if e.Cause != nil {
		e.Cause = r.cause(e.Cause)
	}
	return &e
}

// RetryAfter is how long an answer asks to wait, zero where it does not say.
func RetryAfter(header http.Header) time.Duration {
	return parseRetryAfter(header.Get("Retry-After"), time.Now())
}

// NoAnswer tells whether an SDK's call failed on the way: nobody answered it.
func NoAnswer(err error) bool {
	var (
		op     *net.OpError
		dns    *net.DNSError
		verify *tls.CertificateVerificationError
	)
	return errors.Is(err, oci.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) || errors.As(err, &dns) || errors.As(err, &verify)
}
