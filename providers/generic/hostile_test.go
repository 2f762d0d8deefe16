package generic_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

// endless writes a body until the client has had enough, at most 1 GiB.
func endless(header map[string]string, begin, piece string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range header {
			w.Header().Set(name, value)
		}
		_, _ = io.WriteString(w, begin)
		chunk := strings.Repeat(piece, 64<<10/len(piece))
		for range 1 << 30 / len(chunk) {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
	}
}

// whole answers with a body and, where told, headers.
func whole(header map[string]string, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range header {
			w.Header().Set(name, value)
		}
		_, _ = io.WriteString(w, body)
	}
}

// raw answers with bytes as they are, beneath HTTP, and hangs up.
func raw(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, answer)
		_ = conn.Close()
	}
}

func challenge(realm string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="x"`, strings.ReplaceAll(realm, "HOST", "http://"+r.Host)))
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// tokens serves a token endpoint beside a registry that asks for tokens.
func tokens(endpoint http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			endpoint(w, r)
			return
		}
		challenge("HOST/token")(w, r)
	}
}

// elsewhere answers an upload's POST with a session somewhere else; what comes
// here after that is told.
func elsewhere(location string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", location)
		w.WriteHeader(http.StatusAccepted)
	}
}

func put(ctx context.Context, r oci.Repository) error {
	upload, _, err := r.Start(ctx, someDesc, nil)
	if err != nil {
		return err
	}
	return upload.Put(ctx, providertest.Bytes(someBlob))
}

func readBlob(ctx context.Context, r oci.Repository) error {
	body, err := r.Fetch(ctx, someDesc)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(io.Discard, oci.NewHashingReader(body, someDesc))
	return err
}

func listTags(ctx context.Context, r oci.Repository) error {
	for _, err := range r.Tags(ctx) {
		if err != nil {
			return err
		}
	}
	return nil
}

func listReferrers(ctx context.Context, r oci.Repository) error {
	for _, err := range r.Referrers(ctx, someDesc.Digest) {
		if err != nil {
			return err
		}
	}
	return nil
}

func byTag(ctx context.Context, r oci.Repository) error {
	_, err := r.FetchManifest(ctx, "v1")
	return err
}

func byDigest(ctx context.Context, r oci.Repository) error {
	_, err := r.FetchManifest(ctx, someDesc.Digest.String())
	return err
}

func head(ctx context.Context, r oci.Repository) error {
	_, err := r.Resolve(ctx, someDesc.Digest.String())
	return err
}

func stat(ctx context.Context, r oci.Repository) error {
	_, err := r.Stat(ctx, someDesc.Digest)
	return err
}

// TestHostileRegistry: one hostile answer per line. Each is refused with a
// clear error of its kind, in one bounded line without control characters; what
// it takes is bounded; and nothing is left running.
func TestHostileRegistry(t *testing.T) {
	const mib = 1 << 20
	before := runtime.NumGoroutine()
	t.Cleanup(func() { // after the last of them
		for range 1000 {
			if runtime.NumGoroutine() <= before {
				return
			}
			runtime.GC()
		}
		stacks := make([]byte, 64<<10)
		t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
	})
	image := map[string]string{"Content-Type": v1.MediaTypeImageManifest}
	index := map[string]string{"Content-Type": v1.MediaTypeImageIndex}
	other := digest.FromString("other").String()
	for _, c := range []struct {
		name  string
		serve http.HandlerFunc
		do    func(context.Context, oci.Repository) error
		want  error
		say   string // in the error
	}{
		// bodies
		{"a manifest without end", endless(image, "", "x"), byTag, oci.ErrTooLarge, "4194304 bytes"},
		{"a tag list without end", endless(nil, `{"tags":[`, `"a",`), listTags, oci.ErrTooLarge, "16777216 bytes"},
		{"referrers without end", endless(index, `{"manifests":[`, `{},`), listReferrers, oci.ErrTooLarge, "16777216 bytes"},
		{"an error without end", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			endless(nil, `{"errors":[{"message":"`, "x")(w, r)
		}, byTag, oci.ErrDenied, "403"},
		{"a redirect with a body without end", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://169.254.169.254/")
			w.WriteHeader(http.StatusFound)
			endless(nil, "", "x")(w, r)
		}, byTag, oci.ErrDenied, "private network"},
		{"a challenge with a body without end", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			endless(nil, "", "x")(w, r)
		}, byTag, oci.ErrDenied, "401"},
		{"a blob without end", endless(nil, "", "x"), readBlob, oci.ErrMismatch, "longer than"},
		{"a million empty tags", whole(nil, `{"tags":[`+strings.Repeat(`"",`, mib)+`""]}`), listTags, oci.ErrTooLarge, "400000 values"},
		{"a million lists for tags", whole(nil, `{"tags":[`+strings.Repeat(`[],`, mib)+`""]}`), listTags, oci.ErrTooLarge, "400000 values"},
		{"a million empty referrers", whole(index, `{"manifests":[`+strings.Repeat(`{},`, mib)+`{}]}`), listReferrers, oci.ErrTooLarge, "400000 values"},
		{"a million values in a manifest", whole(image, `{"a":[`+strings.Repeat(`1,`, mib)+`1]}`), byTag, oci.ErrTooLarge, "400000 values"},
		{"depth", whole(nil, `{"tags":`+strings.Repeat("[", mib)+strings.Repeat("]", mib)+`}`), listTags, oci.ErrTooLarge, "400000 values"},
		{"some depth", whole(nil, `{"tags":`+strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)+`}`), listTags, oci.ErrInvalid, "no list"},
		{"gzip nobody asked for", whole(map[string]string{"Content-Encoding": "gzip"}, strings.Repeat("\x1f\x8b\x08", 100)), readBlob, oci.ErrInvalid, "encoded as gzip"},
		{"a list in gzip", whole(map[string]string{"Content-Encoding": "gzip"}, "\x1f\x8b\x08\x00"), listTags, oci.ErrInvalid, "no list"},
		// lengths
		{"more than Content-Length says", raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + strings.Repeat("x", 100)), readBlob, oci.ErrMismatch, "gives 5 bytes"},
		{"less than Content-Length says", raw("HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n{}"), byTag, oci.ErrInterrupted, ""},
		{"a Content-Length of exabytes", raw("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n{}"), byTag, oci.ErrInterrupted, ""},
		{"a Content-Length beyond 64 bits", raw("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}"), byTag, oci.ErrInterrupted, ""},
		{"a negative Content-Length", raw("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}"), byTag, oci.ErrInterrupted, ""},
		{"two Content-Lengths", raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), byTag, oci.ErrInterrupted, ""},
		{"a broken chunk", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx"), byTag, oci.ErrInterrupted, ""},
		{"no HTTP", raw("SSH-2.0-OpenSSH_9.6\r\n"), byTag, oci.ErrInterrupted, ""},
		// headers
		{"headers without end", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			line := "X-Flood: " + strings.Repeat("x", 4000) + "\r\n"
			for range 100_000 {
				if _, err := io.WriteString(conn, line); err != nil {
					return
				}
			}
		}, byTag, oci.ErrInterrupted, "headers exceeded"},
		{"early hints without end", raw(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 100_000)), byTag, oci.ErrInterrupted, "headers exceeded"},
		{"a Link header of a megabyte", whole(map[string]string{"Link": "<" + strings.Repeat("x", mib/2) + `>; rel="next"`}, `{"tags":["a"]}`), listTags, oci.ErrInvalid, "too long"},
		{"a thousand Link headers", func(w http.ResponseWriter, _ *http.Request) {
			for i := range 1000 {
				w.Header().Add("Link", fmt.Sprintf(`<?last=%d>; rel="prev"`, i))
			}
			_, _ = io.WriteString(w, `{"tags":["a"]}`)
		}, listTags, nil, ""},
		{"a Link to another host", whole(map[string]string{"Link": `<http://169.254.169.254/v2/team/app/tags/list?last=a>; rel="next"`}, `{"tags":["a"]}`), listTags, oci.ErrInvalid, "another host"},
		{"a Link with a path trick", whole(map[string]string{"Link": `</v2/team/app/tags/list/../../../_catalog?last=a>; rel="next"`}, `{"tags":["a"]}`), listTags, oci.ErrInvalid, "another list"},
		{"another content type", whole(map[string]string{"Content-Type": "text/html"}, "<html>"), byDigest, oci.ErrMismatch, ""},
		{"a content type of a megabyte", whole(map[string]string{"Content-Type": "a/" + strings.Repeat("b", mib/2)}, "{}"), byDigest, oci.ErrMismatch, ""},
		{"another digest told", whole(map[string]string{"Content-Type": v1.MediaTypeImageManifest, "Docker-Content-Digest": other}, "{}"), byTag, oci.ErrMismatch, ""},
		{"another digest told by HEAD", whole(map[string]string{"Content-Type": v1.MediaTypeImageManifest, "Docker-Content-Digest": other, "Content-Length": "2"}, "{}"), head, oci.ErrMismatch, ""},
		{"a digest of a strange algorithm", whole(map[string]string{"Content-Type": v1.MediaTypeImageManifest, "Docker-Content-Digest": "md5:../../etc/passwd"}, "{}"), byTag, nil, ""},
		{"line ends in the error", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED\n\u001b[2J","message":"a\r\nlevel=error msg=\u001b]0;owned\u0007 \u202eforged"}]}`)
		}, byTag, oci.ErrDenied, "level=error"},
		// lists
		{"pages without end", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `<?last=again>; rel="next"`)
			_, _ = io.WriteString(w, `{"tags":["a`+r.URL.Query().Get("last")+`"]}`)
		}, listTags, oci.ErrInvalid, "leads back"},
		{"pages of nothing", func(w http.ResponseWriter, r *http.Request) {
			n, _ := strconv.Atoi(r.URL.Query().Get("last"))
			w.Header().Set("Link", fmt.Sprintf(`<?last=%d>; rel="next"`, n+1))
			_, _ = io.WriteString(w, `{"tags":[]}`)
		}, listTags, oci.ErrInvalid, "no end"},
		{"pages of one name", func(w http.ResponseWriter, r *http.Request) {
			n, _ := strconv.Atoi(r.URL.Query().Get("last"))
			w.Header().Set("Link", fmt.Sprintf(`<?last=%d>; rel="next"`, n+1))
			_, _ = io.WriteString(w, `{"tags":["one"]}`)
		}, listTags, oci.ErrInvalid, "repeats"},
		{"referrers that lead back", whole(map[string]string{"Content-Type": v1.MediaTypeImageIndex, "Link": `<?p=1>; rel="next"`}, `{"manifests":[]}`), listReferrers, oci.ErrInvalid, "leads back"},
		{"a referrer of a strange digest", whole(index, `{"manifests":[{"digest":"sha256:../../x","size":1}]}`), listReferrers, oci.ErrInvalid, "digest"},
		// where it sends us
		{"a redirect to the metadata service", elsewhere302("http://169.254.169.254/latest/meta-data/"), readBlob, oci.ErrDenied, "redirects.allow"},
		{"a redirect to it in IPv6", elsewhere302("https://[fd00:ec2::254]/latest/"), readBlob, oci.ErrDenied, "redirects.allow"},
		{"a redirect to it as IPv4 in IPv6", elsewhere302("https://[::ffff:169.254.169.254]/"), readBlob, oci.ErrDenied, "redirects.allow"},
		{"a redirect to it by translation", elsewhere302("https://[64:ff9b::a9fe:a9fe]/"), readBlob, oci.ErrDenied, "redirects.allow"},
		{"a redirect to loopback by name", elsewhere302("https://localhost/"), readBlob, oci.ErrDenied, "redirects.allow"},
		{"a redirect to a private address", elsewhere302("https://10.0.0.1/"), readBlob, oci.ErrDenied, "redirects.allow"},
		{"a redirect to a number", elsewhere302("https://2130706433/"), readBlob, oci.ErrUnreachable, ""},
		{"a redirect to a public host without TLS", elsewhere302("http://8.8.8.8/"), readBlob, oci.ErrDenied, "without TLS"},
		{"a redirect to a file", elsewhere302("file:///etc/passwd"), readBlob, oci.ErrInvalid, "no http address"},
		{"a redirect to itself", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, readBlob, oci.ErrInvalid, "without end"},
		{"redirects without end", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
		}, readBlob, oci.ErrInvalid, "without end"},
		{"a Location of 100 kB", elsewhere302("/" + strings.Repeat("x", 100_000)), readBlob, oci.ErrInvalid, "no usable Location"},
		{"a session at a private address", elsewhere("http://169.254.169.254/upload"), put, oci.ErrDenied, "redirects.allow"},
		{"a session at loopback by name", elsewhere("https://localhost:1/upload"), put, oci.ErrDenied, "redirects.allow"},
		{"a session in a file", elsewhere("file:///etc/passwd"), put, oci.ErrInvalid, ""},
		{"a HEAD that redirects to a private address", elsewhere302("http://192.168.0.1/"), stat, oci.ErrDenied, "redirects.allow"},
		// tokens
		{"a realm at the metadata service", challenge("http://169.254.169.254/token"), byTag, oci.ErrDenied, "redirects.allow"},
		{"a realm at loopback", challenge("https://localhost/token"), byTag, oci.ErrDenied, "redirects.allow"},
		{"a realm in a file", challenge("file:///etc/passwd"), byTag, oci.ErrDenied, ""},
		{"a token without end", tokens(endless(nil, `{"token":"`, "x")), byTag, oci.ErrTooLarge, "1048576 bytes"},
		{"a token of 100 kB", tokens(whole(nil, `{"token":"`+strings.Repeat("x", 100_000)+`"}`)), byTag, oci.ErrInvalid, "no usable token"},
		{"a token with a line end", tokens(whole(nil, `{"token":"a\r\nX-Evil: 1"}`)), byTag, oci.ErrInvalid, "no usable token"},
		{"a token of a million values", tokens(whole(nil, `{"a":[`+strings.Repeat("1,", 450_000)+`1]}`)), byTag, oci.ErrTooLarge, "400000 values"},
		{"a token endpoint that redirects away", tokens(elsewhere302("http://169.254.169.254/")), byTag, oci.ErrInvalid, ""},
		{"a token that never satisfies", tokens(whole(nil, `{"token":"t"}`)), byTag, oci.ErrDenied, "401"},
		{"challenges without end", func(w http.ResponseWriter, _ *http.Request) {
			for range 1000 {
				w.Header().Add("WWW-Authenticate", `Digest a="`+strings.Repeat("x", 500)+`"`)
			}
			w.WriteHeader(http.StatusUnauthorized)
		}, byTag, oci.ErrDenied, "401"},
		// waiting
		{"a wait of a century", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3153600000")
			w.WriteHeader(http.StatusTooManyRequests)
		}, byTag, errTold, "15m0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want != oci.ErrTooLarge { // what those take is measured
				t.Parallel()
			}
			server := httptest.NewServer(c.serve)
			defer server.Close()
			spec := generic.Spec{
				Name: "eu", Host: strings.TrimPrefix(server.URL, "http://"), PlainHTTP: true,
				Auth: generic.Auth{Username: "robot", Password: func() (string, error) { return "hunter22", nil }},
			}
			transport, err := generic.Transport(spec)
			if err != nil {
				t.Fatal(err)
			}
			defer transport.CloseIdleConnections()
			reg, err := generic.New(spec, transport)
			if err != nil {
				t.Fatal(err)
			}
			var from, to runtime.MemStats
			runtime.ReadMemStats(&from)
			err = c.do(t.Context(), reg.Repository("team/app"))
			runtime.ReadMemStats(&to)
			var throttled *oci.ThrottledError
			if c.want == errTold && errors.As(err, &throttled) {
				c.want = err
			}
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Errorf("got %.500v, want %v", err, c.want)
			}
			if err != nil {
				text := err.Error()
				if !strings.Contains(text, c.say) || len(text) > 1000 || strings.ContainsAny(text, "\n\r\x1b\x07\u202e") {
					t.Errorf("the error does not say %q, or is unfit to be shown: %.1000q", c.say, text)
				}
				if strings.Contains(text, "hunter22") {
					t.Errorf("the error holds the password: %s", text)
				}
			}
			// What this test's own server makes for itself is counted with it.
			if took := to.TotalAlloc - from.TotalAlloc; c.want == oci.ErrTooLarge && took > 200*mib {
				t.Errorf("%d MiB were taken", took/mib)
			}
		})
	}
}

// errTold stands for a *oci.ThrottledError.
var errTold = errors.New("throttled")

func elsewhere302(location string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", location)
		w.WriteHeader(http.StatusFound)
	}
}

// drip gives a byte every 50 seconds: never idle for long enough to be ended
// for that.
type drip struct{ ctx context.Context }

func (d drip) Read(p []byte) (int, error) {
	select {
	case <-time.After(50 * time.Second):
		p[0] = ' '
		return 1, nil
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	}
}

func dripping(status int, header http.Header) http.RoundTripper {
	return roundTrip(func(req *http.Request) (*http.Response, error) {
		if header == nil {
			header = http.Header{}
		}
		return &http.Response{
			StatusCode: status, Header: header.Clone(), ContentLength: -1, Request: req, Body: io.NopCloser(drip{req.Context()}),
		}, nil
	})
}

// TestAnswersThatDrip: what is read whole has a time of its own. (Blobs do not:
// there slow but steady is left alone, and only a minute without a byte ends.)
func TestAnswersThatDrip(t *testing.T) {
	for name, do := range map[string]func(context.Context, oci.Repository) error{
		"manifest": byTag, "tags": listTags, "referrers": listReferrers,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				err := do(t.Context(), repository(t, "oci", dripping(200, http.Header{"Content-Type": {v1.MediaTypeImageIndex}})))
				if !errors.Is(err, oci.ErrInterrupted) || time.Since(began) > 6*time.Minute {
					t.Errorf("after %s: %v", time.Since(began), err)
				}
			})
		})
	}
	t.Run("refusal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			err := byTag(t.Context(), repository(t, "oci", dripping(403, nil)))
			if !errors.Is(err, oci.ErrDenied) || time.Since(began) > 6*time.Minute {
				t.Errorf("after %s: %v", time.Since(began), err)
			}
		})
	})
	t.Run("redirect", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			err := readBlob(t.Context(), repository(t, "oci", dripping(302, http.Header{"Location": {"http://10.0.0.1/"}})))
			if !errors.Is(err, oci.ErrDenied) || time.Since(began) > 10*time.Second {
				t.Errorf("after %s: %v", time.Since(began), err)
			}
		})
	})
}

// TestLargeAnswersWait: a registry has few large answers under way at once,
// however many are asked of it, and small ones pass beside them.
func TestLargeAnswersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		large := repository(t, "oci", roundTrip(func(req *http.Request) (*http.Response, error) {
			body := io.Reader(&slow{req: req, pause: 0, left: 100 << 10})
			if strings.HasSuffix(req.URL.Path, "/small") {
				body = strings.NewReader("{}")
			}
			return &http.Response{
				StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {v1.MediaTypeImageManifest}}, ContentLength: -1, Request: req,
				Body: io.NopCloser(body),
			}, nil
		}))
		done := make(chan error, 20)
		for range cap(done) {
			go func() { done <- byTag(ctx, large) }()
		}
		synctest.Wait()
		if _, err := large.FetchManifest(ctx, "small"); err != nil {
			t.Errorf("beside large ones: %v", err)
		}
		cancel()
		for range cap(done) {
			if err := <-done; err == nil {
				t.Error("an answer that stalls is one")
			}
		}
	})
}
