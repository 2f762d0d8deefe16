package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A shelf is a registry in this process that costs as little as it can: blobs
// are slices shared by whoever lists them, and what is uploaded is counted and
// dropped. It takes everybody's word for digests.
type shelf struct {
	mu        sync.Mutex
	blobs     map[digest.Digest][]byte
	sizes     map[digest.Digest]int64 // of what was uploaded
	manifests map[string][]byte       // by repository/reference
	tags      map[string][]string     // by repository
	uploaded  int64
}

func newShelf() *shelf {
	return &shelf{
		blobs: make(map[digest.Digest][]byte), sizes: make(map[digest.Digest]int64),
		manifests: make(map[string][]byte), tags: make(map[string][]string),
	}
}

// put stores an image of layers under a tag.
func (s *shelf) put(repository, tag string, layers ...[]byte) {
	config := []byte(`{"os":"linux","architecture":"amd64"}`)
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: v1.Descriptor{MediaType: v1.MediaTypeImageConfig}}
	m.SchemaVersion = 2
	m.Config.Digest, m.Config.Size = s.hold(config)
	for _, layer := range layers {
		desc := v1.Descriptor{MediaType: v1.MediaTypeImageLayer}
		desc.Digest, desc.Size = s.hold(layer)
		m.Layers = append(m.Layers, desc)
	}
	body, _ := json.Marshal(m) // such a struct always can be
	s.manifests[repository+"/"+digest.FromBytes(body).String()] = body
	s.manifests[repository+"/"+tag] = body
	s.tags[repository] = append(s.tags[repository], tag)
}

func (s *shelf) hold(b []byte) (digest.Digest, int64) {
	d := digest.FromBytes(b)
	s.blobs[d] = b
	return d, int64(len(b))
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	repository, rest, kind := path, "", ""
	for _, k := range []string{"/blobs/uploads/", "/blobs/", "/manifests/", "/tags/"} {
		if before, after, ok := strings.Cut(path, k); ok {
			repository, rest, kind = before, after, k
			break
		}
	}
	switch kind {
	case "/blobs/uploads/":
		s.upload(w, r, repository)
	case "/blobs/":
		s.blob(w, r, digest.Digest(rest))
	case "/manifests/":
		s.manifest(w, r, repository, rest)
	case "/tags/":
		s.list(w, "tags", repository)
	default:
		switch path {
		case "":
		case "_catalog":
			s.list(w, "repositories", "")
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}
}

func (s *shelf) list(w http.ResponseWriter, key, repository string) {
	s.mu.Lock()
	names := slices.Clone(s.tags[repository])
	if key == "repositories" {
		for name := range s.tags {
			names = append(names, name)
		}
	}
	s.mu.Unlock()
	if names == nil && key == "tags" {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[{"code":"NAME_UNKNOWN"}]}`)
		return
	}
	slices.Sort(names)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"name": repository, key: append([]string{}, names...)})
}

func (s *shelf) upload(w http.ResponseWriter, r *http.Request, repository string) {
	if r.Method == http.MethodPost {
		w.Header().Set("Location", "/v2/"+repository+"/blobs/uploads/session")
		w.WriteHeader(http.StatusAccepted)
		return
	}
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.sizes[digest.Digest(r.URL.Query().Get("digest"))] = n
	s.uploaded += n
	s.mu.Unlock()
	w.WriteHeader(http.StatusCreated)
}

func (s *shelf) blob(w http.ResponseWriter, r *http.Request, d digest.Digest) {
	s.mu.Lock()
	data, held := s.blobs[d]
	size, known := s.sizes[d]
	s.mu.Unlock()
	switch {
	case held:
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	case known && r.Method == http.MethodHead:
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *shelf) manifest(w http.ResponseWriter, r *http.Request, repository, reference string) {
	key := repository + "/" + reference
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodPut {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.manifests[key] = body
		s.manifests[repository+"/"+digest.FromBytes(body).String()] = body
		if !strings.Contains(reference, ":") {
			s.tags[repository] = append(s.tags[repository], reference)
		}
		w.WriteHeader(http.StatusCreated)
		return
	}
	body, ok := s.manifests[key]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", v1.MediaTypeImageManifest)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(body).String())
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// BenchmarkSync is a whole `twinport sync` in this process, from config to
// proof, between registries that cost next to nothing: what profiles show is
// twinport's own, and net/http's on both ends.
func BenchmarkSync(b *testing.B) {
	cases := []struct {
		name                string
		tags, layers, bytes int
	}{
		{"small", 200, 5, 16 << 10},
		{"large", 4, 2, 128 << 20},
	}
	for _, c := range cases {
		var source *httptest.Server
		total := int64(c.tags) * int64(c.layers) * int64(c.bytes)
		b.Run(c.name, func(b *testing.B) {
			if source == nil { // it is run several times
				eu := newShelf()
				for i := range c.tags {
					var layers [][]byte
					for l := range c.layers {
						layer := make([]byte, c.bytes)
						binary.BigEndian.PutUint64(layer, uint64(i*c.layers+l))
						layers = append(layers, layer)
					}
					eu.put("team/app"+strconv.Itoa(i%10), "v"+strconv.Itoa(i), layers...)
				}
				source = httptest.NewServer(eu)
			}
			b.ResetTimer()
			b.SetBytes(total)
			for range b.N {
				us := newShelf()
				destination := httptest.NewServer(us)
				dir := b.TempDir()
				config := filepath.Join(dir, "twinport.yaml")
				text := fmt.Sprintf("data: %s\nregistries:\n  eu: {kind: oci, address: %q, plainHTTP: true, auth: {anonymous: true}}\n"+
					"  us: {kind: oci, address: %q, plainHTTP: true, auth: {anonymous: true}}\nroutes: [{name: prod, from: eu, to: [us]}]\n",
					filepath.Join(dir, "data"), strings.TrimPrefix(source.URL, "http://"), strings.TrimPrefix(destination.URL, "http://"))
				if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
					b.Fatal(err)
				}
				root := newRoot()
				root.SetArgs([]string{"sync", "--config", config})
				root.SetOut(io.Discard)
				root.SetErr(io.Discard)
				if err := root.ExecuteContext(b.Context()); err != nil {
					b.Fatalf("sync: %v", err)
				}
				destination.Close()
				if us.uploaded < total {
					b.Fatalf("%d of %d bytes arrived", us.uploaded, total)
				}
			}
		})
		if source != nil {
			source.Close()
		}
	}
}
