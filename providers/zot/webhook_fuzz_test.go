package zot

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/twinport/twinport/replicator"
)

// FuzzWebhook gives the decoder any body: it never panics and never tells more
// than it may.
func FuzzWebhook(f *testing.F) {
	for _, pattern := range []string{"captured/zot-*/*.http", "events/zot-*.json"} {
		list, err := filepath.Glob(filepath.Join("..", "..", "replicator", "intake", "testdata", pattern))
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range list {
			content, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			if _, body, ok := bytes.Cut(content, []byte("\r\n\r\n")); ok {
				content = body
			}
			f.Add("", content)
			f.Add("zotregistry.image.updated", content)
		}
	}
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		header := http.Header{}
		if kind != "" {
			header["Ce-Type"] = []string{kind}
		}
		d := Webhook{}.Decode(header, body)
		if len(d.Events) > replicator.MaxWebhookEvents || len(d.Why) > 300 || d.Ignored < 0 || d.Unusable < 0 || (d.Unusable > 0) != (d.Why != "") {
			t.Errorf("%d events, %d ignored, %d unusable: %q", len(d.Events), d.Ignored, d.Unusable, d.Why)
		}
		for _, e := range d.Events {
			if e.Action != replicator.Push && e.Action != replicator.Delete || e.Registry != "" {
				t.Errorf("event %+v", e)
			}
		}
	})
}
