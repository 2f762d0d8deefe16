package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

const app = "team/app"

// to describes one destination; a repository that is not given is app.
func to(r *ocitest.Registry, repository ...string) Destination {
	name := app
	if len(repository) > 0 {
		name = repository[0]
	}
	return Destination{Identity: r.Identity(), Repository: r.Repository(name)}
}

func request(src *ocitest.Registry, c ocitest.Content, dests ...Destination) Request {
	return Request{
		SourceIdentity: src.Identity(), Source: src.Repository(app), Root: c.Root(),
		Tagged: true, Destinations: dests, Referrers: ReferrersFollow,
	}
}

// still is a clock that stands still. What is asked again once an answer is too
// old is asked once, however slow the machine is: requests can be counted.
func still() func() time.Time {
	now := time.Now()
	return func() time.Time { return now }
}

// copyTag copies and moves the tag, as a job does.
func copyTag(t *testing.T, c *Copier, req Request, tag string) []Result {
	t.Helper()
	results := c.Copy(context.Background(), req)
	for i, result := range results {
		if result.Err != nil {
			t.Fatalf("destination %d: %v", i, result.Err)
		}
		if err := c.Tag(context.Background(), req.Destinations[i], tag, req.Root); err != nil {
			t.Fatalf("tag at destination %d: %v", i, err)
		}
	}
	return results
}

func kinds(r Result) []string {
	list := []string{}
	for _, f := range r.Findings {
		list = append(list, string(f.Kind))
	}
	return list
}

func TestEveryKindOfContentArrivesByteForByte(t *testing.T) {
	image := ocitest.Image("base", 2)
	subject := image.Descriptor()
	empty := ocitest.NewBlob(v1.MediaTypeImageLayer, []byte{})
	cache := ocitest.MultiArch("cache", 1, 1)
	for name, c := range map[string]ocitest.Content{
		"image":         image,
		"many layers":   ocitest.Image("many", 40),
		"docker":        ocitest.DockerImage("docker", 3),
		"docker list":   ocitest.DockerList(ocitest.DockerImage("a", 1), ocitest.DockerImage("b", 1)),
		"index":         ocitest.MultiArch("index", 4, 2),
		"nested":        ocitest.Index(ocitest.Index(ocitest.Index(image), ocitest.MultiArch("n", 2, 1)), image),
		"artifact":      ocitest.Artifact("artifact", "text/plain", nil),
		"with subject":  ocitest.Artifact("subject", "text/plain", &subject),
		"helm":          ocitest.HelmChart("helm"),
		"sha512 layer":  ocitest.SHA512Image("sha512"),
		"empty layer":   ocitest.ImageOf("empty", empty),
		"a chunk long":  ocitest.ImageOf("chunk", ocitest.Layer("chunk", chunkSize)),
		"1 MiB":         ocitest.ImageOf("small", ocitest.Layer("small", smallSize)),
		"over 1 MiB":    ocitest.ImageOf("big", ocitest.Layer("big", smallSize+1)),
		"many chunks":   ocitest.ImageOf("bigger", ocitest.Layer("bigger", 40*chunkSize+17)),
		"layer twice":   ocitest.ImageOf("twice", ocitest.Layer("same", 100), ocitest.Layer("same", 100)),
		"index of blob": indexOfBlob(cache),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
			eu.Push(app, "v1", c)
			results := copyTag(t, New(Options{}), request(eu, c, to(us)), "v1")
			if !us.Has(app, c) {
				t.Error("something is missing or other than at the source")
			}
			if got, ok := us.Manifest(app, "v1"); !ok || got.Digest != c.Digest() {
				t.Errorf("the tag names %s", got.Digest)
			}
			if len(results[0].Landed) != len(c.Blobs) || len(results[0].Findings) != 0 {
				t.Errorf("%d of %d blobs landed, findings %v", len(results[0].Landed), len(c.Blobs), results[0].Findings)
			}
			if us.OpenSessions() != 0 {
				t.Errorf("%d sessions left open", us.OpenSessions())
			}
		})
	}
}

// indexOfBlob is like a cache of BuildKit: an index that lists layers.
func indexOfBlob(c ocitest.Content) ocitest.Content {
	layer := ocitest.Layer("cache layer", 321)
	root := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d},{"mediaType":%q,"digest":%q,"size":%d}]}`,
		v1.MediaTypeImageIndex, c.Root().MediaType, c.Digest(), len(c.Root().Bytes), layer.Desc.MediaType, layer.Desc.Digest, layer.Desc.Size)
	return ocitest.Content{
		Manifests: append(slices.Clone(c.Manifests), oci.Manifest{MediaType: v1.MediaTypeImageIndex, Digest: digest.FromString(root), Bytes: []byte(root)}),
		Blobs:     append(slices.Clone(c.Blobs), layer),
	}
}

func TestTheBudgetOfRequests(t *testing.T) {
	const platforms, layers = 3, 2
	c := ocitest.MultiArch("budget", platforms, layers)
	blobs := len(c.Blobs)
	t.Run("without referrers", func(t *testing.T) {
		eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
		eu.Push(app, "v1", c)
		req := request(eu, c, to(us))
		req.SourceTags = func(tag string) (bool, bool) { return tag == "v1", true }
		copier := New(Options{Now: still()})
		copier.apis.remember(eu.Identity())
		copyTag(t, copier, req, "v1")
		if n := eu.Count(ocitest.GetManifest); n != platforms {
			t.Errorf("%d manifest reads at the source, want %d", n, platforms)
		}
		if n := eu.Count(ocitest.GetBlob); n != blobs {
			t.Errorf("%d blob reads at the source, want %d", n, blobs)
		}
		if n := eu.Count(); n != platforms+blobs {
			t.Errorf("%d requests at the source: %v", n, eu.Calls())
		}
		if n := us.Count(); n != 2*blobs+platforms+1 {
			t.Errorf("%d requests at the destination, want %d", n, 2*blobs+platforms+1)
		}
	})
	t.Run("by digest", func(t *testing.T) {
		eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
		eu.Push(app, "", c)
		req := request(eu, c, to(us))
		req.Tagged, req.Referrers = false, ReferrersNone
		if r := New(Options{Now: still()}).Copy(context.Background(), req)[0]; r.Err != nil || !r.RootPushed {
			t.Fatalf("%+v", r)
		}
		if n := us.Count(); n != 2*blobs+platforms+1 {
			t.Errorf("%d requests at the destination", n)
		}
	})
	t.Run("referrers without an API", func(t *testing.T) {
		eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
		copier := New(Options{Now: still()})
		for i := range 3 {
			image := ocitest.Image(fmt.Sprint("image", i), 1)
			eu.Push(app, "v1", image)
			eu.ResetCalls()
			copyTag(t, copier, request(eu, image, to(us)), "v1")
			asked := eu.Count(ocitest.GetManifest, ocitest.Referrers)
			if want := 4; i > 0 && asked != want || asked > want+1 {
				t.Errorf("image %d: %d requests for referrers", i, asked)
			}
		}
	})
	t.Run("referrers by the API", func(t *testing.T) {
		eu, us := ocitest.New("oci://eu", ocitest.Options{ReferrersAPI: true}), ocitest.New("oci://us", ocitest.Options{})
		image := ocitest.Image("image", 1)
		eu.Push(app, "v1", image)
		copyTag(t, New(Options{Now: still()}), request(eu, image, to(us)), "v1")
		if n := eu.Count(ocitest.GetManifest, ocitest.Referrers); n != 4 {
			t.Errorf("%d requests for referrers", n)
		}
	})
	t.Run("believed present", func(t *testing.T) {
		eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
		eu.Push(app, "v1", c)
		us.Push(app, "", c)
		lost := c.Blobs[0].Desc.Digest
		us.Remove(app, lost)
		dst := to(us)
		dst.Present = func(context.Context, digest.Digest) bool { return true }
		r := copyTag(t, New(Options{Now: still()}), request(eu, c, dst), "v1")[0]
		if heads, starts := us.Count(ocitest.HeadBlob), us.Count(ocitest.StartUpload); heads != blobs || starts != 1 {
			t.Errorf("%d HEADs, %d uploads", heads, starts)
		}
		if r.Present != blobs-1 || r.Uploaded != 1 || len(r.Landed) != blobs {
			t.Errorf("%+v", r)
		}
	})
	t.Run("mounted", func(t *testing.T) {
		eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
		eu.Push(app, "v1", c)
		us.Push("other", "", c)
		dst := to(us)
		dst.MountFrom = func(context.Context, digest.Digest) []string { return []string{app, "other"} }
		r := copyTag(t, New(Options{Now: still()}), request(eu, c, dst), "v1")[0]
		if r.Mounted != blobs || us.Count() != blobs+platforms+1 || eu.Count(ocitest.GetBlob) != 0 {
			t.Errorf("%d mounts, %d requests, %d reads", r.Mounted, us.Count(), eu.Count(ocitest.GetBlob))
		}
	})
}

func TestARefusedMountIsTheUploadSession(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{NoMount: true})
	c := ocitest.Image("image", 2)
	eu.Push(app, "v1", c)
	dst := to(us)
	dst.MountFrom = func(context.Context, digest.Digest) []string { return []string{"gone"} }
	r := copyTag(t, New(Options{Now: still()}), request(eu, c, dst), "v1")[0]
	if us.Count(ocitest.StartUpload) != 3 || us.Count(ocitest.PutUpload) != 3 || len(r.RefusedMounts) != 3 || r.RefusedMounts[0].Repository != "gone" {
		t.Errorf("%v %+v", us.Calls(), r)
	}
}

func TestTheOrderIsContentThenRootThenReferrersThenTag(t *testing.T) {
	for _, api := range []bool{true, false} {
		t.Run(fmt.Sprintf("api %v", api), func(t *testing.T) {
			eu, us := ocitest.New("oci://eu", ocitest.Options{ReferrersAPI: api}), ocitest.New("oci://us", ocitest.Options{})
			c := ocitest.Index(ocitest.MultiArch("deep", 2, 2), ocitest.Image("flat", 1))
			subject := c.Descriptor()
			sbom := ocitest.Artifact("sbom", "text/spdx", &subject)
			onSBOM := sbom.Descriptor()
			signed := ocitest.Artifact("signature of the sbom", "text/signature", &onSBOM)
			tag, cosign := ocitest.CosignTag("signature", c.Digest(), "sig")
			eu.Push(app, "v1", c)
			eu.Attach(app, sbom)
			eu.Attach(app, signed)
			eu.Push(app, tag, cosign)

			results := copyTag(t, New(Options{}), request(eu, c, to(us)), "v1")
			var order []string
			for _, call := range us.Calls() {
				if call.Method == ocitest.PutManifest && call.Err == nil {
					order = append(order, call.Reference)
				}
			}
			at := func(reference string) int { return slices.Index(order, reference) }
			root := at(c.Digest().String())
			for _, m := range c.Manifests[:len(c.Manifests)-1] {
				if i := at(m.Digest.String()); i < 0 || i > root {
					t.Errorf("child %s is put at %d, the root at %d", m.Digest, i, root)
				}
			}
			sequence := []int{root, at(sbom.Digest().String()), at(signed.Digest().String()), at("v1")}
			if !slices.IsSorted(sequence) || sequence[0] < 0 {
				t.Errorf("root, sbom, signature of the sbom, tag at %v of %v", sequence, order)
			}
			if i := at(tag); i < root || i > at("v1") {
				t.Errorf("cosign's tag at %d", i)
			}
			if at("v1") != len(order)-1 {
				t.Errorf("the tag is not the last: %v", order)
			}
			for _, referrer := range []ocitest.Content{sbom, signed, cosign} {
				if !us.Has(app, referrer) {
					t.Errorf("%s is not there", referrer.Digest())
				}
			}
			for _, subject := range []digest.Digest{c.Digest(), sbom.Digest()} {
				index, ok := us.Manifest(app, oci.FallbackTag(subject))
				refs, err := oci.ParseReferences(index)
				if !ok || err != nil || len(refs.Manifests) != 1 || refs.Manifests[0].ArtifactType == "" || refs.Manifests[0].Annotations == nil {
					t.Errorf("fallback of %s: %s %v", subject, index.Bytes, err)
				}
			}
			if len(results[0].Referrers) != 3 || !results[0].RootPushed {
				t.Errorf("referrers %v", results[0].Referrers)
			}
		})
	}
}

func TestWhatIsRefusedIsRefusedWithAReason(t *testing.T) {
	half := ocitest.MultiArch("half", 2, 1)
	hollow := ocitest.Image("hollow", 2)
	for _, test := range []struct {
		name    string
		content ocitest.Content
		prepare func(eu, us *ocitest.Registry)
		want    error
		finding string
	}{
		{"schema 1", ocitest.Schema1("old"), nil, oci.ErrUnsupported, "unsupported"},
		{"a child the source lacks", half, func(eu, _ *ocitest.Registry) { eu.Remove(app, half.Manifests[0].Digest) }, oci.ErrSourceIncomplete, "source-incomplete"},
		{"a blob the source lacks", hollow, func(eu, _ *ocitest.Registry) { eu.Remove(app, hollow.Blobs[1].Desc.Digest) }, oci.ErrSourceIncomplete, "source-incomplete"},
		{"a damaged child", half, func(eu, _ *ocitest.Registry) { eu.Corrupt(app, half.Manifests[1].Digest) }, oci.ErrMismatch, "mismatch"},
		{"a damaged blob", hollow, func(eu, _ *ocitest.Registry) { eu.Corrupt(app, hollow.Blobs[1].Desc.Digest) }, oci.ErrMismatch, "mismatch"},
		{"a type the destination refuses", half, func(_, us *ocitest.Registry) {
			us.OnCall(func(_ context.Context, c ocitest.Call) error {
				if c.Method == ocitest.PutManifest {
					return &oci.RegistryError{Status: 415, Kind: oci.ErrUnsupported}
				}
				return nil
			})
		}, oci.ErrUnsupported, "unsupported"},
		{"denied", hollow, func(_, us *ocitest.Registry) {
			us.OnCall(func(context.Context, ocitest.Call) error { return &oci.RegistryError{Status: 403, Kind: oci.ErrDenied} })
		}, oci.ErrDenied, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
			eu.Push(app, "v1", test.content)
			if test.prepare != nil {
				test.prepare(eu, us)
			}
			r := New(Options{}).Copy(context.Background(), request(eu, test.content, to(us)))[0]
			if !errors.Is(r.Err, test.want) {
				t.Fatalf("got %v, want %v", r.Err, test.want)
			}
			if got := strings.Join(kinds(r), ","); got != test.finding {
				t.Errorf("findings %q, want %q", got, test.finding)
			}
			for _, f := range r.Findings {
				if f.Digest == "" || f.Message == "" || f.Hint == "" {
					t.Errorf("an empty finding: %+v", f)
				}
			}
			if _, ok := us.Manifest(app, test.content.Digest().String()); ok {
				t.Error("the root is there")
			}
			if us.OpenSessions() != 0 {
				t.Errorf("%d sessions left open", us.OpenSessions())
			}
		})
	}
}

// What the source has lost may be at the destination already, though nobody
// knows of it: one HEAD finds out.
func TestABlobTheSourceLacksMayBeThere(t *testing.T) {
	image := ocitest.Image("app", 2)
	lost := image.Blobs[1].Desc.Digest
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	us.Push(app, "other", image)
	us.SetTag(app, "other", "")
	eu.Push(app, "v1", image)
	eu.Remove(app, lost)
	r := New(Options{}).Copy(context.Background(), request(eu, image, to(us)))[0]
	if r.Err != nil || r.Present != 1 || len(r.Findings) != 0 {
		t.Fatalf("%+v", r)
	}
	if n := us.Count(ocitest.HeadBlob); n != 1 {
		t.Errorf("%d HEADs of blobs", n)
	}
	if us.OpenSessions() != 0 {
		t.Errorf("%d sessions left open", us.OpenSessions())
	}
}

// A countingReader keeps the most that one reading gave.
type countingReader struct {
	io.Reader
	given int64
	most  *atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.given += int64(n)
	c.most.Store(max(c.most.Load(), c.given))
	return n, err
}

func TestADamagedBlobNeverCompletesAnUpload(t *testing.T) {
	for _, size := range []int{1, 1000, chunkSize, smallSize + 5, 20 * chunkSize} {
		eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
		layer := ocitest.Layer("damaged", size)
		c := ocitest.ImageOf("damaged", layer)
		eu.Push(app, "v1", c)
		eu.Corrupt(app, layer.Desc.Digest)
		var most atomic.Int64
		us.OnWrite(func(call ocitest.Call, r io.Reader) io.Reader {
			if call.Reference != layer.Desc.Digest.String() {
				return r
			}
			return &countingReader{Reader: r, most: &most}
		})
		r := New(Options{}).Copy(context.Background(), request(eu, c, to(us)))[0]
		if !errors.Is(r.Err, oci.ErrMismatch) || !slices.Equal(kinds(r), []string{"mismatch"}) || r.Findings[0].Digest != layer.Desc.Digest {
			t.Errorf("%d bytes: %v %v", size, r.Err, r.Findings)
		}
		reads := 0
		for _, call := range eu.Calls() {
			if call.Method == ocitest.GetBlob && call.Reference == layer.Desc.Digest.String() {
				reads++
			}
		}
		if reads != 2 {
			t.Errorf("%d bytes: read %d times", size, reads)
		}
		if most.Load() >= int64(size) {
			t.Errorf("%d bytes: the registry got %d of a false blob in one upload", size, most.Load())
		}
	}
}

func TestForeignLayersAreNamedOnce(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	c := ocitest.Index(ocitest.ForeignImage("a"), ocitest.ForeignImage("b"))
	eu.Push(app, "v1", c)
	r := copyTag(t, New(Options{Now: still()}), request(eu, c, to(us)), "v1")[0]
	if !slices.Equal(kinds(r), []string{string(replicator.FindingForeignLayer)}) || r.Findings[0].Digest != c.Digest() {
		t.Errorf("findings %v", r.Findings)
	}
	if n := eu.Count(ocitest.GetBlob); n != len(c.Blobs) {
		t.Errorf("%d blobs read of %d", n, len(c.Blobs))
	}
}

func TestHostileGraphsEnd(t *testing.T) {
	deep := ocitest.Image("deep", 1)
	for range oci.MaxDepth + 1 {
		deep = ocitest.Index(deep)
	}
	var many []ocitest.Content
	for i := range maxManifests + 1 {
		root := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"x","digest":%q,"size":1},"layers":[]}`, digest.FromString(fmt.Sprint(i)))
		many = append(many, ocitest.Content{Manifests: []oci.Manifest{{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString(root), Bytes: []byte(root)}}})
	}
	wide := ocitest.Index(many...)
	for name, c := range map[string]ocitest.Content{"deep": deep, "wide": wide} {
		eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
		eu.Push(app, "v1", c)
		r := New(Options{}).Copy(context.Background(), request(eu, c, to(us)))[0]
		if !errors.Is(r.Err, oci.ErrInvalid) || us.Count() != 0 || eu.Count() > maxManifests {
			t.Errorf("%s: %v after %d requests", name, r.Err, eu.Count())
		}
	}
}

func TestACopyEndsWithItsContext(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	c := ocitest.ImageOf("image", ocitest.Layer("layer", 3<<20))
	eu.Push(app, "v1", c)
	cause := errors.New("told to")
	ctx, cancel := context.WithCancelCause(context.Background())
	var once sync.Once
	req := request(eu, c, to(us))
	req.Progress = func(p Progress) {
		if p.Step == StepBlobBytes {
			once.Do(func() { cancel(cause) })
		}
	}
	if r := New(Options{}).Copy(ctx, req)[0]; !errors.Is(r.Err, cause) && !errors.Is(r.Err, context.Canceled) {
		t.Errorf("got %v", r.Err)
	}
}

func TestProgressIsToldForEveryStep(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	c := ocitest.MultiArch("steps", 2, 2)
	eu.Push(app, "v1", c)
	var mu sync.Mutex
	count, sums := map[Step]int{}, map[Step]int64{}
	req := request(eu, c, to(us))
	req.Progress = func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		count[p.Step]++
		sums[p.Step] += p.Bytes
	}
	var finished []int
	req.Finished = func(i int, r Result) { finished = append(finished, i) }
	r := copyTag(t, New(Options{}), req, "v1")[0]
	var all int64
	for _, b := range c.Blobs {
		all += b.Desc.Size
	}
	if sums[StepPlanned] != all || sums[StepBlobBytes] != all || sums[StepBlobDone] != all || r.UploadedBytes != all || r.ReadBytes != all {
		t.Errorf("%d bytes: %v, %+v", all, sums, r)
	}
	if count[StepManifestRead] != 2 || count[StepManifestPushed] != 2 || count[StepReferrers] != 1 || len(finished) != 1 {
		t.Errorf("%v, finished %v", count, finished)
	}
}
