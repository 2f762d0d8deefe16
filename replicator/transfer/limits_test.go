package transfer

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// wideIndex is an index of n images that share a layer and have a config each.
func wideIndex(n int) ocitest.Content {
	shared := ocitest.Layer("shared", 1000)
	images := make([]ocitest.Content, n)
	for i := range images {
		images[i] = ocitest.ImageOf(fmt.Sprintf("platform%d", i), shared)
	}
	return ocitest.Index(images...)
}

// TestLimitChildren: an index of 500 children costs one read each, and at the
// destination two requests for each blob and one for each manifest.
func TestLimitChildren(t *testing.T) {
	const n = 500
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	c := wideIndex(n)
	eu.Push(app, "v1", c)
	copyTag(t, New(Options{Now: still()}), request(eu, c, to(us)), "v1")
	if reads := eu.Count(ocitest.GetManifest); reads > n+4 { // the fallback tag and cosign's are asked for
		t.Errorf("%d manifests read", reads)
	}
	if reads := eu.Count(ocitest.GetBlob); reads != n+1 {
		t.Errorf("%d blobs read, not %d", reads, n+1)
	}
	if writes := us.Count(ocitest.StartUpload) + us.Count(ocitest.PutUpload); writes != 2*(n+1) {
		t.Errorf("%d requests for %d blobs", writes, n+1)
	}
	if writes := us.Count(ocitest.PutManifest); writes != n+1 {
		t.Errorf("%d manifests written, not %d", writes, n+1)
	}
}

// referred is a registry whose image has n referrers.
func referred(n int) (*ocitest.Registry, ocitest.Content) {
	eu := ocitest.New("oci://eu", ocitest.Options{ReferrersAPI: true})
	c := ocitest.Image("image", 1)
	subject := c.Descriptor()
	eu.Push(app, "v1", c)
	for i := range n {
		eu.Push(app, "", ocitest.Artifact(fmt.Sprint("signature", i), "text/signature", &subject))
	}
	return eu, c
}

// TestLimitReferrers: each referrer costs a fixed number of requests, and all
// arrive, listed by the API or by one index written once.
func TestLimitReferrers(t *testing.T) {
	const n = 1500
	eu, c := referred(n)
	for _, api := range []bool{true, false} {
		t.Run(fmt.Sprint("destination with the API ", api), func(t *testing.T) {
			us := ocitest.New("oci://us", ocitest.Options{ReferrersAPI: api})
			before := eu.Count()
			result := copyTag(t, New(Options{Now: still()}), request(eu, c, to(us)), "v1")[0]
			if len(result.Referrers) != n || len(result.Findings) != 0 {
				t.Fatalf("%d referrers, findings %v", len(result.Referrers), result.Findings)
			}
			// A manifest, its content and what refers to it in turn.
			if reads := eu.Count() - before; reads > 4*n+20 {
				t.Errorf("%d requests at the source for %d referrers", reads, n)
			}
			if writes := us.Count(); writes > 6*n+20 {
				t.Errorf("%d requests at the destination for %d referrers", writes, n)
			}
			if !api && len(listed(us, app, c.Digest())) != n {
				t.Errorf("%d listed", len(listed(us, app, c.Digest())))
			}
		})
	}
}

// limited bounds what one copy may hold alive, manifests and buffers included.
const limited = 64 << 20

// holding runs a copy and tells the most bytes that were alive meanwhile beyond
// what the destination, which is in memory too, holds of it in the end; it looks
// every so often, which takes time.
func holding(b *testing.B, us *ocitest.Registry, every time.Duration, run func() Result) (Result, uint64) {
	b.Helper()
	alive := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	most := alive()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		look := time.NewTicker(every)
		defer look.Stop()
		for {
			select {
			case <-stop:
				return
			case <-look.C:
				most = max(most, alive())
			}
		}
	}()
	result := run()
	close(stop)
	<-stopped
	after := alive()
	most = max(most, after)
	runtime.KeepAlive(us)
	if most-after > limited {
		b.Errorf("%d MiB are held during the copy", (most-after)>>20)
	}
	return result, most - after
}

// BenchmarkLimitReferrers copies an image with 10,000 referrers, the most that
// are followed.
func BenchmarkLimitReferrers(b *testing.B) {
	eu, c := referred(maxReferrers)
	for b.Loop() {
		us := ocitest.New("oci://us", ocitest.Options{ReferrersAPI: true})
		before := eu.Count()
		result, held := holding(b, us, 2*time.Second, func() Result { return New(Options{}).Copy(context.Background(), request(eu, c, to(us)))[0] })
		b.ReportMetric(float64(held)/(1<<20), "MiB-held")
		if result.Err != nil || len(result.Referrers) != maxReferrers {
			b.Fatalf("%d referrers, %v, %v", len(result.Referrers), result.Err, result.Findings)
		}
		b.ReportMetric(float64(eu.Count()-before), "source-requests")
		b.ReportMetric(float64(us.Count()), "destination-requests")
	}
}

// BenchmarkLimitChildren copies an index of 500 children.
func BenchmarkLimitChildren(b *testing.B) {
	eu := ocitest.New("oci://eu", ocitest.Options{})
	c := wideIndex(500)
	eu.Push(app, "v1", c)
	for b.Loop() {
		us := ocitest.New("oci://us", ocitest.Options{})
		before := eu.Count()
		result, held := holding(b, us, 10*time.Millisecond, func() Result { return New(Options{}).Copy(context.Background(), request(eu, c, to(us)))[0] })
		b.ReportMetric(float64(held)/(1<<20), "MiB-held")
		if result.Err != nil {
			b.Fatal(result.Err)
		}
		b.ReportMetric(float64(eu.Count()-before), "source-requests")
		b.ReportMetric(float64(us.Count()), "destination-requests")
	}
}

// TestManifestBombs: graphs made to be dear are refused, whole, before the
// destination is asked anything, and what is held of them is bounded.
func TestManifestBombs(t *testing.T) {
	const mib = 1 << 20
	image := func(text string) ocitest.Content {
		return ocitest.Content{Manifests: []oci.Manifest{{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString(text), Bytes: []byte(text)}}}
	}
	// Children of 4 MiB each, more than one copy may hold.
	var heavy []ocitest.Content
	for i := range 20 {
		heavy = append(heavy, image(fmt.Sprintf(`{"schemaVersion":2,"annotations":{"%d":%q}}`, i, strings.Repeat("x", 4*mib-100))))
	}
	// Children that are small, but not once they are read.
	var dense []ocitest.Content
	for i := range 12 {
		dense = append(dense, image(fmt.Sprintf(`{"schemaVersion":2,"annotations":{"%d":"",%s}}`, i, strings.TrimSuffix(strings.Repeat(`"a":"",`, oci.MaxValues/2-100), ","))))
	}
	// An index whose child says it is larger or smaller than it is.
	liar := ocitest.Index(ocitest.Image("liar", 1))
	root := liar.Root()
	text := strings.Replace(string(root.Bytes), `"size":`, `"size":1`, 1)
	liar.Manifests[len(liar.Manifests)-1] = oci.Manifest{MediaType: root.MediaType, Digest: digest.FromString(text), Bytes: []byte(text)}
	for name, c := range map[string]struct {
		content ocitest.Content
		want    error
	}{
		"heavy": {ocitest.Index(heavy...), oci.ErrInvalid},
		"dense": {ocitest.Index(dense...), oci.ErrInvalid},
		"liar":  {liar, oci.ErrMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
			eu.Push(app, "v1", c.content)
			copier := New(Options{})
			result := copier.Copy(context.Background(), request(eu, c.content, to(us)))[0]
			if !errors.Is(result.Err, c.want) || us.Count() != 0 {
				t.Errorf("%v after %d requests at the destination", result.Err, us.Count())
			}
			if held := copier.manifestBytes.Load(); held != 0 {
				t.Errorf("%d bytes are still counted", held)
			}
		})
	}
}
