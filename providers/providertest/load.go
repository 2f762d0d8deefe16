package providertest

import (
	"fmt"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator/oci"
)

// Backfill pushes images of five blobs, each by its digest and by a tag,
// atOnce of them side by side, as a daemon has them. It gives the writes a
// second: starts, uploads and manifests. Call it in a synctest bubble.
func Backfill(t *testing.T, repo oci.Repository, images, atOnce int) float64 {
	t.Helper()
	const blobs, manifests = 5, 2
	began := time.Now()
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i := range images {
		group.Go(func() error {
			var layers []v1.Descriptor
			for range blobs {
				layers = append(layers, PushBlob(t, repo, Random(50)))
			}
			m := Image(nil, layers[0], layers[1:]...)
			if _, err := repo.PushManifest(t.Context(), m.Digest.String(), m); err != nil {
				return err
			}
			_, err := repo.PushManifest(t.Context(), fmt.Sprintf("v%d", i), m)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return float64((2*blobs+manifests)*images) / time.Since(began).Seconds()
}

// SixHours pushes and resolves an image each minute; now and then revoke ends
// all that a login gave, in the middle of an upload. Nothing may fail. Call it
// in a synctest bubble, with tokens that end every few minutes.
func SixHours(t *testing.T, repo oci.Repository, revoke func()) {
	t.Helper()
	for minute := range 360 {
		content := Random(2000)
		upload, _, err := repo.Start(t.Context(), Describe("", content), nil)
		if err != nil {
			t.Fatalf("minute %d: %v", minute, err)
		}
		if minute%7 == 3 {
			revoke()
		}
		if err := upload.Put(t.Context(), Bytes(content)); err != nil {
			t.Fatalf("minute %d: %v", minute, err)
		}
		tag := fmt.Sprintf("v%d", minute)
		m := PushImage(t, repo, tag, nil)
		if desc, err := repo.Resolve(t.Context(), tag); err != nil || desc.Digest != m.Digest {
			t.Fatalf("minute %d: %v, %v", minute, desc, err)
		}
		time.Sleep(time.Minute)
	}
}
