package intake

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// witnesses decode nothing, and witness as they are told.
type witnesses struct {
	err   error
	asked *[]bool
}

func (p witnesses) Decode(http.Header, []byte) replicator.Decoded {
	return replicator.Decoded{Ignored: 1}
}

func (p witnesses) Prove(_ context.Context, _ http.Header, _ []byte, known bool) error {
	*p.asked = append(*p.asked, known)
	return p.err
}

func TestWitness(t *testing.T) {
	secret := []func() (string, error){func() (string, error) { return "right", nil }}
	for name, c := range map[string]struct {
		secrets []func() (string, error)
		key     string
		err     error
		want    int
		asked   []bool
	}{
		"proven":           {secret, "right", nil, http.StatusAccepted, []bool{true}},
		"no secret asked":  {nil, "", nil, http.StatusAccepted, []bool{false}},
		"forged":           {secret, "right", oci.ErrDenied, http.StatusUnauthorized, []bool{true}},
		"cannot be told":   {secret, "right", errors.New("no answer"), http.StatusServiceUnavailable, []bool{true}},
		"the wrong secret": {secret, "wrong", nil, http.StatusUnauthorized, nil},
	} {
		var asked []bool
		i := New(Options{Accept: func(context.Context, []replicator.Event, []replicator.Finding, []string) (int, error) { return 0, nil }})
		i.Swap([]Registry{{Name: "eu", Secrets: c.secrets, Decoder: witnesses{c.err, &asked}}})
		w := httptest.NewRecorder()
		i.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/hooks/eu?key="+c.key, strings.NewReader("{}")))
		if w.Code != c.want || len(asked) != len(c.asked) || len(asked) > 0 && asked[0] != c.asked[0] {
			t.Errorf("%s: %d, asked %v; want %d, %v", name, w.Code, asked, c.want, c.asked)
		}
	}
}

func TestTold(t *testing.T) {
	registry := Registry{Name: "eu", Prefix: "team"}
	d := replicator.Decoded{Events: []replicator.Event{
		{Action: replicator.Push, Repository: "team/app", Tag: "v1"},
		{Action: replicator.Push, Repository: "other/app", Tag: "v1"},
	}}
	events, findings, due := registry.Told(d, oldest)
	if len(events) != 1 || events[0].Repository != "app" || events[0].Registry != "eu" || findings != nil || due != nil {
		t.Errorf("%+v %+v %v", events, findings, due)
	}
	var bad replicator.Decoded
	bad.Refuse("no event")
	if events, findings, due = registry.Told(bad, oldest); events != nil || len(findings) != 1 || len(due) != 1 {
		t.Errorf("%+v %+v %v", events, findings, due)
	}
}
