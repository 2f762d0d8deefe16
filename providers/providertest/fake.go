package providertest

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// A Fake is a registry in memory, strict as distribution is: it takes no
// manifest whose parts are missing, keeps the part of a cut upload, and wants
// each step of a session at its own address. Or it stands before another
// registry, with the same refusals. Set its fields before it serves.
type Fake struct {
	// Upstream, where set, keeps the content instead of memory: any registry
	// that asks for no login. Nothing but the distribution protocol is asked of it.
	Upstream http.Handler
	// Username and Password: asked for where set; Tokens asks for them at
	// /token (distribution's token specification) instead of on each request.
	Username, Password string
	Tokens             bool
	// TokenSeconds is a token's life, told and kept; 0: an hour, not told.
	TokenSeconds int
	// Page bounds lists; MaxPage answers 400 to those that ask for more.
	Page, MaxPage int
	// NoCatalog, NoReferrers, NoMount, NoRanges leave abilities out.
	NoCatalog, NoReferrers, NoMount, NoRanges bool
	// Immutable refuses to move tags, even to what they name.
	Immutable bool
	// Deletes is what becomes of a DELETE of a manifest.
	Deletes Deletes
	// Blobs is the address to which blob reads are redirected, empty: none.
	Blobs string
	// Before sees every request first; true means that it has answered.
	Before func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	repos    map[string]*fakeRepo
	uploads  map[string]*fakeUpload
	tokens   map[string]fakeToken
	next     int
	requests []string
	denied   []string
}

type fakeRepo struct {
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]fakeManifest
	tags      map[string]digest.Digest
}

type fakeManifest struct {
	mediaType string
	bytes     []byte
	subject   digest.Digest
}

type fakeUpload struct {
	repo string
	data []byte
	step int
}

type fakeToken struct {
	scopes  []string
	expires time.Time
}

// Requests are those served so far, as `METHOD /path`.
func (f *Fake) Requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

// Count is how many requests so far begin with a method and hold a word.
func (f *Fake) Count(method, word string) int {
	n := 0
	for _, r := range f.Requests() {
		if strings.HasPrefix(r, method+" ") && strings.Contains(r, word) {
			n++
		}
	}
	return n
}

// Revoke ends all tokens given so far.
func (f *Fake) Revoke() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.tokens)
}

// Blob gives a stored blob.
func (f *Fake) Blob(repo string, d digest.Digest) ([]byte, bool) {
	if f.Upstream != nil {
		w := f.ask(http.MethodGet, "/v2/"+repo+"/blobs/"+d.String(), nil)
		return w.Body.Bytes(), w.Code == http.StatusOK
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.repo(repo).blobs[d]
	return b, ok
}

// SetBlob stores bytes under a digest in memory, whether they are its or not.
func (f *Fake) SetBlob(repo string, d digest.Digest, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.repo(repo).blobs[d] = data
}

// SetManifest stores bytes in memory under their digest and, where given, a tag.
func (f *Fake) SetManifest(repo, tag, mediaType string, data []byte) digest.Digest {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := digest.FromBytes(data)
	f.repo(repo).manifests[d] = fakeManifest{mediaType: mediaType, bytes: data}
	if tag != "" {
		f.repo(repo).tags[tag] = d
	}
	return d
}

// Repos are the repositories, sorted.
func (f *Fake) Repos() []string {
	if f.Upstream != nil {
		names, _ := f.names("/v2/_catalog", "repositories")
		return slices.Sorted(slices.Values(names))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.repos))
}

// Has tells whether there is a repository.
func (f *Fake) Has(repo string) bool {
	if f.Upstream != nil {
		return f.ask(http.MethodGet, "/v2/"+repo+"/tags/list", nil).Code == http.StatusOK
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.repos[repo] != nil
}

// Tags are a repository's, and what they name.
func (f *Fake) Tags(repo string) map[string]digest.Digest {
	if f.Upstream != nil {
		names, ok := f.names("/v2/"+repo+"/tags/list", "tags")
		if !ok {
			return nil
		}
		tags := make(map[string]digest.Digest)
		for _, tag := range names {
			if d := f.named(repo, tag); d != "" {
				tags[tag] = d
			}
		}
		return tags
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.repos[repo] == nil {
		return nil
	}
	return maps.Clone(f.repos[repo].tags)
}

// Tag is what one tag names, empty where there is none.
func (f *Fake) Tag(repo, tag string) digest.Digest {
	if f.Upstream != nil {
		return f.named(repo, tag)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.repos[repo] == nil {
		return ""
	}
	return f.repos[repo].tags[tag]
}

func (f *Fake) repo(name string) *fakeRepo {
	if f.repos == nil {
		f.repos = make(map[string]*fakeRepo)
	}
	if f.repos[name] == nil {
		f.repos[name] = &fakeRepo{
			blobs: make(map[digest.Digest][]byte), manifests: make(map[digest.Digest]fakeManifest), tags: make(map[string]digest.Digest),
		}
	}
	return f.repos[name]
}

var fakePaths = regexp.MustCompile(`^/v2/(.+?)/(manifests|blobs/uploads|blobs|tags|referrers)/(.*)$`)

// ServeHTTP serves the registry's API and, with Tokens, /token.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r.Method+" "+r.URL.Path)
	f.mu.Unlock()
	if f.Before != nil && f.Before(w, r) {
		return
	}
	if r.URL.Path == "/token" && f.Tokens {
		f.serveToken(w, r)
		return
	}
	parts := fakePaths.FindStringSubmatch(r.URL.Path)
	if !f.authorized(r, parts) {
		f.challenge(w, r, parts)
		return
	}
	if f.denies(action(r, parts)) {
		Fail(w, http.StatusForbidden, "DENIED", "requested access to the resource is denied")
		return
	}
	switch {
	case r.URL.Path == "/v2/":
		_, _ = io.WriteString(w, "{}")
	case r.URL.Path == "/v2/_catalog" && !f.NoCatalog:
		f.catalog(w, r)
	case parts == nil, parts[2] == "referrers" && f.NoReferrers:
		http.NotFound(w, r)
	case parts[2] == "tags":
		f.tagList(w, r, parts[1])
	case f.Upstream != nil:
		f.pass(w, r, parts[1], parts[2], parts[3])
	case parts[2] == "manifests":
		f.manifest(w, r, parts[1], parts[3])
	case parts[2] == "blobs" && r.Method == http.MethodDelete:
		f.eraseBlob(w, parts[1], digest.Digest(parts[3]))
	case parts[2] == "blobs":
		f.blob(w, r, parts[1], digest.Digest(parts[3]))
	case parts[2] == "blobs/uploads":
		f.upload(w, r, parts[1], parts[3])
	default:
		f.referrers(w, parts[1], digest.Digest(parts[3]))
	}
}

// Fail writes an error as distribution-spec has it.
func Fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

func (f *Fake) manifest(w http.ResponseWriter, r *http.Request, name, reference string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r.Method {
	case http.MethodPut:
		f.putManifest(w, r, name, reference)
		return
	case http.MethodDelete:
		f.deleteManifest(w, name, reference)
		return
	}
	if f.repos[name] == nil {
		Fail(w, 404, "NAME_UNKNOWN", "repository name not known to registry")
		return
	}
	repo := f.repo(name)
	d := digest.Digest(reference)
	if tagged, ok := repo.tags[reference]; ok {
		d = tagged
	}
	m, ok := repo.manifests[d]
	if !ok {
		Fail(w, 404, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	if !strings.Contains(r.Header.Get("Accept"), m.mediaType) {
		Fail(w, 404, "MANIFEST_UNKNOWN", "no such media type accepted")
		return
	}
	w.Header().Set("Content-Type", m.mediaType+"; charset=utf-8")
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(m.bytes).String()) // of sha256, always
	w.Header().Set("Content-Length", strconv.Itoa(len(m.bytes)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(m.bytes)
	}
}

func (f *Fake) putManifest(w http.ResponseWriter, r *http.Request, name, reference string) {
	data, err := io.ReadAll(io.LimitReader(r.Body, 4<<20+1))
	if err != nil {
		return
	}
	if len(data) > 4<<20 {
		Fail(w, 400, "MANIFEST_INVALID", "request body too large")
		return
	}
	d := digest.FromBytes(data)
	if asked := digest.Digest(reference); strings.Contains(reference, ":") {
		if asked.Validate() != nil || asked.Algorithm().FromBytes(data) != asked {
			Fail(w, 400, "DIGEST_INVALID", "provided digest did not match uploaded content")
			return
		}
		d = asked
	}
	var doc parts
	if json.Unmarshal(data, &doc) != nil {
		Fail(w, 400, "MANIFEST_INVALID", "manifest invalid")
		return
	}
	repo := f.repo(name)
	for _, desc := range doc.blobs() {
		if _, ok := repo.blobs[desc.Digest]; !ok {
			Fail(w, 400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
			return
		}
	}
	for _, desc := range doc.Manifests {
		if _, ok := repo.manifests[desc.Digest]; !ok {
			Fail(w, 400, "MANIFEST_BLOB_UNKNOWN", "manifest unknown to registry")
			return
		}
	}
	m := fakeManifest{mediaType: r.Header.Get("Content-Type"), bytes: data}
	if doc.Subject != nil {
		m.subject = doc.Subject.Digest
		if !f.NoReferrers {
			w.Header().Set("OCI-Subject", m.subject.String())
		}
	}
	if !strings.Contains(reference, ":") {
		if _, there := repo.tags[reference]; there && f.Immutable {
			Fail(w, 409, "TAG_IMMUTABLE", "tag is immutable")
			return
		}
		repo.tags[reference] = d
	}
	repo.manifests[d] = m
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(data).String())
	w.Header().Set("Location", "/v2/"+name+"/manifests/"+d.String())
	w.WriteHeader(http.StatusCreated)
}

func (f *Fake) blob(w http.ResponseWriter, r *http.Request, name string, d digest.Digest) {
	f.mu.Lock()
	data, ok := f.repo(name).blobs[d]
	f.mu.Unlock()
	switch {
	case !ok:
		Fail(w, 404, "BLOB_UNKNOWN", "blob unknown to registry")
	case f.Blobs != "":
		http.Redirect(w, r, f.Blobs+r.URL.Path+"?signature=s3cr3t-signature", http.StatusTemporaryRedirect)
	default:
		if f.NoRanges {
			r.Header.Del("Range")
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Docker-Content-Digest", d.String())
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
}
