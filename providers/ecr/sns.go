package ecr

import (
	"context"
	"crypto"
	"crypto/rsa"
	_ "crypto/sha1" //nolint:gosec // SNS signs version 1 with it
	_ "crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// snsTime bounds what is asked of SNS for one request; it waits 15 s itself.
	snsTime = 5 * time.Second
	// maxCertificate bounds a certificate in bytes, maxCertificates how many are
	// kept; one is kept for a day.
	maxCertificate  = 64 << 10
	maxCertificates = 64
	certificateTime = 24 * time.Hour
)

// A notification is SNS's envelope (SNS developer guide, "Parsing Amazon SNS
// message formats").
type notification struct {
	Type             string
	MessageID        string `json:"MessageId"`
	TopicArn         string
	Subject          *string
	Message          string
	Timestamp        string
	Token            string
	SubscribeURL     string
	SignatureVersion string
	Signature        string
	SigningCertURL   string
}

func notificationOf(body []byte) (notification, bool) {
	var n notification
	return n, json.Unmarshal(body, &n) == nil && n.Type != "" && n.TopicArn != ""
}

// Senders proves that requests are SNS's, by the certificates that it signs
// with, and confirms its subscriptions. Its methods are safe for concurrent use.
type Senders struct {
	client  *http.Client
	flights singleflight.Group

	mu           sync.Mutex
	certificates map[string]certificate
}

type certificate struct {
	cert    *x509.Certificate
	fetched time.Time
}

// NewSenders asks SNS through a client, nil: one that follows no redirects.
func NewSenders(client *http.Client) *Senders {
	if client == nil {
		client = &http.Client{Transport: http.DefaultTransport}
	}
	c := *client
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return errors.New("SNS redirects nobody") }
	return &Senders{client: &c, certificates: make(map[string]certificate)}
}

// Prove looks whether a request in SNS's envelope is SNS's; any other passes,
// its secret says enough. known: it has shown the registry's secret. Only then
// is a subscription confirmed: any account may ask for one. oci.ErrDenied: it is
// forged; other errors: it cannot be told, or done, now.
func (w Webhook) Prove(ctx context.Context, _ http.Header, body []byte, known bool) error {
	n, ok := notificationOf(body)
	if !ok || w.Senders == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, snsTime)
	defer cancel()
	if err := w.Senders.verify(ctx, n); err != nil {
		return err
	}
	if n.Type != "SubscriptionConfirmation" {
		return nil
	}
	if !known {
		return fmt.Errorf("a subscription of %.200q is confirmed only where the address carries the registry's webhook secret: %w", n.TopicArn, oci.ErrDenied)
	}
	return w.Senders.confirm(ctx, n)
}

// snsHost is where SNS lives, in every partition that takes subscriptions by HTTP.
var snsHost = regexp.MustCompile(`^sns\.[a-z0-9-]{1,32}\.amazonaws\.com(\.cn)?$`)

// address checks where a message sends us.
func address(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || len(raw) > 4096 || u.Scheme != "https" || !snsHost.MatchString(u.Host) || u.User != nil {
		return nil, fmt.Errorf("an address that is not SNS's: %w", oci.ErrDenied)
	}
	return u, nil
}

// verify holds the signature against the certificate that the message names.
func (s *Senders) verify(ctx context.Context, n notification) error {
	var hash crypto.Hash
	switch n.SignatureVersion {
	case "1":
		hash = crypto.SHA1
	case "2":
		hash = crypto.SHA256
	default:
		return fmt.Errorf("SNS's signature version %.10q: %w", n.SignatureVersion, oci.ErrDenied)
	}
	signature, err := base64.StdEncoding.DecodeString(n.Signature)
	if err != nil {
		return fmt.Errorf("SNS's signature is no base64: %w", oci.ErrDenied)
	}
	u, err := address(n.SigningCertURL)
	if err != nil {
		return fmt.Errorf("certificate of SNS: %w", err)
	}
	if !strings.HasSuffix(u.Path, ".pem") || u.RawQuery != "" {
		return fmt.Errorf("certificate of SNS: no PEM file: %w", oci.ErrDenied)
	}
	cert, err := s.certificate(ctx, u)
	if err != nil {
		return err
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("certificate of SNS: its key is not RSA: %w", oci.ErrDenied)
	}
	h := hash.New()
	h.Write(n.canonical())
	if rsa.VerifyPKCS1v15(key, hash, h.Sum(nil), signature) != nil {
		return fmt.Errorf("SNS's signature is wrong: %w", oci.ErrDenied)
	}
	return nil
}

// canonical is what SNS signs (developer guide, "Verifying the signatures of
// Amazon SNS messages").
func (n notification) canonical() []byte {
	var b strings.Builder
	add := func(key, value string) { b.WriteString(key + "\n" + value + "\n") }
	add("Message", n.Message)
	add("MessageId", n.MessageID)
	if n.Type == "Notification" {
		if n.Subject != nil {
			add("Subject", *n.Subject)
		}
	} else {
		add("SubscribeURL", n.SubscribeURL)
	}
	add("Timestamp", n.Timestamp)
	if n.Type != "Notification" {
		add("Token", n.Token)
	}
	add("TopicArn", n.TopicArn)
	add("Type", n.Type)
	return []byte(b.String())
}

// certificate fetches one, once for all who ask meanwhile.
func (s *Senders) certificate(ctx context.Context, u *url.URL) (*x509.Certificate, error) {
	at := u.String()
	s.mu.Lock()
	kept, ok := s.certificates[at]
	s.mu.Unlock()
	if now := time.Now(); ok && now.Sub(kept.fetched) < certificateTime && now.Before(kept.cert.NotAfter) {
		return kept.cert, nil
	}
	flight := s.flights.DoChan(at, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), snsTime) // it serves others too
		defer cancel()
		body, err := s.get(ctx, u, "certificate of SNS")
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(body)
		if block == nil {
			return nil, fmt.Errorf("certificate of SNS: no PEM: %w", oci.ErrInvalid)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate of SNS: %w: %w", oci.ErrInvalid, err)
		}
		if now := time.Now(); now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
			return nil, fmt.Errorf("certificate of SNS has ended, or not begun: %w", oci.ErrDenied)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.certificates) >= maxCertificates {
			clear(s.certificates)
		}
		s.certificates[at] = certificate{cert: cert, fetched: time.Now()}
		return cert, nil
	})
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("certificate of SNS: %w", context.Cause(ctx))
	case result := <-flight:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*x509.Certificate), nil
	}
}

// confirm takes up a subscription: SNS sends nothing before.
func (s *Senders) confirm(ctx context.Context, n notification) error {
	u, err := address(n.SubscribeURL)
	if err == nil && u.Query().Get("Action") != "ConfirmSubscription" {
		err = fmt.Errorf("an address that confirms nothing: %w", oci.ErrDenied)
	}
	if err != nil {
		return fmt.Errorf("confirm subscription: %w", err)
	}
	_, err = s.get(ctx, u, "confirm subscription")
	return err
}

func (s *Senders) get(ctx context.Context, u *url.URL, what string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: no address: %w", what, oci.ErrInvalid)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		var full *url.Error // its text holds the token
		if errors.As(err, &full) {
			err = full.Err
		}
		return nil, fmt.Errorf("%s: %w: %w", what, oci.ErrUnreachable, err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxCertificate+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %w", what, oci.ErrInterrupted, err)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: SNS answers %d: %w", what, resp.StatusCode, oci.ErrUnreachable)
	case len(body) > maxCertificate:
		return nil, fmt.Errorf("%s: %w", what, oci.ErrTooLarge)
	}
	return body, nil
}
