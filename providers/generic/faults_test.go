package generic_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

// answering is a transport that gives one answer to everything.
func answering(status int, header http.Header, body string) http.RoundTripper {
	return roundTrip(func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			_, _ = io.Copy(io.Discard, req.Body)
			_ = req.Body.Close()
		}
		h := header.Clone()
		if h == nil {
			h = http.Header{}
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req}, nil
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func errorBody(code, message string) string {
	return fmt.Sprintf(`{"errors":[{"code":%q,"message":%q,"detail":null}]}`, code, message)
}

func repository(t *testing.T, kind string, rt http.RoundTripper) oci.Repository {
	t.Helper()
	reg, err := providers.Open(generic.Spec{Name: "eu", Kind: kind, Host: "registry.example", Auth: generic.Auth{Anonymous: true}}, rt)
	if err != nil {
		t.Fatal(err)
	}
	return reg.Repository("team/app")
}

var (
	someBlob     = []byte("some content")
	someDesc     = providertest.Describe(v1.MediaTypeImageLayer, someBlob)
	someManifest = providertest.Image(nil, someDesc)
)

func operations() map[string]func(context.Context, oci.Repository) error {
	return map[string]func(context.Context, oci.Repository) error{
		"get manifest": func(ctx context.Context, r oci.Repository) error { _, err := r.FetchManifest(ctx, "v1"); return err },
		"put manifest": func(ctx context.Context, r oci.Repository) error {
			_, err := r.PushManifest(ctx, "v1", someManifest)
			return err
		},
		"head manifest": func(ctx context.Context, r oci.Repository) error { _, err := r.Resolve(ctx, "v1"); return err },
		"get blob":      func(ctx context.Context, r oci.Repository) error { _, err := r.Fetch(ctx, someDesc); return err },
		"head blob":     func(ctx context.Context, r oci.Repository) error { _, err := r.Stat(ctx, someDesc.Digest); return err },
		"start": func(ctx context.Context, r oci.Repository) error {
			_, _, err := r.Start(ctx, someDesc, nil)
			return err
		},
		"put 512": func(ctx context.Context, r oci.Repository) error {
			m := someManifest
			m.Digest = digest.SHA512.FromBytes(m.Bytes)
			_, err := r.PushManifest(ctx, m.Digest.String(), m)
			return err
		},
		"tags": func(ctx context.Context, r oci.Repository) error {
			for _, err := range r.Tags(ctx) {
				return err
			}
			return nil
		},
		"referrers": func(ctx context.Context, r oci.Repository) error {
			for _, err := range r.Referrers(ctx, someDesc.Digest) {
				return err
			}
			return nil
		},
	}
}

func TestClassification(t *testing.T) {
	for _, c := range []struct {
		operation string
		status    int
		body      string
		want      error
		kind      string // of registry, oci where empty
		hint      string
	}{
		{"get manifest", 401, errorBody("UNAUTHORIZED", "no"), oci.ErrDenied, "", "auth"},
		{"get manifest", 403, errorBody("DENIED", "no"), oci.ErrDenied, "", "pull"},
		{"put manifest", 403, errorBody("DENIED", "no"), oci.ErrDenied, "", "push"},
		{"get manifest", 403, "<html>blocked</html>", oci.ErrDenied, "", ""},
		{"get manifest", 404, errorBody("MANIFEST_UNKNOWN", "no"), oci.ErrNotFound, "", ""},
		{"get manifest", 404, errorBody("NAME_UNKNOWN", "no"), oci.ErrRepositoryUnknown, "", ""},
		{"get manifest", 404, "", oci.ErrNotFound, "", ""},
		{"head manifest", 404, "", oci.ErrNotFound, "", ""},
		{"get blob", 404, errorBody("BLOB_UNKNOWN", "no"), oci.ErrNotFound, "", ""},
		{"head blob", 404, "", oci.ErrNotFound, "", ""},
		{"head blob", 403, "", oci.ErrDenied, "", ""},
		{"tags", 404, errorBody("NAME_UNKNOWN", "no"), oci.ErrRepositoryUnknown, "", ""},
		{"tags", 404, "", oci.ErrRepositoryUnknown, "", ""},
		{"tags", 403, errorBody("DENIED", "no"), oci.ErrDenied, "", ""},
		{"tags", 200, "<html>", oci.ErrInvalid, "", ""},
		{"tags", 200, `{"tags":"v1"}`, oci.ErrInvalid, "", ""},
		{"start", 404, errorBody("NAME_UNKNOWN", "no"), oci.ErrRepositoryUnknown, "", "create"},
		{"start", 404, "", oci.ErrRepositoryUnknown, "", "create"},
		{"start", 202, "", oci.ErrInvalid, "", ""},
		{"start", 405, errorBody("UNSUPPORTED", "read-only"), oci.ErrRefused, "", "read-only"},
		{"put manifest", 400, errorBody("MANIFEST_BLOB_UNKNOWN", "no"), oci.ErrBlobUnknown, "", ""},
		{"put manifest", 404, errorBody("MANIFEST_UNKNOWN", "sub-manifest"), oci.ErrBlobUnknown, "", ""},
		{"put manifest", 404, errorBody("BLOB_UNKNOWN", "no"), oci.ErrBlobUnknown, "", ""},
		{"put manifest", 400, errorBody("MANIFEST_INVALID", "no"), oci.ErrRefused, "", ""},
		{"put manifest", 413, "", oci.ErrRefused, "", "size"},
		{"put manifest", 400, errorBody("SIZE_INVALID", "no"), oci.ErrRefused, "", "size"},
		{"put manifest", 400, errorBody("UNSUPPORTED", "no"), oci.ErrUnsupported, "", ""},
		{"put manifest", 415, "", oci.ErrUnsupported, "", ""},
		{"put manifest", 415, "", oci.ErrUnsupported, "zot", "docker2s2"},
		{"put manifest", 405, errorBody("DENIED", "read-only mode"), oci.ErrRefused, "", "read-only"},
		{"put manifest", 409, errorBody("TAG_IMMUTABLE", "no"), oci.ErrImmutable, "", "exclude"},
		{"put manifest", 400, errorBody("TAG_INVALID", "tag cannot be overwritten because the tag is immutable"), oci.ErrImmutable, "", "exclude"},
		{"put manifest", 400, errorBody("TAG_INVALID", "no such tag"), oci.ErrRefused, "", ""},
		{"put manifest", 412, errorBody("PRECONDITION", "configured as immutable, cannot be updated"), oci.ErrImmutable, "harbor", "immutability rule"},
		{"put manifest", 412, errorBody("DENIED", "adding 1 MiB of storage resource, which when updated to current usage will exceed the configured upper limit: quota"), oci.ErrRefused, "harbor", "quota"},
		{"get manifest", 412, errorBody("PROJECTPOLICYVIOLATION", "not signed"), oci.ErrDenied, "harbor", "policy"},
		{"start", 404, errorBody("NOT_FOUND", "project team not found"), oci.ErrRepositoryUnknown, "harbor", "project"},
		{"put manifest", 400, errorBody("DIGEST_INVALID", "no"), oci.ErrMismatch, "", ""},
		{"put 512", 400, errorBody("DIGEST_INVALID", "no"), oci.ErrUnsupported, "", "sha512"},
		{"put manifest", 400, "what", oci.ErrRefused, "", ""},
		{"get manifest", 400, "what", oci.ErrInvalid, "", ""},
		{"get manifest", 406, "", oci.ErrUnsupported, "", ""},
		{"get manifest", 501, "", oci.ErrUnsupported, "", ""},
		{"put manifest", 507, "", oci.ErrInterrupted, "", "full"},
		{"get manifest", 304, "", oci.ErrInvalid, "", ""},
		{"put manifest", 302, "", oci.ErrInvalid, "", ""},
		{"referrers", 404, "404 page not found", oci.ErrUnsupported, "", ""},
		{"referrers", 405, "", oci.ErrUnsupported, "", ""},
		{"referrers", 303, "", oci.ErrUnsupported, "", ""},
		{"referrers", 200, "<html>", oci.ErrUnsupported, "", ""},
		{"referrers", 404, errorBody("NAME_UNKNOWN", "no"), oci.ErrRepositoryUnknown, "", ""},
	} {
		t.Run(fmt.Sprintf("%s %d %.40s", c.operation, c.status, c.body), func(t *testing.T) {
			t.Parallel()
			kind := c.kind
			if kind == "" {
				kind = "oci"
			}
			header := http.Header{"Www-Authenticate": {`Basic realm="x"`}}
			err := operations()[c.operation](t.Context(), repository(t, kind, answering(c.status, header, c.body)))
			var told *oci.RegistryError
			if !errors.Is(err, c.want) || !errors.As(err, &told) {
				t.Fatalf("got %v (%s), want %v", err, oci.KindOf(err), c.want)
			}
			if c.want == oci.ErrNotFound && errors.Is(err, oci.ErrRepositoryUnknown) {
				t.Fatalf("got repository unknown: %v", err)
			}
			if !strings.Contains(told.Hint, c.hint) {
				t.Fatalf("hint %q lacks %q", told.Hint, c.hint)
			}
			if told.Registry != "eu" || !strings.Contains(told.Operation, "team/app") {
				t.Fatalf("error does not say where: %+v", told)
			}
		})
	}
}

// An immutable tag that names the manifest already is what was wanted.
func TestImmutableButEqual(t *testing.T) {
	reg := open(t, &providertest.Fake{Immutable: true}, nil)
	repo := reg.Repository("team/app")
	m := providertest.PushImage(t, repo, "v1", nil)
	if _, err := repo.PushManifest(t.Context(), "v1", m); err != nil {
		t.Fatal(err)
	}
	other := providertest.Index(m.Descriptor())
	if _, err := repo.PushManifest(t.Context(), "v1", other); !errors.Is(err, oci.ErrImmutable) {
		t.Fatalf("got %v, want immutable", err)
	}
}

func TestSubjectHandled(t *testing.T) {
	for _, lacks := range []bool{false, true} {
		repo := open(t, &providertest.Fake{NoReferrers: lacks}, nil).Repository("team/app")
		subject := providertest.PushImage(t, repo, "v1", nil).Descriptor()
		m := providertest.Image(&subject, providertest.PushBlob(t, repo, []byte("{}")))
		pushed, err := repo.PushManifest(t.Context(), m.Digest.String(), m)
		if err != nil || pushed.SubjectHandled == lacks {
			t.Fatalf("handled %v, %v", pushed.SubjectHandled, err)
		}
	}
}

func TestManifestsThatLie(t *testing.T) {
	content := `{"schemaVersion":2,"manifests":[]}`
	d := digest.FromString(content)
	other := digest.FromString("other")
	for _, c := range []struct {
		name, reference, told, contentType, body string
		want                                     error
		mediaType                                string
	}{
		{"sound", "v1", d.String(), v1.MediaTypeImageIndex, content, nil, v1.MediaTypeImageIndex},
		{"a parameter", "v1", "", v1.MediaTypeImageIndex + "; charset=utf-8", content, nil, v1.MediaTypeImageIndex},
		{"no type", "v1", "", "text/plain", content, nil, v1.MediaTypeImageIndex},
		{"another digest told", "v1", other.String(), v1.MediaTypeImageIndex, content, oci.ErrMismatch, ""},
		{"another algorithm told", d.String(), digest.SHA512.FromString(content).String(), v1.MediaTypeImageIndex, content, nil, v1.MediaTypeImageIndex},
		{"nonsense told", "v1", "sha256:x", v1.MediaTypeImageIndex, content, nil, v1.MediaTypeImageIndex},
		{"other bytes", other.String(), other.String(), v1.MediaTypeImageIndex, content, oci.ErrMismatch, ""},
		{"too large", "v1", "", v1.MediaTypeImageIndex, strings.Repeat(" ", oci.MaxManifestSize+1), oci.ErrTooLarge, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := http.Header{"Content-Type": {c.contentType}, "Docker-Content-Digest": {c.told}}
			m, err := repository(t, "oci", answering(200, header, c.body)).FetchManifest(t.Context(), c.reference)
			if !errors.Is(err, c.want) || m.MediaType != c.mediaType {
				t.Fatalf("got %q, %v; want %q, %v", m.MediaType, err, c.mediaType, c.want)
			}
		})
	}
}

// HEAD answers that do not say enough are followed by a GET.
func TestResolveByGet(t *testing.T) {
	for name, header := range map[string]http.Header{
		"no digest": {"Content-Type": {v1.MediaTypeImageManifest}},
		"no type":   {"Docker-Content-Digest": {someManifest.Digest.String()}},
	} {
		t.Run(name, func(t *testing.T) {
			var methods []string
			inner := answering(200, header, string(someManifest.Bytes))
			repo := repository(t, "oci", roundTrip(func(req *http.Request) (*http.Response, error) {
				methods = append(methods, req.Method)
				return inner.RoundTrip(req)
			}))
			desc, err := repo.Resolve(t.Context(), "v1")
			if err != nil || desc.Digest != someManifest.Digest || desc.MediaType != v1.MediaTypeImageManifest || desc.Size != int64(len(someManifest.Bytes)) {
				t.Fatalf("got %+v, %v", desc, err)
			}
			if fmt.Sprint(methods) != "[HEAD GET]" {
				t.Fatalf("asked by %v", methods)
			}
		})
	}
}

func TestBlobsThatLie(t *testing.T) {
	long := strings.Repeat("x", 100)
	desc := providertest.Describe("", []byte(long))
	for _, c := range []struct {
		name   string
		status int
		header http.Header
		body   string
		ranged bool
		want   error
	}{
		{"short", 200, nil, long[:50], false, oci.ErrMismatch},
		{"encoded", 200, http.Header{"Content-Encoding": {"gzip"}}, long, false, oci.ErrInvalid},
		{"range ignored", 200, nil, long, true, oci.ErrUnsupported},
		{"another range", 206, http.Header{"Content-Range": {"bytes 0-9/100"}}, long[:10], true, oci.ErrUnsupported},
		{"no range told", 206, nil, long[:10], true, oci.ErrUnsupported},
		{"another size", 206, http.Header{"Content-Range": {"bytes 10-19/99"}}, long[:10], true, oci.ErrMismatch},
		{"not satisfiable", 416, nil, "", true, oci.ErrUnsupported},
		{"sound", 206, http.Header{"Content-Range": {"bytes 10-19/100"}}, long[:10], true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			repo := repository(t, "oci", answering(c.status, c.header, c.body))
			var r io.ReadCloser
			var err error
			if c.ranged {
				r, err = repo.(oci.RangeFetcher).FetchRange(t.Context(), desc, 10, 10)
			} else {
				r, err = repo.Fetch(t.Context(), desc)
			}
			if !errors.Is(err, c.want) || (c.want != nil && err == nil) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if r != nil {
				_ = r.Close()
			}
		})
	}
}

// A body that ends early is an interruption, told by whoever reads it.
func TestCutBody(t *testing.T) {
	repo := open(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write(bytes.Repeat([]byte("x"), 500))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}), nil).Repository("team/app")
	r, err := repo.Fetch(t.Context(), v1.Descriptor{Digest: someDesc.Digest, Size: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, oci.ErrInterrupted) {
		t.Fatalf("got %v, want interrupted", err)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	spec := generic.Spec{Name: "eu", Host: "127.0.0.1:1", PlainHTTP: true}
	transport, err := generic.Transport(spec)
	if err != nil {
		t.Fatal(err)
	}
	reg, err := generic.New(spec, transport)
	if err != nil {
		t.Fatal(err)
	}
	for name, operation := range operations() {
		if err := operation(t.Context(), reg.Repository("team/app")); !errors.Is(err, oci.ErrUnreachable) {
			t.Errorf("%s: got %v, want unreachable", name, err)
		}
	}
	if err := reg.Ping(t.Context()); !errors.Is(err, oci.ErrUnreachable) {
		t.Errorf("ping: got %v, want unreachable", err)
	}
}

// What an error shows never holds a secret or a query, wherever a registry or
// the transport put it.
func TestErrorsHoldNoSecrets(t *testing.T) {
	const secret, signature = "s3cr3t-password", "s3cr3t-signature"
	address := "https://user:" + secret + "@registry.example/v2/?X-Signature=" + signature
	noise := "first\nsecond\x1b[31m " + address + " Basic cm9ib3Q6czNjcjN0LXBhc3N3b3Jk " + secret + strings.Repeat(" long", 500)
	answers := map[string]http.RoundTripper{
		"message":  answering(400, nil, errorBody("MANIFEST_INVALID", noise)),
		"code":     answering(400, nil, errorBody(noise, "")),
		"text":     answering(403, http.Header{"Content-Type": {"text/plain"}}, noise),
		"redirect": answering(307, http.Header{"Location": {"https://169.254.169.254/?X-Signature=" + signature}}, ""),
		"location": answering(202, http.Header{"Location": {"http://%zz/" + secret + "?" + signature}}, ""),
		"realm":    answering(401, http.Header{"Www-Authenticate": {`Bearer realm="http://10.0.0.1/` + `?key=` + signature + `"`}}, noise),
		"again":    answering(401, http.Header{"Www-Authenticate": {`Basic realm="x"`}}, errorBody("UNAUTHORIZED", noise)),
		"broken": roundTrip(func(req *http.Request) (*http.Response, error) {
			return nil, &url.Error{Op: "Get", URL: address, Err: fmt.Errorf("send %s: %s: %w", address, secret, oci.ErrInvalid)}
		}),
	}
	for name, rt := range answers {
		t.Run(name, func(t *testing.T) {
			reg, err := generic.New(generic.Spec{Name: "eu", Host: "registry.example", Auth: generic.Auth{Username: "robot", Password: plain(secret)}}, rt)
			if err != nil {
				t.Fatal(err)
			}
			// the password has been in use
			_, _ = generic.Credentials(t.Context(), reg)
			for operation, ask := range operations() {
				err := ask(t.Context(), reg.Repository("team/app"))
				if err == nil {
					t.Errorf("%s: no error", operation)
					continue
				}
				text := err.Error()
				for _, word := range []string{secret, signature, "cm9ib3Q6czNjcjN0LXBhc3N3b3Jk", "\n", "\x1b"} {
					if strings.Contains(text, word) {
						t.Errorf("%s: %q shows %q", operation, text, word)
					}
				}
				if len(text) > 1000 {
					t.Errorf("%s: %d bytes of error", operation, len(text))
				}
			}
		})
	}
}
