package generic_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

// slow is a body that gives one byte each pause, then stalls.
type slow struct {
	req   *http.Request
	pause time.Duration
	left  int
}

func (s *slow) Read(p []byte) (int, error) {
	if s.left == 0 {
		<-s.req.Context().Done()
		return 0, s.req.Context().Err()
	}
	s.left--
	time.Sleep(s.pause)
	p[0] = 'x'
	return 1, nil
}

func (s *slow) Close() error { return nil }

func TestReadStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		repo := repository(t, "oci", roundTrip(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: 1000, Body: &slow{req, 50 * time.Second, 10}, Request: req}, nil
		}))
		r, err := repo.Fetch(t.Context(), v1.Descriptor{Digest: someDesc.Digest, Size: 1000})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		n, err := io.Copy(io.Discard, r)
		if n != 10 || !errors.Is(err, oci.ErrInterrupted) || time.Since(began) != 560*time.Second {
			t.Fatalf("%d bytes in %s, then %v; want 10, slow and steady, then an end after a minute", n, time.Since(began), err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A reader that takes its time is not the registry's fault.
func TestReaderTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		repo := repository(t, "oci", answering(200, nil, string(someBlob)))
		r, err := repo.Fetch(t.Context(), someDesc)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
	})
}

// stuck is a server that takes connections, reads and never answers.
func stuck(t *testing.T, read bool) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() { // ends with the listener
		var conns []net.Conn
		for {
			conn, err := listener.Accept()
			if err != nil {
				for _, conn := range conns {
					_ = conn.Close()
				}
				return
			}
			conns = append(conns, conn)
			if read {
				go func() { _, _ = io.Copy(io.Discard, conn) }()
			}
		}
	}()
	return "http://" + listener.Addr().String()
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	reg := client(t, stuck(t, true), func(s *generic.Spec) { s.Idle = 50 * time.Millisecond })
	if err := reg.Ping(t.Context()); !errors.Is(err, oci.ErrUnreachable) {
		t.Fatalf("got %v, want unreachable", err)
	}
}

// A destination that stops taking bytes ends the request.
func TestWriteStalls(t *testing.T) {
	t.Parallel()
	var sessions atomic.Int64
	var location string
	reg := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			providertest.Fail(w, 404, "BLOB_UNKNOWN", "no")
			return
		}
		sessions.Add(1)
		w.Header().Set("Location", location)
		w.WriteHeader(http.StatusAccepted)
	}), func(s *generic.Spec) { s.Idle, s.Redirects = 100*time.Millisecond, []string{"127.0.0.1"} })
	location = stuck(t, false) + "/session"
	desc := v1.Descriptor{Digest: someDesc.Digest, Size: 16 << 20}
	upload, _, err := reg.Repository("team/app").Start(t.Context(), desc, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = upload.Put(t.Context(), providertest.Bytes(make([]byte, desc.Size)))
	if !errors.Is(err, oci.ErrInterrupted) && !errors.Is(err, oci.ErrUnreachable) {
		t.Fatalf("got %v, want interrupted or unreachable", err)
	}
}
