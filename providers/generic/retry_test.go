package generic_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

// A reply is one answer of a script; err instead of one.
type reply struct {
	status     int
	retryAfter string
	err        error
}

// scripted answers in turn, the last for good.
func scripted(replies []reply, sent *int) http.RoundTripper {
	return roundTrip(func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			_, _ = io.Copy(io.Discard, req.Body)
			_ = req.Body.Close()
		}
		r := replies[min(*sent, len(replies)-1)]
		*sent++
		if r.err != nil {
			return nil, r.err
		}
		h := http.Header{"Content-Type": {v1.MediaTypeImageManifest}}
		if r.retryAfter != "" {
			h.Set("Retry-After", r.retryAfter)
		}
		body := string(someManifest.Bytes)
		return &http.Response{StatusCode: r.status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req}, nil
	})
}

func TestRetries(t *testing.T) {
	for _, c := range []struct {
		name    string
		replies []reply
		want    error // nil: it succeeds
		sent    int
		least   time.Duration // how long it took
		most    time.Duration
	}{
		{"at once", []reply{{status: 200}}, nil, 1, 0, 0},
		{"once more", []reply{{status: 503}, {status: 200}}, nil, 2, 100 * time.Millisecond, time.Second},
		{"reset", []reply{{err: syscall.ECONNRESET}, {err: io.EOF}, {status: 200}}, nil, 3, 200 * time.Millisecond, 2 * time.Second},
		{"never", []reply{{status: 503}}, oci.ErrUnreachable, 4, time.Second, 10 * time.Second},
		{"500", []reply{{status: 500}}, oci.ErrInterrupted, 4, time.Second, 10 * time.Second},
		{"499", []reply{{status: 499}, {status: 200}}, nil, 2, 100 * time.Millisecond, time.Second},
		{"408", []reply{{status: 408}, {status: 200}}, nil, 2, 100 * time.Millisecond, time.Second},
		{"522", []reply{{status: 522}, {status: 200}}, nil, 2, 100 * time.Millisecond, time.Second},
		{"refused connection", []reply{{err: syscall.ECONNREFUSED}}, oci.ErrUnreachable, 2, 0, time.Second},
		{"an open breaker", []reply{{err: oci.ErrUnreachable}}, oci.ErrUnreachable, 1, 0, 0},
		{"503 that asks for long", []reply{{status: 503, retryAfter: "60"}}, oci.ErrUnreachable, 1, 0, 0},
		{"503 that asks for little", []reply{{status: 503, retryAfter: "5"}, {status: 200}}, nil, 2, 5 * time.Second, 6 * time.Second},
		{"429", []reply{{status: 429, retryAfter: "30"}, {status: 200}}, nil, 2, 30 * time.Second, 30 * time.Second},
		{"429 as a Go duration", []reply{{status: 429, retryAfter: "880µs"}, {status: 200}}, nil, 2, 0, time.Millisecond},
		{"429 without a word", []reply{{status: 429}, {status: 429}, {status: 200}}, nil, 3, time.Second, 4 * time.Second},
		{"429 for long", []reply{{status: 429, retryAfter: "600"}}, errThrottled, 1, 0, 0},
		{"429 for good", []reply{{status: 429, retryAfter: "60"}}, errThrottled, 6, 5 * time.Minute, 5 * time.Minute},
		{"404", []reply{{status: 404}}, oci.ErrNotFound, 1, 0, 0},
		{"403", []reply{{status: 403}}, oci.ErrDenied, 1, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sent := 0
				repo := repository(t, "oci", scripted(c.replies, &sent))
				began := time.Now()
				_, err := repo.FetchManifest(t.Context(), someManifest.Digest.String())
				took := time.Since(began)
				var throttled *oci.ThrottledError
				switch {
				case c.want == errThrottled:
					if !errors.As(err, &throttled) || throttled.Wait == 0 {
						t.Fatalf("got %v, want throttled", err)
					}
				case !errors.Is(err, c.want) || c.want == nil && err != nil:
					t.Fatalf("got %v, want %v", err, c.want)
				}
				if sent != c.sent || took < c.least || took > c.most {
					t.Fatalf("%d requests in %s, want %d in %s to %s", sent, took, c.sent, c.least, c.most)
				}
			})
		})
	}
}

var errThrottled = errors.New("throttled")

func TestRetryEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		repo := repository(t, "oci", scripted([]reply{{status: 429, retryAfter: "60"}}, &sent))
		why := errors.New("no progress")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Second, func() { cancel(why) })
		began := time.Now()
		_, err := repo.FetchManifest(ctx, "v1")
		if !errors.Is(err, context.Canceled) || !errors.Is(err, why) || time.Since(began) != 10*time.Second {
			t.Fatalf("got %v after %s", err, time.Since(began))
		}
	})
}

// A stream is not sent again blindly: the session may have kept a part.
func TestStreamsAreNotRepeated(t *testing.T) {
	fake := &providertest.Fake{}
	broken := 0
	fake.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && broken == 0 {
			broken++
			_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		return false
	}
	repo := open(t, fake, nil).Repository("team/app")
	content := providertest.Random(3 << 20)
	desc := providertest.PushBlob(t, repo, content)
	if fake.Count("GET", "/uploads/") != 1 {
		t.Fatalf("the session was not asked: %v", fake.Requests())
	}
	if got, _ := fake.Blob("team/app", desc.Digest); len(got) != len(content) {
		t.Fatalf("%d bytes arrived", len(got))
	}
}

func TestUploadTakenUp(t *testing.T) {
	content := providertest.Random(6 << 20)
	for _, c := range []struct {
		name string
		// serve sees uploads' requests; true: it has answered
		serve func(f *providertest.Fake, w http.ResponseWriter, r *http.Request, puts int) bool
		size  int
		want  error
		puts  int
		patch int
	}{
		{"answer lost", func(f *providertest.Fake, w http.ResponseWriter, r *http.Request, puts int) bool {
			if puts == 1 {
				before := f.Before
				f.Before = nil
				f.ServeHTTP(discardWriter{http.Header{}}, r)
				f.Before = before
				panic(http.ErrAbortHandler)
			}
			return false
		}, 6 << 20, nil, 1, 0},
		{"answer of a small one lost", func(f *providertest.Fake, w http.ResponseWriter, r *http.Request, puts int) bool {
			if puts == 1 {
				before := f.Before
				f.Before = nil
				f.ServeHTTP(discardWriter{http.Header{}}, r)
				f.Before = before
				panic(http.ErrAbortHandler)
			}
			return false
		}, 1000, nil, 2, 0},
		{"cut", func(f *providertest.Fake, w http.ResponseWriter, r *http.Request, puts int) bool {
			if puts == 1 {
				r.Body = io.NopCloser(io.LimitReader(r.Body, 1<<20))
				r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "digest=", "ignored=", 1)
				before := f.Before
				f.Before = nil
				f.ServeHTTP(discardWriter{http.Header{}}, r)
				f.Before = before
				panic(http.ErrAbortHandler)
			}
			return false
		}, 6 << 20, nil, 2, 1},
		{"session gone", func(f *providertest.Fake, w http.ResponseWriter, r *http.Request, puts int) bool {
			providertest.Fail(w, 404, "BLOB_UPLOAD_UNKNOWN", "gone")
			return true
		}, 6 << 20, oci.ErrUploadUnknown, 1, 0},
		{"out of step", func(f *providertest.Fake, w http.ResponseWriter, r *http.Request, puts int) bool {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return true
		}, 1000, oci.ErrUploadUnknown, 1, 0},
		{"digest invalid though it is not", func(f *providertest.Fake, w http.ResponseWriter, r *http.Request, puts int) bool {
			providertest.Fail(w, 400, "DIGEST_INVALID", "no")
			return true
		}, 1000, oci.ErrUploadUnknown, 1, 0},
		{"too large", func(f *providertest.Fake, w http.ResponseWriter, r *http.Request, puts int) bool {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return true
		}, 6 << 20, oci.ErrRefused, 1, 0},
		{"stored otherwise", func(f *providertest.Fake, w http.ResponseWriter, r *http.Request, puts int) bool {
			w.Header().Set("Docker-Content-Digest", someDesc.Digest.String())
			w.WriteHeader(http.StatusCreated)
			return true
		}, 6 << 20, oci.ErrMismatch, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake := &providertest.Fake{}
			puts := 0
			fake.Before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPut {
					return false
				}
				puts++
				return c.serve(fake, w, r, puts)
			}
			repo := open(t, fake, nil).Repository("team/app")
			desc := providertest.Describe("", content[:c.size])
			upload, _, err := repo.Start(t.Context(), desc, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = upload.Put(t.Context(), providertest.Bytes(content[:c.size]))
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if puts != c.puts || fake.Count("PATCH", "") != c.patch {
				t.Fatalf("%d PUTs, %v", puts, fake.Requests())
			}
			if got, _ := fake.Blob("team/app", desc.Digest); c.want == nil && len(got) != c.size {
				t.Fatalf("%d bytes arrived", len(got))
			}
		})
	}
}

type discardWriter struct{ h http.Header }

func (d discardWriter) Header() http.Header         { return d.h }
func (d discardWriter) Write(p []byte) (int, error) { return len(p), nil }
func (d discardWriter) WriteHeader(int)             {}

// Where the content cannot be read again, the upload ends as a lost session.
func TestContentThatIsGone(t *testing.T) {
	fake := &providertest.Fake{}
	fake.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
			panic(http.ErrAbortHandler)
		}
		if r.Method == http.MethodGet {
			w.Header().Set("Range", "0-1048575")
			w.WriteHeader(http.StatusNoContent)
			return true
		}
		return false
	}
	content := providertest.Random(3 << 20)
	upload, _, err := open(t, fake, nil).Repository("team/app").Start(t.Context(), providertest.Describe("", content), nil)
	if err != nil {
		t.Fatal(err)
	}
	err = upload.Put(t.Context(), onceBody{content})
	if !errors.Is(err, oci.ErrUploadUnknown) || errors.Is(err, oci.ErrUnsupported) {
		t.Fatalf("got %v, want a lost session", err)
	}
}

type onceBody struct{ providertest.Bytes }

func (b onceBody) Open(ctx context.Context, offset int64) (io.ReadCloser, error) {
	if offset > 0 {
		return nil, oci.ErrUnsupported
	}
	return b.Bytes.Open(ctx, offset)
}

// A registry that takes no chunks gets no second request on a broken session.
func TestNoResume(t *testing.T) {
	fake := &providertest.Fake{}
	fake.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			panic(http.ErrAbortHandler)
		}
		return false
	}
	server := open(t, fake, nil) // for its address
	spec := generic.Spec{Name: "eu", Host: strings.TrimPrefix(server.Identity(), "oci://"), PlainHTTP: true, Auth: generic.Auth{Anonymous: true}}
	reg, err := generic.NewWith(spec, http.DefaultTransport, generic.Ways{})
	if err != nil {
		t.Fatal(err)
	}
	content := providertest.Random(3 << 20) // more than is sent again unasked
	upload, _, err := reg.Repository("team/app").Start(t.Context(), providertest.Describe("", content), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := upload.Offset(t.Context()); !errors.Is(err, oci.ErrUnsupported) {
		t.Fatalf("offset: got %v, want unsupported", err)
	}
	if err := upload.Put(t.Context(), providertest.Bytes(content)); !errors.Is(err, oci.ErrUploadUnknown) {
		t.Fatalf("put: got %v, want a lost session", err)
	}
	if n := len(fake.Requests()); n != 2 {
		t.Fatalf("%d requests: %v", n, fake.Requests())
	}
}

// A server that closes kept connections loses no small PUT.
func TestClosedConnections(t *testing.T) {
	fake := &providertest.Fake{}
	fake.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		// answer, and close the connection without a word
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return true
		}
		_, _ = buf.WriteString("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nLocation: /session\r\n\r\n")
		_ = buf.Flush()
		_ = conn.Close()
		return true
	}
	stored := 0
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/session" && r.Method == http.MethodGet: // what the transport would not send again
			w.Header().Set("Range", "0-0")
			w.WriteHeader(http.StatusNoContent)
			return
		case r.URL.Path == "/session":
			stored++
			w.WriteHeader(http.StatusCreated)
			return
		}
		fake.ServeHTTP(w, r)
	})
	repo := open(t, handler, nil).Repository("team/app")
	for range 40 {
		upload, _, err := repo.Start(t.Context(), someDesc, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := upload.Put(t.Context(), providertest.Bytes(someBlob)); err != nil {
			t.Fatal(err)
		}
	}
	if stored != 40 {
		t.Fatalf("%d of 40 PUTs arrived", stored)
	}
}
