package clouds

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/twinport/twinport/integration/harness"
	"github.com/twinport/twinport/providers/providertest"
)

const (
	topic        = "projects/" + Project + "/topics/gcr"
	subscription = "projects/" + Project + "/subscriptions/twinport"
	// pullWait is how long a pull waits for a message.
	pullWait = 20 * time.Second
)

// A PubSub is Google's own fake of Pub/Sub, with the REST face of the real one:
// its JSON is the protocol's, and it lets in who the fake of Google lets in.
type PubSub struct {
	google *providertest.Google
	server *pstest.Server
	client pubsubpb.SubscriberClient
}

func startPubSub(t harness.T, google *providertest.Google) *PubSub {
	t.Helper()
	p := &PubSub{google: google, server: pstest.NewServerWithAddress("127.0.0.1:0")}
	conn, err := grpc.NewClient(p.server.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatalf("pub/sub: %v", err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = p.server.Close()
	})
	p.client = pubsubpb.NewSubscriberClient(conn)
	if _, err := pubsubpb.NewPublisherClient(conn).CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatalf("pub/sub: %v", err)
	}
	if _, err := p.client.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: subscription, Topic: topic, AckDeadlineSeconds: 10}); err != nil {
		t.Fatalf("pub/sub: %v", err)
	}
	return p
}

// publish publishes to the topic, and gives the message as a push subscription
// delivers it.
func (p *PubSub) publish(data []byte) []byte {
	id := p.server.Publish(topic, data, nil)
	delivery, _ := json.Marshal(map[string]any{
		"message": map[string]string{
			"data": base64.StdEncoding.EncodeToString(data), "messageId": id, "publishTime": time.Now().UTC().Format(time.RFC3339Nano),
		},
		"subscription": subscription,
	})
	return delivery
}

// Messages is how many messages were published, and how many acknowledged.
func (p *PubSub) Messages() (published, acknowledged int) {
	for _, m := range p.server.Messages() {
		published++
		acknowledged += min(m.Acks, 1)
	}
	return published, acknowledged
}

// ServeHTTP serves the methods of a subscription.
func (p *PubSub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, method, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/"), ":")
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	switch {
	case err != nil:
		return
	case !p.google.LetsIn(r):
		fail(w, http.StatusUnauthorized, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
		return
	case r.Method != http.MethodPost:
		fail(w, http.StatusNotFound, "NOT_FOUND", "no such method")
		return
	}
	var in, out proto.Message
	var call func(ctx context.Context) (proto.Message, error)
	switch method {
	case "pull":
		request := &pubsubpb.PullRequest{}
		in, call = request, func(ctx context.Context) (proto.Message, error) {
			request.Subscription = name
			return p.pull(ctx, request)
		}
	case "acknowledge":
		request := &pubsubpb.AcknowledgeRequest{}
		in, call = request, func(ctx context.Context) (proto.Message, error) {
			request.Subscription = name
			return p.client.Acknowledge(ctx, request)
		}
	case "modifyAckDeadline":
		request := &pubsubpb.ModifyAckDeadlineRequest{}
		in, call = request, func(ctx context.Context) (proto.Message, error) {
			request.Subscription = name
			return p.client.ModifyAckDeadline(ctx, request)
		}
	default:
		fail(w, http.StatusNotFound, "NOT_FOUND", "no such method")
		return
	}
	if err := protojson.Unmarshal(body, in); err != nil {
		fail(w, http.StatusBadRequest, "INVALID_ARGUMENT", err.Error())
		return
	}
	if out, err = call(r.Context()); err != nil {
		code := map[codes.Code]int{codes.NotFound: http.StatusNotFound, codes.InvalidArgument: http.StatusBadRequest}[status.Code(err)]
		if code == 0 {
			code = http.StatusServiceUnavailable
		}
		fail(w, code, strings.ToUpper(status.Code(err).String()), err.Error())
		return
	}
	text, err := protojson.Marshal(out)
	if err != nil {
		fail(w, http.StatusInternalServerError, "INTERNAL", err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
}

// pull waits for messages as the real one does; Google's fake gives up after
// half a second.
func (p *PubSub) pull(ctx context.Context, request *pubsubpb.PullRequest) (*pubsubpb.PullResponse, error) {
	end := time.Now().Add(pullWait)
	for {
		got, err := p.client.Pull(ctx, request)
		if err != nil || len(got.GetReceivedMessages()) > 0 || time.Now().After(end) {
			return got, err
		}
	}
}

func fail(w http.ResponseWriter, code int, name, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "status": name, "message": message}})
}
