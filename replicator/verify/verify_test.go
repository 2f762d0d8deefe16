package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

const app = "team/app"

func size(c ocitest.Content) (n int64) {
	for _, m := range c.Manifests {
		n += int64(len(m.Bytes))
	}
	for _, b := range c.Blobs {
		n += b.Desc.Size
	}
	return n
}

func digests(faults []Fault) []digest.Digest {
	list := []digest.Digest{}
	for _, f := range faults {
		list = append(list, f.Digest)
	}
	return list
}

func TestSoundContentCostsOneRequestEach(t *testing.T) {
	image := ocitest.Image("image", 2)
	subject := image.Descriptor()
	for name, c := range map[string]ocitest.Content{
		"image": image, "index": ocitest.MultiArch("index", 3, 2), "nested": ocitest.Index(ocitest.MultiArch("n", 2, 1), image),
		"docker": ocitest.DockerList(ocitest.DockerImage("d", 2)), "sha512": ocitest.SHA512Image("s"),
		"artifact": ocitest.Artifact("a", "text/x", &subject), "helm": ocitest.HelmChart("h"),
	} {
		us := ocitest.New("oci://us", ocitest.Options{})
		us.Push(app, "v1", c)
		children, blobs := len(c.Manifests)-1, len(c.Blobs)
		report, err := Content(context.Background(), us.Repository(app), c.Root(), Options{})
		if err != nil || !report.Sound() || report.Manifests != children || report.Blobs != blobs || report.Bytes != size(c) {
			t.Errorf("%s: content: %+v %v", name, report, err)
		}
		if n := us.Count(); n != children+blobs || us.Count(ocitest.HeadBlob) != blobs {
			t.Errorf("%s: content: %d requests", name, n)
		}
		us.ResetCalls()
		for _, reference := range []string{"v1", c.Digest().String()} {
			report, err = Image(context.Background(), us.Repository(app), reference, Options{Deep: true})
			if err != nil || !report.Sound() || report.Manifests != children+1 || report.Bytes != size(c) {
				t.Errorf("%s: image: %+v %v", name, report, err)
			}
		}
		if n := us.Count(); n != 2*(children+1+blobs) || us.Count(ocitest.GetBlob) != 2*blobs {
			t.Errorf("%s: image: %d requests", name, n)
		}
	}
}

func TestWhatIsMissingOrCorruptIsTold(t *testing.T) {
	c := ocitest.MultiArch("index", 3, 2)
	child, blob, other := c.Manifests[0].Digest, c.Blobs[3].Desc.Digest, c.Blobs[5].Desc.Digest
	for _, test := range []struct {
		name             string
		damage           func(us *ocitest.Registry)
		deep             bool
		missing, corrupt []digest.Digest
	}{
		{"a blob is gone", func(us *ocitest.Registry) { us.Remove(app, blob) }, false, []digest.Digest{blob}, nil},
		{"two are", func(us *ocitest.Registry) { us.Remove(app, blob); us.Remove(app, child) }, false, []digest.Digest{blob, child}, nil},
		{"a child is damaged", func(us *ocitest.Registry) { us.Corrupt(app, child) }, false, nil, []digest.Digest{child}},
		{"a blob is damaged, and not read", func(us *ocitest.Registry) { us.Corrupt(app, blob) }, false, nil, nil},
		{"a blob is damaged, and read", func(us *ocitest.Registry) { us.Corrupt(app, blob) }, true, nil, []digest.Digest{blob}},
		{"a blob is cut", func(us *ocitest.Registry) {
			desc := c.Blobs[3].Desc
			desc.Size--
			us.AddBlob(app, desc, func(offset int64) io.Reader { return bytes.NewReader(c.Blobs[3].Data[offset:]) })
		}, false, nil, []digest.Digest{blob}},
		{"a blob ends early", func(us *ocitest.Registry) {
			us.OnRead(func(call ocitest.Call, r io.Reader) io.Reader {
				if call.Reference == blob.String() {
					return io.LimitReader(r, 10)
				}
				return r
			})
		}, true, nil, []digest.Digest{blob}},
		{"one of each", func(us *ocitest.Registry) { us.Corrupt(app, blob); us.Remove(app, other) }, true, []digest.Digest{other}, []digest.Digest{blob}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			us := ocitest.New("oci://us", ocitest.Options{})
			us.Push(app, "v1", c)
			test.damage(us)
			slices.Sort(test.missing)
			for _, image := range []bool{true, false} {
				report, err := Content(context.Background(), us.Repository(app), c.Root(), Options{Deep: test.deep})
				if image {
					report, err = Image(context.Background(), us.Repository(app), "v1", Options{Deep: test.deep})
				}
				if err != nil {
					t.Fatal(err)
				}
				// What is below a child that is gone is not known.
				if !slices.Equal(digests(report.Missing), test.missing) && len(test.missing)+len(report.Missing) > 0 {
					t.Errorf("missing %v, want %v", report.Missing, test.missing)
				}
				if !slices.Equal(digests(report.Corrupt), test.corrupt) && len(test.corrupt)+len(report.Corrupt) > 0 {
					t.Errorf("corrupt %v, want %v", report.Corrupt, test.corrupt)
				}
				if report.Sound() != (len(test.missing)+len(test.corrupt) == 0) {
					t.Error("sound is not what the report says")
				}
			}
		})
	}
}

func TestTheRoot(t *testing.T) {
	c, other := ocitest.Image("image", 1), ocitest.Image("other", 1)
	ctx := context.Background()
	us := ocitest.New("oci://us", ocitest.Options{})
	us.Push(app, "v1", c)
	us.Push(app, "v2", other)
	repo := us.Repository(app)
	for _, test := range []struct {
		tag              string
		missing, corrupt int
	}{{"v1", 0, 0}, {"v2", 0, 1}, {"v3", 1, 0}} {
		report, err := Tag(ctx, repo, test.tag, c.Root())
		if err != nil || len(report.Missing) != test.missing || len(report.Corrupt) != test.corrupt {
			t.Errorf("%s: %+v %v", test.tag, report, err)
		}
		if test.corrupt == 1 && report.Corrupt[0].Digest != other.Digest() {
			t.Errorf("the tag names %s", report.Corrupt[0].Digest)
		}
	}
	if n := us.Count(); n != 3 {
		t.Errorf("%d requests", n)
	}
	for _, reference := range []string{"v3", ocitest.Image("none", 1).Digest().String()} {
		if report, err := Image(ctx, repo, reference, Options{}); err != nil || len(report.Missing) != 1 {
			t.Errorf("%s: %+v %v", reference, report, err)
		}
	}
	if report, err := Image(ctx, us.Repository("none"), "v1", Options{}); err != nil || len(report.Missing) != 1 {
		t.Errorf("no repository: %+v %v", report, err)
	}
	us.Corrupt(app, c.Digest())
	if report, err := Image(ctx, repo, c.Digest().String(), Options{}); err != nil || len(report.Corrupt) != 1 {
		t.Errorf("corrupt root: %+v %v", report, err)
	}
	if report, err := Tag(ctx, repo, "v1", c.Root()); err != nil || len(report.Corrupt) != 1 {
		t.Errorf("corrupt root by tag: %+v %v", report, err)
	}
}

func TestReferrersAreProvenToo(t *testing.T) {
	c := ocitest.Image("image", 1)
	subject := c.Descriptor()
	sig, gone := ocitest.Artifact("sig", "text/sig", &subject), ocitest.Artifact("gone", "text/sig", &subject)
	us := ocitest.New("oci://us", ocitest.Options{})
	us.Push(app, "v1", c)
	us.Push(app, "", sig)
	lost := sig.Blobs[1].Desc.Digest
	o := Options{Referrers: []digest.Digest{sig.Digest(), gone.Digest(), c.Digest()}}
	for i, want := range [][]digest.Digest{{gone.Digest()}, {gone.Digest(), lost}} {
		slices.Sort(want)
		report, err := Content(context.Background(), us.Repository(app), c.Root(), o)
		if err != nil || !slices.Equal(digests(report.Missing), want) || report.Manifests != 2 {
			t.Errorf("%d: %+v %v", i, report, err)
		}
		us.Remove(app, lost)
	}
}

func TestSilenceIsAnErrorAndNoReport(t *testing.T) {
	c := ocitest.MultiArch("index", 2, 2)
	us := ocitest.New("oci://us", ocitest.Options{})
	us.Push(app, "v1", c)
	for _, method := range []ocitest.Method{ocitest.GetManifest, ocitest.HeadBlob} {
		us.OnCall(func(_ context.Context, call ocitest.Call) error {
			if call.Method == method {
				return fmt.Errorf("no answer: %w", oci.ErrUnreachable)
			}
			return nil
		})
		for name, verify := range map[string]func() (Report, error){
			"content": func() (Report, error) {
				return Content(context.Background(), us.Repository(app), c.Root(), Options{})
			},
			"image": func() (Report, error) {
				return Image(context.Background(), us.Repository(app), "v1", Options{})
			},
		} {
			if _, err := verify(); !errors.Is(err, oci.ErrUnreachable) {
				t.Errorf("%s without %s: %v", name, method, err)
			}
		}
	}
	if _, err := Tag(context.Background(), us.Repository(app), "v1", c.Root()); err != nil {
		t.Errorf("tag: %v", err)
	}
	bad := c.Root()
	bad.Bytes = append(slices.Clone(bad.Bytes), ' ')
	if _, err := Content(context.Background(), us.Repository(app), bad, Options{}); !errors.Is(err, oci.ErrMismatch) {
		t.Errorf("a root that is not its digest: %v", err)
	}
}

func TestWithoutSizesSmallBlobsAreRead(t *testing.T) {
	us := ocitest.New("oci://us", ocitest.Options{NoSizes: true})
	large := ocitest.Layer("large", 1)
	large.Desc.Size = maxUnsized + 1
	c := ocitest.ImageOf("image", ocitest.Layer("small", 100), large)
	us.Push(app, "v1", c)
	us.Corrupt(app, c.Blobs[1].Desc.Digest)
	report, err := Image(context.Background(), us.Repository(app), "v1", Options{})
	if err != nil || len(report.Corrupt) != 1 || report.Corrupt[0].Digest != c.Blobs[1].Desc.Digest {
		t.Errorf("%+v %v", report, err)
	}
	if n := us.Count(ocitest.GetBlob); n != 2 { // config and small layer
		t.Errorf("%d blobs read", n)
	}
}

func TestHostileGraphsEnd(t *testing.T) {
	deep := ocitest.Image("deep", 1)
	for range oci.MaxDepth + 4 {
		deep = ocitest.Index(deep)
	}
	us := ocitest.New("oci://us", ocitest.Options{})
	us.Push(app, "v1", deep)
	if _, err := Image(context.Background(), us.Repository(app), "v1", Options{}); !errors.Is(err, oci.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	us := ocitest.New("oci://us", ocitest.Options{})
	c := ocitest.Image("image", 60)
	us.Push(app, "v1", c)
	var now, most atomic.Int32
	release := make(chan struct{})
	us.OnCall(func(_ context.Context, call ocitest.Call) error {
		if call.Method == ocitest.HeadBlob {
			n := now.Add(1)
			defer now.Add(-1)
			if n > most.Load() {
				most.Store(n)
			}
			if n == 4 {
				select {
				case <-release:
				default:
					close(release)
				}
			}
			<-release
		}
		return nil
	})
	report, err := Image(context.Background(), us.Repository(app), "v1", Options{Concurrency: 4})
	if err != nil || !report.Sound() || most.Load() != 4 {
		t.Errorf("%d at once, %+v %v", most.Load(), report, err)
	}
}
