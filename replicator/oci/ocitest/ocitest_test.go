package ocitest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

type body []byte

func (b body) Open(_ context.Context, offset int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b[offset:])), nil
}

func TestTheRegistryIsStrict(t *testing.T) {
	ctx := context.Background()
	r := New("oci://a", Options{})
	repo := r.Repository("team/app")
	image := Image("app", 1)
	if _, err := repo.PushManifest(ctx, "v1", image.Root()); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Errorf("a hollow image: %v", err)
	}
	for _, b := range image.Blobs {
		u, mounted, err := repo.Start(ctx, b.Desc, nil)
		if err != nil || mounted {
			t.Fatal(mounted, err)
		}
		if err := u.Put(ctx, body(b.Data)); err != nil {
			t.Fatal(err)
		}
	}
	wrong := image.Root()
	if _, err := repo.PushManifest(ctx, Image("other", 1).Digest().String(), wrong); !errors.Is(err, oci.ErrMismatch) {
		t.Errorf("a wrong digest: %v", err)
	}
	if _, err := repo.PushManifest(ctx, "v1", image.Root()); err != nil {
		t.Fatal(err)
	}
	if !r.Has("team/app", image) {
		t.Error("the image is not there")
	}
	u, _, err := repo.Start(ctx, image.Blobs[0].Desc, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Put(ctx, body(bytes.Repeat([]byte{1}, len(image.Blobs[0].Data)))); !errors.Is(err, oci.ErrMismatch) {
		t.Errorf("a wrong blob: %v", err)
	}
	if n := r.Count(StartUpload); n != 3 {
		t.Errorf("%d POSTs counted", n)
	}
	if _, mounted, err := r.Repository("team/other").Start(ctx, image.Blobs[0].Desc, []string{"team/app"}); err != nil || !mounted {
		t.Errorf("mount: %v %v", mounted, err)
	}
}

func TestTheBuildersFitTheParser(t *testing.T) {
	image := Image("a", 2)
	subject := image.Descriptor()
	_, sig := CosignTag("sig", image.Digest(), "sig")
	for name, c := range map[string]Content{
		"image": image, "docker": DockerImage("d", 2), "index": MultiArch("i", 2, 1), "nested": Index(MultiArch("n", 2, 1), image),
		"artifact": Artifact("x", "text/x", &subject), "helm": HelmChart("h"), "sha512": SHA512Image("s"), "foreign": ForeignImage("f"),
		"list": DockerList(DockerImage("l", 1)), "cosign": sig,
	} {
		r := New("oci://b", Options{ReferrersAPI: true})
		r.Push("x", "t", c)
		for _, m := range c.Manifests {
			if _, err := (&repo{r: r, name: "x"}).push(m.Digest.String(), m); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := oci.ParseReferences(Schema1("old").Root()); !errors.Is(err, oci.ErrUnsupported) {
		t.Errorf("schema 1: %v", err)
	}
}

func TestAttachKeepsTheFallbackTag(t *testing.T) {
	image := Image("a", 1)
	subject := image.Descriptor()
	for _, api := range []bool{true, false} {
		r := New("oci://c", Options{ReferrersAPI: api})
		r.Push("x", "t", image)
		r.Attach("x", Artifact("one", "text/one", &subject))
		r.Attach("x", Artifact("two", "text/two", &subject))
		fallback, ok := r.Manifest("x", oci.FallbackTag(image.Digest()))
		if ok == api {
			t.Fatalf("api %v: fallback %v", api, ok)
		}
		if !api {
			refs, err := oci.ParseReferences(fallback)
			if err != nil || len(refs.Manifests) != 2 || fallback.MediaType != v1.MediaTypeImageIndex {
				t.Errorf("fallback: %+v %v", refs, err)
			}
		}
		n := 0
		for _, err := range r.Repository("x").Referrers(context.Background(), image.Digest()) {
			if errors.Is(err, oci.ErrUnsupported) == api {
				t.Errorf("api %v: %v", api, err)
			}
			n++
		}
		if api && n != 2 {
			t.Errorf("%d referrers", n)
		}
	}
}
