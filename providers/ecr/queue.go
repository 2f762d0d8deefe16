package ecr

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator"
)

const (
	// longPoll in seconds and batch are the most that SQS knows.
	longPoll = 20
	batch    = 10
	// queueTime bounds one request, a long poll included.
	queueTime = time.Minute
	// redriveTime is how long is believed what was told of dead letters.
	redriveTime = 10 * time.Minute
)

// A Queue is one of SQS to which EventBridge or SNS brings a registry's events.
// Its methods are safe for concurrent use.
type Queue struct {
	name    string
	url     string
	api     *sqs.Client
	decoder Webhook

	mu      sync.Mutex
	redrive bool
	asked   time.Time
}

var sqsRegion = regexp.MustCompile(`(?:^|\.)sqs(?:-fips)?\.([a-z0-9-]+)\.`)

// NewQueue gives a registry's queue, asked by the registry's identity. rt is
// not the registry's limiter: a long poll would hold one of its slots, and a
// queue that does not answer says nothing about the registry.
func NewQueue(spec generic.Spec, queue string, rt http.RoundTripper) (*Queue, error) {
	u, err := url.Parse(queue)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("registry %s: events.sqs is no URL", spec.Name)
	}
	region := ParseHost(spec.Host).Region
	if region == "" {
		region = spec.Region
	}
	if m := sqsRegion.FindStringSubmatch(strings.ToLower(u.Host)); m != nil {
		region = m[1]
	}
	if region == "" {
		return nil, fmt.Errorf("registry %s: neither events.sqs nor address tells a region; set region, as in eu-west-1", spec.Name)
	}
	config, err := awsConfig(spec, region, rt)
	if err != nil {
		return nil, err
	}
	endpoint := u.Scheme + "://" + u.Host
	return &Queue{
		name: spec.Name, url: queue, decoder: WebhookOf(spec.Host, nil),
		api: sqs.NewFromConfig(config, func(o *sqs.Options) { o.BaseEndpoint = aws.String(endpoint) }),
	}, nil
}

func (q *Queue) fault(ctx context.Context, call string, err error) error {
	return apiError(ctx, q.name, "sqs", call, "", err)
}

// Receive waits up to 20 s for messages, at most ten. They stay in the queue,
// hidden for its visibility timeout, until they are deleted.
func (q *Queue) Receive(ctx context.Context) ([]replicator.Message, error) {
	bounded, cancel := context.WithTimeout(ctx, queueTime)
	defer cancel()
	out, err := q.api.ReceiveMessage(bounded, &sqs.ReceiveMessageInput{
		QueueUrl: aws.String(q.url), MaxNumberOfMessages: batch, WaitTimeSeconds: longPoll,
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameApproximateReceiveCount},
	})
	if err != nil {
		return nil, q.fault(ctx, "ReceiveMessage", err)
	}
	messages := make([]replicator.Message, 0, len(out.Messages))
	for _, m := range out.Messages {
		message := replicator.Message{
			Handle: aws.ToString(m.ReceiptHandle),
			Told:   q.decoder.Decode(nil, []byte(aws.ToString(m.Body))),
		}
		count := m.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)]
		message.Again = count != "" && count != "1"
		if message.Told.Unusable > 0 {
			message.SetsAside = q.setsAside(ctx)
		}
		messages = append(messages, message)
	}
	return messages, nil
}

// setsAside asks whether the queue has a redrive policy. An identity that may
// not ask is told no: else what cannot be used would come back for days.
func (q *Queue) setsAside(ctx context.Context) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now := time.Now(); now.Sub(q.asked) > redriveTime {
		ctx, cancel := context.WithTimeout(ctx, queueTime)
		defer cancel()
		out, err := q.api.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
			QueueUrl: aws.String(q.url), AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameRedrivePolicy},
		})
		q.redrive, q.asked = err == nil && out.Attributes[string(types.QueueAttributeNameRedrivePolicy)] != "", now
	}
	return q.redrive
}

// Delete takes messages away for good, at most ten: those that Receive gave.
func (q *Queue) Delete(ctx context.Context, handles []string) error {
	if len(handles) == 0 {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, queueTime)
	defer cancel()
	in := &sqs.DeleteMessageBatchInput{QueueUrl: aws.String(q.url)}
	for i, handle := range handles {
		in.Entries = append(in.Entries, types.DeleteMessageBatchRequestEntry{Id: aws.String(fmt.Sprintf("m%d", i)), ReceiptHandle: aws.String(handle)})
	}
	out, err := q.api.DeleteMessageBatch(bounded, in)
	if err != nil {
		return q.fault(ctx, "DeleteMessage", err)
	}
	if len(out.Failed) > 0 {
		return senseless(q.name, "DeleteMessage", fmt.Sprintf("%d of %d were not deleted: %s", len(out.Failed), len(handles), oneLine(aws.ToString(out.Failed[0].Code))))
	}
	return nil
}
