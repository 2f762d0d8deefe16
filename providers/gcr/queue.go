package gcr

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/auth"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// pubsubOverride is gcloud's own setting for Pub/Sub's address.
	pubsubOverride = "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB"
	// batch is how many messages are had at a time: what they tell is one commit.
	batch = 100
	// pullTime bounds a pull, which waits at Pub/Sub for messages; askTime the rest.
	pullTime = 90 * time.Second
	askTime  = 10 * time.Second
	// deadline in seconds is how long messages stay ours after a pull, whatever
	// the subscription's own (10 by default): longer than a commit and its
	// acknowledgement may take.
	deadline = 60
	maxPull  = 16 << 20
)

var subscriptionGrammar = regexp.MustCompile(`^projects/[a-z0-9][a-z0-9.:-]{0,61}/subscriptions/[A-Za-z][A-Za-z0-9._~+%-]{2,254}$`)

// CheckSubscription tells whether a name is one of a subscription.
func CheckSubscription(name string) error {
	if !subscriptionGrammar.MatchString(name) {
		return fmt.Errorf("%.80q is no subscription, write it like projects/PROJECT/subscriptions/NAME: %w", name, oci.ErrInvalid)
	}
	return nil
}

// A Queue is a subscription of Pub/Sub to the topic of a registry's project. It
// is pulled over REST by hand: the client library brings gRPC and its buffers,
// half as much again as the whole binary, to keep streams open for rates that
// one long poll after another serves as well. Safe for concurrent use.
type Queue struct {
	subscription string
	api          string
	client       *http.Client
	decoder      Webhook
	id           *identity
	reg          *generic.Registry // for errors

	mu    sync.Mutex
	token *auth.Token
	until time.Time
}

// NewQueue gives a registry's queue, asked by the registry's identity. rt is
// not the registry's limiter: a long poll would hold one of its slots, and a
// queue that does not answer says nothing about the registry.
func NewQueue(spec generic.Spec, subscription string, rt http.RoundTripper) (*Queue, error) {
	if err := CheckSubscription(subscription); err != nil {
		return nil, fmt.Errorf("registry %s: events.pubsub: %w", spec.Name, err)
	}
	reg, err := generic.New(spec, rt)
	if err != nil {
		return nil, err
	}
	q := &Queue{
		subscription: subscription, api: "https://pubsub.googleapis.com", decoder: Webhook{Host: spec.Host}, reg: reg,
		id: newIdentity(spec.Auth.Google, rt),
		client: &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}},
	}
	if own := os.Getenv(pubsubOverride); own != "" {
		q.api = strings.TrimSuffix(own, "/")
	}
	return q, nil
}

// Receive waits for messages, at most 100. They stay in the subscription and
// come again, a minute later, unless they are deleted.
func (q *Queue) Receive(ctx context.Context) ([]replicator.Message, error) {
	bounded, cancel := context.WithTimeout(ctx, pullTime)
	defer cancel()
	var pulled struct {
		Messages []struct {
			Ack     string  `json:"ackId"`
			Attempt int     `json:"deliveryAttempt"` // where the subscription has a dead-letter policy
			Message message `json:"message"`
		} `json:"receivedMessages"`
	}
	err := q.ask(bounded, "pull", map[string]any{"maxMessages": batch}, &pulled)
	if err != nil {
		if ctx.Err() == nil && bounded.Err() != nil {
			return nil, nil // nothing came
		}
		return nil, err
	}
	var messages []replicator.Message
	var acks []string
	for _, m := range pulled.Messages {
		var told replicator.Decoded
		q.decoder.notice(&told, m.Message.Data, m.Message.Publish)
		messages = append(messages, replicator.Message{Handle: m.Ack, Told: told, SetsAside: m.Attempt > 0, Again: m.Attempt > 1})
		acks = append(acks, m.Ack)
	}
	if len(acks) > 0 {
		bounded, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		// Should it fail, messages may come twice, which harms nothing.
		_ = q.ask(bounded, "modifyAckDeadline", map[string]any{"ackIds": acks, "ackDeadlineSeconds": deadline}, nil)
	}
	return messages, nil
}

// Delete acknowledges messages: those that Receive gave.
func (q *Queue) Delete(ctx context.Context, handles []string) error {
	if len(handles) == 0 {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return q.ask(bounded, "acknowledge", map[string]any{"ackIds": handles}, nil)
}

// ask calls one method of the subscription, once more with a new token where
// the one before is refused.
func (q *Queue) ask(ctx context.Context, method string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	for again := false; ; again = true {
		token, err := q.login(ctx, again)
		if err != nil {
			return err
		}
		status, header, answer, err := q.post(ctx, method, token, text)
		switch {
		case err != nil:
			return q.reg.Fault(oci.RegistryError{Operation: q.what(method), Kind: oci.ErrUnreachable, Cause: err})
		case status == http.StatusUnauthorized && !again:
			continue
		case status != http.StatusOK:
			return q.refused(method, status, header, answer)
		case into != nil && json.Unmarshal(answer, into) != nil:
			return q.reg.Senseless(q.what(method), "the answer is not Pub/Sub's JSON")
		}
		return nil
	}
}

func (q *Queue) what(method string) string { return "POST " + q.subscription + ":" + method }

func (q *Queue) post(ctx context.Context, method, token string, body []byte) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, q.api+"/v1/"+q.subscription+":"+method, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := q.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxPull+1))
	if err == nil && len(answer) > maxPull {
		err = errors.New("answer over 16 MiB")
	}
	return resp.StatusCode, resp.Header, answer, err
}

// login gives an access token, asked for anew ahead of its end.
func (q *Queue) login(ctx context.Context, anew bool) (string, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if q.token != nil && !anew && now.Before(q.until) {
		return q.token.Value, nil
	}
	source, err := q.id.get()
	var token *auth.Token
	if err == nil {
		token, err = source.Token(ctx)
	}
	if err != nil {
		return "", q.id.fault(ctx, q.reg, err)
	}
	q.reg.Secret(token.Value)
	q.token, q.until = token, now.Add(time.Minute)
	if !token.Expiry.IsZero() {
		q.until = token.Expiry.Add(-min(token.Expiry.Sub(now)/4, 5*time.Minute))
	}
	return token.Value, nil
}

// refused classifies what Pub/Sub says.
func (q *Queue) refused(method string, status int, header http.Header, answer []byte) error {
	var doc struct {
		Error struct {
			Message string `json:"message"`
			Status  string `json:"status"`
		} `json:"error"`
	}
	_ = json.Unmarshal(answer, &doc) // what is none says nothing
	e := oci.RegistryError{Operation: q.what(method), Status: status, Code: doc.Error.Status, Message: doc.Error.Message, Kind: oci.ErrRefused}
	switch {
	case status == http.StatusTooManyRequests:
		return &oci.ThrottledError{Wait: generic.RetryAfter(header), Err: q.reg.Fault(e)}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		e.Kind, e.Hint = oci.ErrDenied, "give the identity roles/pubsub.subscriber on "+q.subscription
	case status == http.StatusNotFound:
		e.Kind, e.Hint = oci.ErrNotFound, "make it with `gcloud pubsub subscriptions create NAME --topic gcr`, or mend events.pubsub"
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		e.Kind = oci.ErrUnreachable
	case status >= 500:
		e.Kind = oci.ErrInterrupted
	}
	return q.reg.Fault(e)
}
