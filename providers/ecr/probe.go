package ecr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/twinport/twinport/replicator/oci"
)

// Probe asks whether messages may be received and deleted, without doing either:
// it has one handed out only where that harms nothing, and for a second.
func (q *Queue) Probe(ctx context.Context) (string, error) {
	told, patient, err := q.attributes(ctx)
	if err != nil {
		return "", err
	}
	if patient {
		// The SDK sends no zeros, for which the queue's own would be taken.
		_, err := q.api.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: aws.String(q.url), MaxNumberOfMessages: 1, VisibilityTimeout: 1, WaitTimeSeconds: 1})
		if err != nil {
			return told, q.fault(ctx, "ReceiveMessage", err)
		}
	}
	// A handle that nobody was given: who may delete is told that it is none.
	_, err = q.api.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: aws.String(q.url), ReceiptHandle: aws.String("twinport-check")})
	var api smithy.APIError
	if errors.As(err, &api) && !isDenied(api.ErrorCode()) && isHandle(api.ErrorCode()) {
		err = nil
	}
	return told, q.fault(ctx, "DeleteMessage", err)
}

func isHandle(code string) bool {
	return code == "ReceiptHandleIsInvalid" || code == "InvalidParameterValue"
}

// attributes reads the queue's. patient: a message handed out once more loses
// nothing, since none waits or none is set aside for it. An identity that may
// receive but not read attributes is fit: it is only told.
func (q *Queue) attributes(ctx context.Context) (told string, patient bool, err error) {
	const waiting = types.QueueAttributeNameApproximateNumberOfMessages
	out, err := q.api.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: aws.String(q.url), AttributeNames: []types.QueueAttributeName{waiting, types.QueueAttributeNameRedrivePolicy},
	})
	if fault := q.fault(ctx, "GetQueueAttributes", err); fault != nil {
		if !errors.Is(fault, oci.ErrDenied) {
			return "", false, fault
		}
		oci.Detour(ctx, fault)
		return "the queue answers", false, nil
	}
	n, _ := strconv.Atoi(out.Attributes[string(waiting)]) // a count that is none is 0
	var redrive struct {
		Most any `json:"maxReceiveCount"`
	}
	policy := out.Attributes[string(types.QueueAttributeNameRedrivePolicy)]
	if policy == "" {
		return fmt.Sprintf("%d messages wait; no queue for dead letters: what cannot be used is dropped", n), true, nil
	}
	_ = json.Unmarshal([]byte(policy), &redrive) // only shown
	return fmt.Sprintf("%d messages wait; dead letters are set aside after %v receives", n, redrive.Most), n == 0, nil
}
