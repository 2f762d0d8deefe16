package providertest

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// An SQS is a queue of Amazon's in memory (JSON 1.0): messages that were handed
// out are hidden for a while, then handed out again, until they are deleted or
// set aside.
type SQS struct {
	// Visibility is how long what was handed out is hidden, default 30 s.
	Visibility time.Duration
	// MaxReceives, where set, moves a message to Dead when it would be handed
	// out more often: the redrive policy.
	MaxReceives int
	// Denied are IAM actions that the identity lacks (sqs:ReceiveMessage).
	Denied map[string]bool

	mu       sync.Mutex
	messages []*sqsMessage
	dead     []string
	next     int
	arrived  chan struct{}
}

type sqsMessage struct {
	id, body string
	handle   string
	hidden   time.Time
	receives int
}

// Send puts a message into the queue.
func (q *SQS) Send(body string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.next++
	q.messages = append(q.messages, &sqsMessage{id: "id-" + strconv.Itoa(q.next), body: body})
	if q.arrived != nil {
		close(q.arrived)
		q.arrived = nil
	}
}

// Left are the messages that nobody has deleted, handed out or not; Dead those
// that were set aside.
func (q *SQS) Left() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.messages)
}

// Dead are the bodies that were set aside.
func (q *SQS) Dead() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]string(nil), q.dead...)
}

// ServeHTTP serves the API.
func (q *SQS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	var in struct {
		MaxNumberOfMessages, WaitTimeSeconds int
		VisibilityTimeout                    int
		ReceiptHandle                        string
		Entries                              []struct{ ID, ReceiptHandle string }
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil || json.Unmarshal(body, &in) != nil {
		apiFault(w, 400, "com.amazonaws.sqs#SerializationException", "not JSON")
		return
	}
	if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=") {
		apiFault(w, 403, "com.amazonaws.sqs#MissingAuthenticationToken", "not signed")
		return
	}
	action := strings.TrimSuffix(operation, "Batch")
	if q.Denied["sqs:"+action] {
		apiFault(w, 403, "com.amazon.coral.service#AccessDeniedException", "not authorized to perform: sqs:"+action)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	switch operation {
	case "ReceiveMessage":
		q.receive(w, r, in.MaxNumberOfMessages, time.Duration(in.WaitTimeSeconds)*time.Second, time.Duration(in.VisibilityTimeout)*time.Second)
	case "DeleteMessageBatch":
		done := []any{}
		q.mu.Lock()
		for _, e := range in.Entries {
			q.remove(e.ReceiptHandle)
			done = append(done, map[string]string{"Id": e.ID})
		}
		q.mu.Unlock()
		ecrAnswer(w, map[string]any{"Successful": done, "Failed": []any{}})
	case "DeleteMessage":
		if in.ReceiptHandle == "" || !strings.HasPrefix(in.ReceiptHandle, "id-") {
			apiFault(w, 400, "com.amazonaws.sqs#ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
			return
		}
		q.mu.Lock()
		q.remove(in.ReceiptHandle)
		q.mu.Unlock()
		ecrAnswer(w, map[string]any{})
	case "GetQueueAttributes":
		attributes := map[string]string{"ApproximateNumberOfMessages": strconv.Itoa(q.Left())}
		if q.MaxReceives > 0 {
			attributes["RedrivePolicy"] = `{"maxReceiveCount":` + strconv.Itoa(q.MaxReceives) + `,"deadLetterTargetArn":"arn:aws:sqs:eu-west-1:123456789012:dead"}`
		}
		ecrAnswer(w, map[string]any{"Attributes": attributes})
	default:
		apiFault(w, 400, "com.amazonaws.sqs#InvalidAction", operation)
	}
}

// remove deletes by a handle, which is of the last handing-out alone.
func (q *SQS) remove(handle string) {
	for i, m := range q.messages {
		if m.handle == handle {
			q.messages = append(q.messages[:i], q.messages[i+1:]...)
			return
		}
	}
}

func (q *SQS) receive(w http.ResponseWriter, r *http.Request, n int, wait, hidden time.Duration) {
	end := time.After(wait)
	for {
		q.mu.Lock()
		given, due := q.take(min(max(n, 1), 10), hidden)
		if q.arrived == nil {
			q.arrived = make(chan struct{})
		}
		arrived := q.arrived
		q.mu.Unlock()
		if len(given) > 0 {
			ecrAnswer(w, map[string]any{"Messages": given})
			return
		}
		select {
		case <-arrived:
		case <-time.After(due):
		case <-r.Context().Done():
			return
		case <-end:
			ecrAnswer(w, map[string]any{})
			return
		}
	}
}

// take hands out what is not hidden, and tells when more can be.
func (q *SQS) take(n int, hidden time.Duration) (given []any, due time.Duration) {
	visibility := hidden
	if visibility == 0 {
		visibility = q.Visibility
	}
	if visibility == 0 {
		visibility = 30 * time.Second
	}
	due = time.Minute
	now := time.Now()
	var left []*sqsMessage
	for _, m := range q.messages {
		switch {
		case now.Before(m.hidden):
			due = min(due, m.hidden.Sub(now))
		case q.MaxReceives > 0 && m.receives >= q.MaxReceives:
			q.dead = append(q.dead, m.body)
			continue
		case len(given) < n:
			m.receives++
			m.hidden = now.Add(visibility)
			m.handle = m.id + "-" + strconv.Itoa(m.receives)
			sum := md5.Sum([]byte(m.body)) //nolint:gosec // what SQS tells of a body
			given = append(given, map[string]any{
				"MessageId": m.id, "ReceiptHandle": m.handle, "Body": m.body, "MD5OfBody": hex.EncodeToString(sum[:]),
				"Attributes": map[string]string{"ApproximateReceiveCount": strconv.Itoa(m.receives)},
			})
		}
		left = append(left, m)
	}
	q.messages = left
	return given, due
}
