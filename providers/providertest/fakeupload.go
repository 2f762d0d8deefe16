package providertest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/opencontainers/go-digest"
)

// upload serves sessions. A cut body is kept as far as it came.
func (f *Fake) upload(w http.ResponseWriter, r *http.Request, name, id string) {
	if r.Method == http.MethodPost {
		f.startUpload(w, r, name)
		return
	}
	f.mu.Lock()
	u := f.uploads[id]
	stale := u != nil && r.URL.Query().Get("step") != strconv.Itoa(u.step) && r.Method != http.MethodGet && r.Method != http.MethodDelete
	f.mu.Unlock()
	switch {
	case u == nil || u.repo != name:
		Fail(w, 404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
		return
	case stale:
		Fail(w, 416, "RANGE_INVALID", "upload resumed at wrong offset")
		return
	}
	if r.Method == http.MethodPatch && !f.append(w, r, u) {
		return
	}
	if r.Method == http.MethodPut && !f.take(r, u) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r.Method {
	case http.MethodGet:
		f.where(w, u, id, http.StatusNoContent)
	case http.MethodPatch:
		f.where(w, u, id, http.StatusAccepted)
	case http.MethodDelete:
		delete(f.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPut:
		d := digest.Digest(r.URL.Query().Get("digest"))
		if d.Validate() != nil || d.Algorithm().FromBytes(u.data) != d {
			Fail(w, 400, "DIGEST_INVALID", "provided digest did not match uploaded content")
			return
		}
		f.repo(name).blobs[d] = u.data
		delete(f.uploads, id)
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(u.data).String())
		w.WriteHeader(http.StatusCreated)
	default:
		Fail(w, 405, "UNSUPPORTED", "method")
	}
}

func (f *Fake) startUpload(w http.ResponseWriter, r *http.Request, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := r.URL.Query()
	if mount := digest.Digest(q.Get("mount")); mount != "" && !f.NoMount {
		if data, ok := f.repo(q.Get("from")).blobs[mount]; ok {
			f.repo(name).blobs[mount] = data
			w.Header().Set("Docker-Content-Digest", mount.String())
			w.WriteHeader(http.StatusCreated)
			return
		}
	}
	f.next++
	id := "session-" + strconv.Itoa(f.next)
	if f.uploads == nil {
		f.uploads = make(map[string]*fakeUpload)
	}
	f.uploads[id] = &fakeUpload{repo: name}
	f.where(w, f.uploads[id], id, http.StatusAccepted)
}

// append takes a chunk that says where it belongs.
func (f *Fake) append(w http.ResponseWriter, r *http.Request, u *fakeUpload) bool {
	var first, last int64
	if n, err := fmt.Sscanf(r.Header.Get("Content-Range"), "%d-%d", &first, &last); err == nil && n == 2 && first != int64(len(u.data)) {
		Fail(w, 416, "RANGE_INVALID", "chunk out of order")
		return false
	}
	return f.take(r, u)
}

func (f *Fake) take(r *http.Request, u *fakeUpload) bool {
	var got bytes.Buffer
	_, err := io.Copy(&got, r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	u.data = append(u.data, got.Bytes()...)
	u.step++
	return err == nil
}

func (f *Fake) where(w http.ResponseWriter, u *fakeUpload, id string, status int) {
	w.Header().Set("Location", "/v2/"+u.repo+"/blobs/uploads/"+id+"?step="+strconv.Itoa(u.step))
	w.Header().Set("Range", "0-"+strconv.Itoa(max(0, len(u.data)-1)))
	w.WriteHeader(status)
}
