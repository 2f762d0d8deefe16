package transfer

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// The emulated link: every answer takes as long as over 80 ms.
const linkRTT = 80 * time.Millisecond

// BenchmarkSmallImagesOverALink copies 20 images of 5 layers of 200 KiB, side
// by side; what it takes beyond some round trips is ours.
func BenchmarkSmallImagesOverALink(b *testing.B) {
	const images, layers = 20, 5
	b.SetBytes(images * layers * 200 << 10)
	for b.Loop() {
		eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
		slow := func(ctx context.Context, _ ocitest.Call) error {
			select {
			case <-time.After(linkRTT):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		var requests []Request
		for i := range images {
			var content []ocitest.Blob
			for l := range layers {
				content = append(content, ocitest.Layer(fmt.Sprint(i, l), 200<<10))
			}
			c := ocitest.ImageOf(fmt.Sprint("image", i), content...)
			eu.Push(app, fmt.Sprint("v", i), c)
			requests = append(requests, request(eu, c, to(us)))
		}
		eu.OnCall(slow)
		us.OnCall(slow)
		copier := New(Options{})
		var all sync.WaitGroup
		for _, r := range requests {
			all.Go(func() {
				if result := copier.Copy(context.Background(), r)[0]; result.Err != nil {
					b.Error(result.Err)
				}
			})
		}
		all.Wait()
		b.ReportMetric(float64(len(eu.Calls())+len(us.Calls()))/images, "requests/image")
	}
}

// BenchmarkGreatBlobOverALink reads 128 MiB from a source that gives 20 MB/s a
// connection and 200 MB/s in all.
func BenchmarkGreatBlobOverALink(b *testing.B) {
	content, desc := randomBlob(128 * mega)
	b.SetBytes(desc.Size)
	for b.Loop() {
		f := &farSource{content: content, rtt: linkRTT, perConnection: 20e6, perLink: 200e6}
		in := &blobReader{
			ctx: context.Background(), src: f, desc: desc, pool: newPool(192), read: func(int) {},
			others: func() int { return 0 }, nearest: func(d time.Duration) time.Duration { return d },
		}
		if _, err := io.Copy(io.Discard, in); err != nil {
			b.Fatal(err)
		}
		in.close()
		b.ReportMetric(float64(f.requests.Load()), "requests")
		b.ReportMetric(float64(f.most.Load()), "connections")
	}
}
