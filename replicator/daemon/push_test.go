package daemon

import (
	"testing"

	"github.com/twinport/twinport/replicator/oci/ocitest"
)

func TestOnePush(t *testing.T) {
	in(t, star(), func(w *world) {
		image := ocitest.MultiArch("app", 3, 2)
		w.push("eu", app, "v1", image)
		w.proven("us", app, "v1", image)
		w.rest()
	})
}
