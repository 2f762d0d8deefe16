package intake

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/twinport/twinport/replicator"
)

type silentDecoder struct{}

func (silentDecoder) Decode(http.Header, []byte) replicator.Decoded {
	return replicator.Decoded{Ignored: 1}
}

func TestLargeBodiesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := func() *http.Request {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/hooks/eu", strings.NewReader(strings.Repeat(" ", smallBody+1)))
			if err != nil {
				t.Fatal(err)
			}
			return req
		}
		g := make(gate, 1)
		_, first, err := readBody(large(), g)
		if err != nil {
			t.Fatal(err)
		}
		_, second, err := readBody(large(), g)
		if !errors.Is(err, errBusy) {
			t.Errorf("a second beside the first: %v", err)
		}
		second()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := readBody(large().WithContext(ctx), g); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled while waiting: %v", err)
		}
		first()
		body, third, err := readBody(large(), g)
		if err != nil || len(body) != smallBody+1 {
			t.Errorf("after the first: %d bytes, %v", len(body), err)
		}
		third()
		if len(g) != 0 {
			t.Error("a place is kept")
		}
	})
}

func TestSlowBodyIsToldSo(t *testing.T) {
	in := New(Options{})
	in.Swap([]Registry{{Name: "eu", Decoder: silentDecoder{}}})
	for want, err := range map[int]error{http.StatusRequestTimeout: os.ErrDeadlineExceeded, http.StatusBadRequest: io.ErrUnexpectedEOF} {
		req, reqErr := http.NewRequestWithContext(t.Context(), http.MethodPost, "/hooks/eu", iotest.ErrReader(err))
		if reqErr != nil {
			t.Fatal(reqErr)
		}
		if got := in.receive(req, Registry{Name: "eu"}, http.NewResponseController(nil)); got.status != want {
			t.Errorf("%v: %d, want %d", err, got.status, want)
		}
	}
}
