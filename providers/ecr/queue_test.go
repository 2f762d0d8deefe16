package ecr_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/providers/ecr"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

func queue(t *testing.T, q *providertest.SQS) *ecr.Queue {
	t.Helper()
	(&providertest.ECR{}).Start(t) // the environment
	server := httptest.NewServer(q)
	t.Cleanup(server.Close)
	spec := generic.Spec{Name: "us", Host: "123456789012.dkr.ecr.eu-west-1.amazonaws.com"}
	opened, err := ecr.NewQueue(spec, server.URL+"/123456789012/ecr-pushes", http.DefaultTransport)
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

// bodyOf is the body in the answer of ReceiveMessage that was recorded.
func bodyOf(t *testing.T) string {
	t.Helper()
	var doc struct{ Messages []struct{ Body string } }
	if err := json.Unmarshal(fixture(t, "ecr-sqs-message.json"), &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Messages[0].Body
}

func TestQueue(t *testing.T) {
	fake := &providertest.SQS{}
	q := queue(t, fake)
	for range 12 {
		fake.Send(bodyOf(t))
	}
	seen := 0
	for fake.Left() > 0 {
		messages, err := q.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var handles []string
		for _, m := range messages {
			seen++
			if len(m.Told.Events) != 1 || m.Told.Events[0].Tag != "v1.4.2" || m.SetsAside || m.Again {
				t.Errorf("%+v", m)
			}
			handles = append(handles, m.Handle)
		}
		if err := q.Delete(t.Context(), handles); err != nil {
			t.Fatal(err)
		}
	}
	if seen != 12 {
		t.Errorf("%d messages, want 12", seen)
	}
}

// TestQueueWaits: a message that comes during the long poll ends it.
func TestQueueWaits(t *testing.T) {
	fake := &providertest.SQS{}
	q := queue(t, fake)
	go func() {
		fake.Send(string(fixture(t, "sns-notification.json")))
	}()
	messages, err := q.Receive(t.Context())
	if err != nil || len(messages) != 1 || len(messages[0].Told.Events) != 1 {
		t.Fatalf("%+v, %v", messages, err)
	}
}

func TestQueueHandsOutAgain(t *testing.T) {
	fake := &providertest.SQS{Visibility: time.Nanosecond, MaxReceives: 2}
	q := queue(t, fake)
	fake.Send("no event")
	for n := range 2 {
		messages, err := q.Receive(t.Context())
		if err != nil || len(messages) != 1 {
			t.Fatalf("%+v, %v", messages, err)
		}
		if m := messages[0]; m.Told.Unusable != 1 || !m.SetsAside || m.Again != (n > 0) {
			t.Errorf("handing-out %d: %+v", n, m)
		}
	}
	fake.Send(bodyOf(t))
	if messages, err := q.Receive(t.Context()); err != nil || len(messages) != 1 || len(fake.Dead()) != 1 {
		t.Errorf("%+v, %v; set aside: %q", messages, err, fake.Dead())
	}
}

func TestQueueRefused(t *testing.T) {
	q := queue(t, &providertest.SQS{Denied: map[string]bool{"sqs:ReceiveMessage": true, "sqs:DeleteMessage": true}})
	if _, err := q.Receive(t.Context()); !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), "sqs:ReceiveMessage") {
		t.Errorf("receive: %v", err)
	}
	if err := q.Delete(t.Context(), []string{"x"}); !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), "sqs:DeleteMessage") {
		t.Errorf("delete: %v", err)
	}
}
