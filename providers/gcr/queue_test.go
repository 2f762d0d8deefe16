package gcr_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/twinport/twinport/providers/gcr"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// pubsub is one subscription: it hands out what is not acknowledged.
type pubsub struct {
	mu       sync.Mutex
	waiting  []string // base64 data
	attempts int      // of each message; 0: no dead letters
	acked    []string
	extended []int
	fail     int
	tokens   map[string]bool
	deny     bool
}

const subscription = "projects/acme-prod/subscriptions/twinport"

func (p *pubsub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	method, ok := strings.CutPrefix(r.URL.Path, "/v1/"+subscription+":")
	token := r.Header.Get("Authorization")
	var body struct {
		Max  int      `json:"maxMessages"`
		Acks []string `json:"ackIds"`
		Time int      `json:"ackDeadlineSeconds"`
	}
	refuse := func(code int, status string) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "status": status, "message": "refused"}})
	}
	switch {
	case !ok || r.Method != http.MethodPost:
		refuse(404, "NOT_FOUND")
	case !strings.HasPrefix(token, "Bearer ya29.") || p.tokens[token]:
		refuse(401, "UNAUTHENTICATED")
	case p.deny:
		refuse(403, "PERMISSION_DENIED")
	case p.fail > 0:
		p.fail--
		refuse(503, "UNAVAILABLE")
	case json.NewDecoder(r.Body).Decode(&body) != nil:
		refuse(400, "INVALID_ARGUMENT")
	case method == "pull":
		var list []map[string]any
		for i, data := range p.waiting[:min(body.Max, len(p.waiting))] {
			m := map[string]any{"ackId": "ack-" + strconv.Itoa(i), "message": map[string]string{
				"data": data, "messageId": strconv.Itoa(i), "publishTime": "2026-05-14T09:21:38.104Z",
			}}
			if p.attempts > 0 {
				m["deliveryAttempt"] = p.attempts
			}
			list = append(list, m)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"receivedMessages": list})
	case method == "modifyAckDeadline":
		p.extended = append(p.extended, body.Time)
		_, _ = w.Write([]byte("{}"))
	case method == "acknowledge":
		p.acked = append(p.acked, body.Acks...)
		p.waiting = nil
		_, _ = w.Write([]byte("{}"))
	}
}

func wrapped(t *testing.T, name string) string {
	t.Helper()
	var doc struct {
		Message struct {
			Data string `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(fixture(t, name), &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Message.Data
}

func openQueue(t *testing.T, p *pubsub) *gcr.Queue {
	t.Helper()
	spec := world(t, &providertest.Google{})
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	t.Setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB", server.URL+"/")
	rt, err := generic.Transport(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rt.CloseIdleConnections)
	spec.Host = "europe-west1-docker.pkg.dev"
	spec.PlainHTTP = false
	q, err := gcr.NewQueue(spec, subscription, rt)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestQueue(t *testing.T) {
	p := &pubsub{waiting: []string{wrapped(t, "gar-pubsub-push.json"), wrapped(t, "gcr-pubsub-push.json"), "bm90aGluZw=="}}
	q := openQueue(t, p)
	messages, err := q.Receive(t.Context())
	if err != nil || len(messages) != 3 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	first := messages[0].Told.Events
	if len(first) != 1 || first[0].Action != replicator.Push || first[0].Repository != "acme-prod/team/app" || first[0].Tag != "v1.4.2" || first[0].Digest != index || !first[0].SenderTime {
		t.Errorf("first: %+v", messages[0].Told)
	}
	if messages[1].Told.Ignored != 1 || messages[2].Told.Unusable != 1 || messages[2].SetsAside {
		t.Errorf("another registry's: %+v; nothing: %+v", messages[1], messages[2])
	}
	if len(p.acked) > 0 || !slices.Equal(p.extended, []int{60}) {
		t.Errorf("before the commit: acknowledged %v, deadlines %v", p.acked, p.extended)
	}
	if err := q.Delete(t.Context(), []string{messages[0].Handle, messages[1].Handle}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.acked, []string{"ack-0", "ack-1"}) {
		t.Errorf("acknowledged %v", p.acked)
	}
	if err := q.Delete(t.Context(), nil); err != nil || len(p.acked) != 2 {
		t.Errorf("nothing to acknowledge: %v", err)
	}
	if messages, err = q.Receive(t.Context()); err != nil || len(messages) != 0 {
		t.Errorf("empty: %v, %v", messages, err)
	}
}

func TestQueueDeadLetters(t *testing.T) {
	p := &pubsub{waiting: []string{"bm90aGluZw=="}, attempts: 2}
	messages, err := openQueue(t, p).Receive(t.Context())
	if err != nil || len(messages) != 1 || !messages[0].SetsAside || !messages[0].Again {
		t.Fatalf("%+v, %v", messages, err)
	}
}

func TestQueueFaults(t *testing.T) {
	p := &pubsub{fail: 1}
	q := openQueue(t, p)
	if _, err := q.Receive(t.Context()); !errors.Is(err, oci.ErrUnreachable) {
		t.Errorf("503: %v", err)
	}
	p.mu.Lock()
	p.tokens = map[string]bool{"Bearer ya29.fake-1": true} // ended before its time
	p.mu.Unlock()
	if _, err := q.Receive(t.Context()); err != nil {
		t.Errorf("a token that ended: %v", err)
	}
	p.mu.Lock()
	p.deny = true
	p.mu.Unlock()
	if _, err := q.Receive(t.Context()); !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), "roles/pubsub.subscriber") || strings.Contains(err.Error(), "ya29") {
		t.Errorf("403: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := q.Receive(ctx); err == nil {
		t.Error("canceled, and no error")
	}
	for _, name := range []string{"", "twinport", "projects/p/topics/gcr", "projects/p/subscriptions/../x", "projects/p/subscriptions/a b"} {
		if err := gcr.CheckSubscription(name); !errors.Is(err, oci.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
