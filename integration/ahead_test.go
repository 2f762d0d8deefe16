package integration

import (
	"context"
	"net/http"
	"testing"

	"github.com/twinport/twinport/integration/harness"
)

// While a push is still going on, the layers that the source has are already
// at the destination; its manifest then finds them there.
func TestLayersTravelWhileThePushGoesOn(t *testing.T) {
	t.Parallel()
	w := start(t, setup{exact: true})
	img := w.content.Image(harness.ImageSpec{Layers: 3, LayerSize: 5 << 20})
	dst := keep(w.proxy["us"])
	for _, blob := range img.Blobs {
		if err := w.eu.PushBlob(t.Context(), "team/app", blob); err != nil {
			t.Fatal(err)
		}
	}
	harness.WaitFor(t, "the layers at the destination", soon, func(ctx context.Context) error {
		for _, blob := range img.Blobs {
			if _, err := w.us.BlobSize(ctx, "team/app", blob.Digest); err != nil {
				return err
			}
		}
		return nil
	})
	if err := absent(t.Context(), w.us, "team/app", "v1"); err != nil {
		t.Error(err)
	}
	w.push("team/app", img, "v1")
	harness.WaitHas(t, w.us, "team/app", "v1", img, soon)
	w.WaitSettled(soon)
	w.noFindings()
	puts := 0
	for _, r := range dst.all() {
		if r.Method == http.MethodPut && r.Class == harness.Upload {
			puts++
		}
	}
	if puts != len(img.Blobs) {
		t.Errorf("%d blobs were uploaded %d times:\n%s", len(img.Blobs), puts, dst)
	}
}
