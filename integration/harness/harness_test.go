package harness

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

func TestGeneratorDependsOnItsSeedAlone(t *testing.T) {
	digests := func(seed uint64) []digest.Digest {
		g := NewGenerator(seed)
		img := g.Image(ImageSpec{Layers: 2, Shared: []int{1}})
		idx := g.Index(img, g.Image(ImageSpec{Docker: true}))
		return []digest.Digest{img.Digest, idx.Digest, g.Artifact("a/b", idx, nil).Digest, g.Signature(img).Digest, g.Variants(2)[1].Digest, g.BigBlob(3 << 20).Digest}
	}
	if diff := cmp.Diff(digests(1), digests(1)); diff != "" {
		t.Errorf("the same seed made other content: %s", diff)
	}
	for i, d := range digests(2) {
		if d == digests(1)[i] {
			t.Errorf("content %d is the same for two seeds", i)
		}
	}
}

func TestBigBlobReadsTheSameInAnyPieces(t *testing.T) {
	blob := NewGenerator(3).BigBlob(2<<20 + 5)
	want, err := io.ReadAll(blob.Open())
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(want)) != blob.Size || digest.FromBytes(want) != blob.Digest {
		t.Fatalf("%d bytes, %s; want %d, %s", len(want), digest.FromBytes(want), blob.Size, blob.Digest)
	}
	for name, r := range map[string]io.Reader{"halves": iotest.HalfReader(blob.Open()), "7 bytes": &small{blob.Open(), 7}} {
		got, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("read by %s: other bytes", name)
		}
	}
}

type small struct {
	io.Reader
	n int
}

func (s *small) Read(p []byte) (int, error) { return s.Reader.Read(p[:min(len(p), s.n)]) }

func TestInOrder(t *testing.T) {
	g := NewGenerator(4).Variants(3)
	of := func(positions ...int) (out []digest.Digest) {
		for _, p := range positions {
			out = append(out, g[p].Digest)
		}
		return out
	}
	if err := InOrder(of(0, 0, 2), g); err != nil {
		t.Errorf("in order: %v", err)
	}
	if InOrder(of(0, 2, 1), g) == nil {
		t.Error("an older state after a newer one was not noticed")
	}
	if InOrder([]digest.Digest{""}, g) == nil {
		t.Error("an absent tag was not noticed")
	}
}

// Every kind of content goes into a real registry and is found there; what is
// missing or corrupt is noticed.
func TestRegistryHoldsAndLosesContent(t *testing.T) {
	t.Parallel()
	reg := StartRegistry(t, "one", RegistryOptions{Username: "u", Password: "p", ForeignLayers: true})
	c, ctx := reg.Client(), t.Context()
	g := NewGenerator(5)
	multi := g.MultiArch(ImageSpec{Shared: []int{1}}, "amd64", "arm64")
	contents := map[string]*Graph{
		"image":   g.Image(ImageSpec{Layers: 2}),
		"docker":  g.Image(ImageSpec{Docker: true}),
		"list":    g.MultiArch(ImageSpec{Docker: true}, "amd64", "arm64"),
		"index":   multi,
		"nested":  g.Index(multi, g.Image(ImageSpec{})),
		"sha512":  g.Image(ImageSpec{SHA512: true}),
		"foreign": g.Image(ImageSpec{Docker: true, Foreign: true}),
		"chart":   g.Artifact("application/vnd.cncf.helm.config.v1+json", nil, nil),
		"big":     g.ImageOf(g.BigBlob(8 << 20)),
	}
	for tag, content := range contents {
		if err := c.Push(ctx, "team/app", content, tag); err != nil {
			t.Fatalf("push %s: %v", tag, err)
		}
		if err := c.Has(ctx, "team/app", tag, content, true); err != nil {
			t.Errorf("%s: %v", tag, err)
		}
	}
	for range 2 {
		if err := c.PushReferrer(ctx, "team/app", g.Artifact("example/sbom", multi, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if tags, err := c.Tags(ctx, "team/app"); err != nil || len(tags) != len(contents)+1 {
		t.Errorf("tags are %v, %v", tags, err)
	}
	reg.Stop()
	reg.Start()
	img := contents["image"]
	if err := c.Has(ctx, "team/app", "image", img, true); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	reg.CorruptBlob(img.Blobs[1].Digest.String())
	if err := c.Has(ctx, "team/app", "image", img, false); err != nil {
		t.Errorf("corrupt content, not read: %v", err)
	}
	if c.Has(ctx, "team/app", "image", img, true) == nil {
		t.Error("corrupt content was not noticed")
	}
	reg.RemoveBlob(img.Blobs[0].Digest.String())
	if err := c.Has(ctx, "team/app", "image", img, false); !errors.Is(err, ErrAbsent) {
		t.Errorf("a blob removed: %v", err)
	}
	reg.Wipe()
	if tags, err := c.Tags(ctx, "team/app"); err != nil || len(tags) != 0 {
		t.Errorf("after a wipe: %v, %v", tags, err)
	}
}

func TestProxyInjectsFaults(t *testing.T) {
	t.Parallel()
	reg := StartRegistry(t, "one", RegistryOptions{})
	proxy := StartProxy(t, reg.Addr)
	c, ctx := NewClient(proxy.Addr), t.Context()
	img := NewGenerator(6).Image(ImageSpec{})
	var tagged []Request
	proxy.Before(func(r Request) {
		if r.Method == http.MethodPut && r.Class == Tag {
			tagged = append(tagged, r)
		}
	})
	if err := c.Push(ctx, "a/b", img, "v1"); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"POST upload": 2, "PUT upload": 2, "PUT tag": 1}
	if diff := cmp.Diff(want, proxy.Counts()); diff != "" {
		t.Errorf("counts: %s", diff)
	}
	if len(tagged) != 1 || tagged[0].Digest() != img.Digest || len(proxy.TagWrites()) != 1 {
		t.Errorf("tag writes: %v, %v", tagged, proxy.TagWrites())
	}
	layer := img.Blobs[1]
	for name, f := range map[string]Fault{
		"status": {Status: 503}, "cut": {CutAnswer: 10}, "corrupt": {Corrupt: true}, "truncate": {Truncate: true},
	} {
		f.Match, f.Times = Is("GET", BlobOp), 1
		proxy.Inject(f)
		if err := c.CheckBlob(ctx, "a/b", layer.Descriptor); err == nil {
			t.Errorf("%s: the blob was read whole", name)
		}
		if err := c.CheckBlob(ctx, "a/b", layer.Descriptor); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
	restore := proxy.Inject(Fault{Drop: true}) // not once: net/http asks again where a kept connection ends so
	if c.CheckBlob(ctx, "a/b", layer.Descriptor) == nil {
		t.Error("drop: the blob was read")
	}
	restore()
	before := proxy.Taken()
	for name, f := range map[string]Fault{"cut": {CutRequest: 10}, "corrupt": {CorruptUp: true}} {
		f.Match, f.Times = Is("PUT", Upload), 1
		proxy.Inject(f)
		other := BlobOf("a/b", []byte("some twenty bytes of "+name))
		if c.PushBlob(ctx, "a/b", other) == nil {
			t.Errorf("%s: the upload was taken", name)
		}
		if err := c.PushBlob(ctx, "a/b", other); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
	if n := proxy.Taken() - before; n != 2 {
		t.Errorf("%d uploads met a fault", n)
	}
}

func TestRelayHoldsAndDoublesRealNotifications(t *testing.T) {
	t.Parallel()
	got := make(chan string, 100)
	sink := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("Authorization")
	})}
	addr := serve(t, sink)
	relay := StartRelay(t, "http://"+addr+"/hooks/eu", "Bearer x")
	relay.Hold()
	reg := StartRegistry(t, "one", RegistryOptions{Notify: []Endpoint{{URL: relay.URL}}})
	if err := reg.Client().Push(t.Context(), "a/b", NewGenerator(7).Image(ImageSpec{}), "v1", "v2"); err != nil {
		t.Fatal(err)
	}
	WaitFor(t, "two pushes", time.Minute, func(context.Context) error {
		if n := relay.Pushes(); n != 2 {
			return errors.New("not yet")
		}
		return nil
	})
	if len(got) != 0 {
		t.Error("held notifications were handed on")
	}
	relay.Release(t, 1, true, true)
	if len(got) != 8 { // two blobs and two manifests, doubled
		t.Errorf("%d notifications were handed on, want 8", len(got))
	}
	if auth := <-got; auth != "Bearer x" {
		t.Errorf("Authorization is %q", auth)
	}
}

// serve runs a server on a free loopback port until the test ends.
func serve(t *testing.T, s *http.Server) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}
