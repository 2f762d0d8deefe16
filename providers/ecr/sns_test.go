package ecr_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinport/twinport/providers/ecr"
	"github.com/twinport/twinport/replicator/oci"
)

// An sns is Amazon's, with a certificate of its own.
type sns struct {
	key  *rsa.PrivateKey
	cert []byte

	mu    sync.Mutex
	asked []string
}

func newSNS(t *testing.T) *sns {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sns.amazonaws.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &sns{key: key, cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// RoundTrip serves the certificate, and takes confirmations.
func (s *sns) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, req.URL.Host+req.URL.Path+"?"+req.URL.Query().Get("Action"))
	body := "<ConfirmSubscriptionResponse/>"
	if strings.HasSuffix(req.URL.Path, ".pem") {
		body = string(s.cert)
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
}

// sign gives a fixture a signature that holds.
func (s *sns) sign(t *testing.T, name, version string, change func(map[string]any)) []byte {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(fixture(t, name), &doc); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(doc)
	}
	keys := []string{"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"}
	if doc["Type"] != "Notification" {
		keys = []string{"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"}
	}
	var text strings.Builder
	for _, key := range keys {
		if value, ok := doc[key].(string); ok {
			text.WriteString(key + "\n" + value + "\n")
		}
	}
	hash, sum := crypto.SHA256, sha256.Sum256([]byte(text.String()))
	digest := sum[:]
	if version == "1" {
		old := sha1.Sum([]byte(text.String()))
		hash, digest = crypto.SHA1, old[:]
	}
	signature, err := rsa.SignPKCS1v15(rand.Reader, s.key, hash, digest)
	if err != nil {
		t.Fatal(err)
	}
	doc["SignatureVersion"], doc["Signature"] = version, base64.StdEncoding.EncodeToString(signature)
	body, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestSNS(t *testing.T) {
	s := newSNS(t)
	hook := ecr.WebhookOf("123456789012.dkr.ecr.eu-west-1.amazonaws.com", ecr.NewSenders(&http.Client{Transport: s}))
	for _, version := range []string{"1", "2"} {
		for _, subject := range []any{nil, "pushed"} {
			body := s.sign(t, "sns-notification.json", version, func(doc map[string]any) { doc["Subject"] = subject })
			if err := hook.Prove(t.Context(), nil, body, true); err != nil {
				t.Errorf("version %s: %v", version, err)
			}
			if d := hook.Decode(nil, body); len(d.Events) != 1 {
				t.Errorf("version %s: %+v", version, d)
			}
			forged := strings.Replace(string(body), "v1.4.2", "v1.4.3", 1)
			if err := hook.Prove(t.Context(), nil, []byte(forged), true); !errors.Is(err, oci.ErrDenied) {
				t.Errorf("version %s, one byte changed: %v, want denied", version, err)
			}
		}
	}
	if len(s.asked) != 1 {
		t.Errorf("asked %q, want the certificate once", s.asked)
	}
	if err := hook.Prove(t.Context(), nil, fixture(t, "sns-notification.json"), true); !errors.Is(err, oci.ErrDenied) {
		t.Errorf("a placeholder of a signature: %v, want denied", err)
	}
	if err := hook.Prove(t.Context(), nil, fixture(t, "ecr-eventbridge-push.json"), true); err != nil {
		t.Errorf("an event without SNS: %v", err)
	}
}

func TestSNSAddresses(t *testing.T) {
	s := newSNS(t)
	hook := ecr.Webhook{Senders: ecr.NewSenders(&http.Client{Transport: s})}
	for _, address := range []string{
		"https://sns.eu-west-1.amazonaws.com.evil.example/x.pem", "https://evil.example/sns.eu-west-1.amazonaws.com/x.pem",
		"http://sns.eu-west-1.amazonaws.com/x.pem", "https://user@sns.eu-west-1.amazonaws.com/x.pem", "https://sns.eu-west-1.amazonaws.com:8443/x.pem",
		"https://169.254.169.254/x.pem", "https://sns.eu-west-1.amazonaws.com/x", "https://sns.eu-west-1.amazonaws.com/x.pem?y=.pem", "",
	} {
		body := s.sign(t, "sns-notification.json", "2", func(doc map[string]any) { doc["SigningCertURL"] = address })
		if err := hook.Prove(t.Context(), nil, body, true); !errors.Is(err, oci.ErrDenied) {
			t.Errorf("%s: %v, want denied", address, err)
		}
	}
	for _, address := range []string{"https://evil.example/?Action=ConfirmSubscription", "https://sns.eu-west-1.amazonaws.com/?Action=DeleteTopic"} {
		body := s.sign(t, "sns-subscription-confirmation.json", "2", func(doc map[string]any) { doc["SubscribeURL"] = address })
		if err := hook.Prove(t.Context(), nil, body, true); !errors.Is(err, oci.ErrDenied) {
			t.Errorf("%s: %v, want denied", address, err)
		}
	}
	for _, asked := range s.asked {
		if !strings.HasSuffix(asked, ".pem?") {
			t.Errorf("asked %s", asked)
		}
	}
}

func TestSNSConfirmation(t *testing.T) {
	s := newSNS(t)
	hook := ecr.Webhook{Senders: ecr.NewSenders(&http.Client{Transport: s})}
	body := s.sign(t, "sns-subscription-confirmation.json", "2", nil)
	if err := hook.Prove(t.Context(), nil, body, false); !errors.Is(err, oci.ErrDenied) {
		t.Errorf("without the secret: %v, want denied", err)
	}
	if err := hook.Prove(t.Context(), nil, body, true); err != nil {
		t.Error(err)
	}
	if d := hook.Decode(nil, body); !d.Ping {
		t.Errorf("%+v, want a ping", d)
	}
	confirmed := 0
	for _, asked := range s.asked {
		if asked == "sns.eu-west-1.amazonaws.com/?ConfirmSubscription" {
			confirmed++
		}
	}
	if confirmed != 1 {
		t.Errorf("asked %q, want one confirmation", s.asked)
	}
}
