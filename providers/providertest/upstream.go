package providertest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// accepted are the media types that a fake asks its upstream for.
var accepted = []string{
	v1.MediaTypeImageManifest, v1.MediaTypeImageIndex,
	"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json",
}

// ask has the upstream answer what the fake itself wants to know.
func (f *Fake) ask(method, path string, query url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://upstream.invalid"+path, nil)
	r.URL.RawQuery = query.Encode()
	r.RequestURI = r.URL.RequestURI()
	r.Header["Accept"] = accepted
	w := httptest.NewRecorder()
	f.Upstream.ServeHTTP(w, r)
	return w
}

// names walks one of the upstream's lists to its end. ok: it is there.
func (f *Fake) names(path, field string) (names []string, ok bool) {
	query := url.Values{"n": {"1000"}}
	for {
		w := f.ask(http.MethodGet, path, query)
		var doc map[string]json.RawMessage
		var page []string
		if w.Code != http.StatusOK || json.Unmarshal(w.Body.Bytes(), &doc) != nil {
			return nil, false
		}
		_ = json.Unmarshal(doc[field], &page) // null where there are none
		names = append(names, page...)
		if w.Header().Get("Link") == "" || len(page) == 0 {
			return names, true
		}
		query.Set("last", page[len(page)-1])
	}
}

// named is what a tag of the upstream's names, empty where there is none.
func (f *Fake) named(repo, tag string) digest.Digest {
	w := f.ask(http.MethodHead, "/v2/"+repo+"/manifests/"+tag, nil)
	if w.Code != http.StatusOK {
		return ""
	}
	return digest.Digest(w.Header().Get("Docker-Content-Digest"))
}

// pass hands a request on to the upstream, which never sees a credential, after
// the refusals that are the fake's own.
func (f *Fake) pass(w http.ResponseWriter, r *http.Request, name, what, reference string) {
	on := r.Clone(r.Context())
	for _, secret := range []string{"Authorization", "Cookie"} {
		on.Header.Del(secret)
	}
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case what == "manifests" && r.Method == http.MethodPut:
		data, err := io.ReadAll(io.LimitReader(r.Body, 4<<20+1))
		if err != nil {
			return
		}
		if code, message := f.lacks(name, reference, data); code != "" {
			Fail(w, http.StatusBadRequest, code, message)
			return
		}
		if f.Immutable && !strings.Contains(reference, ":") && f.named(name, reference) != "" {
			Fail(w, http.StatusConflict, "TAG_IMMUTABLE", "tag is immutable")
			return
		}
		on.Body, on.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
	case what == "blobs" && read && f.Blobs != "":
		if there := f.ask(http.MethodHead, r.URL.Path, nil); there.Code == http.StatusOK {
			http.Redirect(w, r, f.Blobs+r.URL.Path+"?signature=s3cr3t-signature", http.StatusTemporaryRedirect)
			return
		}
	case what == "blobs" && f.NoRanges:
		on.Header.Del("Range")
	case what == "blobs/uploads" && f.NoMount:
		query := on.URL.Query()
		query.Del("mount")
		query.Del("from")
		on.URL.RawQuery = query.Encode()
	}
	f.Upstream.ServeHTTP(w, on)
}

// lacks tells what a manifest wants that the upstream does not have: it may be
// a registry that takes such manifests.
func (f *Fake) lacks(name, reference string, data []byte) (code, message string) {
	var doc parts
	asked := digest.Digest(reference)
	switch {
	case len(data) > 4<<20:
		return "MANIFEST_INVALID", "request body too large"
	case strings.Contains(reference, ":") && (asked.Validate() != nil || asked.Algorithm().FromBytes(data) != asked):
		return "DIGEST_INVALID", "provided digest did not match uploaded content"
	case json.Unmarshal(data, &doc) != nil:
		return "MANIFEST_INVALID", "manifest invalid"
	}
	for _, desc := range doc.blobs() {
		if len(desc.URLs) == 0 && f.ask(http.MethodHead, "/v2/"+name+"/blobs/"+desc.Digest.String(), nil).Code != http.StatusOK {
			return "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"
		}
	}
	for _, desc := range doc.Manifests {
		if f.ask(http.MethodHead, "/v2/"+name+"/manifests/"+desc.Digest.String(), nil).Code != http.StatusOK {
			return "MANIFEST_BLOB_UNKNOWN", "manifest unknown to registry"
		}
	}
	return "", ""
}

// parts are what a manifest refers to.
type parts struct {
	Config    *v1.Descriptor  `json:"config"`
	Layers    []v1.Descriptor `json:"layers"`
	Manifests []v1.Descriptor `json:"manifests"`
	Subject   *v1.Descriptor  `json:"subject"`
}

func (p parts) blobs() []v1.Descriptor {
	if p.Config == nil {
		return p.Layers
	}
	return append(p.Layers[:len(p.Layers):len(p.Layers)], *p.Config)
}
