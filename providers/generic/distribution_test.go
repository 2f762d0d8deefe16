package generic_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

func TestContractDistribution(t *testing.T) {
	htpasswd := filepath.Join(t.TempDir(), "htpasswd")
	// bcrypt of s3cr3t-password
	if err := os.WriteFile(htpasswd, []byte("robot:$2b$04$abcdefghijklmnopqrstuu2zWLgmO7dnRH9X49UEpIMVV5e9BUBWu\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := providertest.Suite{Catalog: true, Mount: true, Ranges: true, Strict: true, Resume: true, SHA512: true}
	for name, c := range map[string]struct {
		auth   string
		change func(*generic.Spec)
	}{
		"open":     {"", nil},
		"htpasswd": {fmt.Sprintf("auth:\n  htpasswd: {realm: r, path: %s}\n", htpasswd), account},
	} {
		t.Run(name, func(t *testing.T) {
			url := providertest.Distribution(t, c.auth)
			s.Open = func(t *testing.T) oci.Registry { return client(t, url, c.change) }
			providertest.Run(t, s)
		})
	}
}

// Distribution answers 500 for foreign layers that its config does not allow:
// that is a refusal, with what to do, and no passing fault.
func TestForeignLayersAtDistribution(t *testing.T) {
	for name, c := range map[string]struct {
		config, urls string
		kind         error
		hint         string
	}{
		"not allowed": {"", `,"urls":["https://mcr.example.com/layer"]`, oci.ErrRefused, "validation.manifests.urls.allow"},
		"no URL":      {"", "", oci.ErrRefused, "name no URL"},
		"allowed": {
			"validation: {manifests: {urls: {allow: ['^https://mcr[.]example[.]com/']}}}\n", `,"urls":["https://mcr.example.com/layer"]`, nil, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := client(t, providertest.Distribution(t, c.config), nil)
			repo := reg.Repository("team/app")
			config := []byte(`{"os":"windows"}`)
			desc := providertest.Describe("application/vnd.docker.container.image.v1+json", config)
			upload, _, err := repo.Start(t.Context(), desc, nil)
			if err == nil {
				err = upload.Put(t.Context(), providertest.Bytes(config))
			}
			if err != nil {
				t.Fatal(err)
			}
			manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",`+
				`"config":{"mediaType":%q,"size":%d,"digest":%q},"layers":[{"mediaType":%q,"size":1000,"digest":"sha256:%064d"%s}]}`,
				desc.MediaType, desc.Size, desc.Digest, oci.MediaTypeDockerForeign, 7, c.urls)
			_, err = repo.PushManifest(t.Context(), "v1", oci.Manifest{
				MediaType: "application/vnd.docker.distribution.manifest.v2+json", Digest: digest.FromBytes(manifest), Bytes: manifest,
			})
			var refused *oci.RegistryError
			if !errors.Is(err, c.kind) || err != nil && (!errors.As(err, &refused) || !strings.Contains(refused.Hint, c.hint)) {
				t.Errorf("%v", err)
			}
		})
	}
}

// A cutter breaks connections to the registry after some bytes of a body, once each.
type cutter struct {
	net.Conn
	mu    sync.Mutex
	after int
	cut   *int // how many are left to cut
}

func (c *cutter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.after -= len(p)
	if c.after < 0 && *c.cut > 0 {
		*c.cut--
		_ = c.Conn.Close()
		return 0, io.ErrClosedPipe
	}
	return c.Conn.Write(p)
}

func TestResumeDistribution(t *testing.T) {
	url := providertest.Distribution(t, "")
	cuts := 3
	spec := generic.Spec{Name: "eu", Host: url[len("http://"):], PlainHTTP: true, Auth: generic.Auth{Anonymous: true}}
	transport, err := generic.Transport(spec)
	if err != nil {
		t.Fatal(err)
	}
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &cutter{Conn: conn, after: 3 << 20, cut: &cuts}, nil
	}
	reg, err := generic.New(spec, transport)
	if err != nil {
		t.Fatal(err)
	}
	repo := reg.Repository("team/app")
	content := providertest.Random(16 << 20)
	desc := providertest.Describe(v1.MediaTypeImageLayer, content)
	upload, _, err := repo.Start(t.Context(), desc, nil)
	if err != nil {
		t.Fatal(err)
	}
	body := &countingBody{Bytes: content}
	if err := upload.Put(t.Context(), body); err != nil && !errors.Is(err, oci.ErrUploadUnknown) {
		t.Fatal(err)
	} else if err != nil {
		t.Fatalf("the session was lost: %v", err)
	}
	if cuts != 0 || len(body.offsets) < 3 || body.offsets[len(body.offsets)-1] < 6<<20 {
		t.Fatalf("%d cuts left; bodies opened at %v", cuts, body.offsets)
	}
	if n, err := repo.Stat(t.Context(), desc.Digest); err != nil || n != desc.Size {
		t.Fatalf("stat: %d, %v", n, err)
	}
}

type countingBody struct {
	providertest.Bytes
	offsets []int64
}

func (b *countingBody) Open(ctx context.Context, offset int64) (io.ReadCloser, error) {
	b.offsets = append(b.offsets, offset)
	return b.Bytes.Open(ctx, offset)
}
