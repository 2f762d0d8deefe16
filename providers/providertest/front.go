package providertest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Pushed is when everything at a fake was pushed, as its APIs tell it.
var Pushed = time.Date(2026, 5, 14, 9, 21, 37, 0, time.UTC)

// A Line is one tag of a fake's inventory.
type Line struct {
	Tag    string
	Digest digest.Digest
}

// Inventory is what a repository holds, by tag.
func (f *Fake) Inventory(repo string) (lines []Line, exists bool) {
	tags := f.Tags(repo)
	if tags == nil {
		return nil, false
	}
	for tag, d := range tags {
		lines = append(lines, Line{tag, d})
	}
	slices.SortFunc(lines, func(a, b Line) int { return strings.Compare(a.Tag, b.Tag) })
	return lines, true
}

// note counts a request that the fake itself does not see.
func (f *Fake) note(r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r.Method+" "+r.URL.Path)
}

// basic tells whether a request carries the account itself.
func (f *Fake) basic(r *http.Request) bool {
	username, password, _ := r.BasicAuth()
	return f.Username == "" || username == f.Username && password == f.Password
}

// writes gives repository and reference where a request is to change something.
func writes(r *http.Request) (repo, what, reference string, ok bool) {
	parts := fakePaths.FindStringSubmatch(r.URL.Path)
	if parts == nil || r.Method == http.MethodGet || r.Method == http.MethodHead {
		return "", "", "", false
	}
	return parts[1], parts[2], parts[3], true
}

// moves tells whether a request would let a tag name something else, or the same again.
func (f *Fake) moves(r *http.Request) (repo, tag string, yes bool) {
	repo, what, tag, ok := writes(r)
	if !ok || what != "manifests" || r.Method != http.MethodPut || strings.Contains(tag, ":") {
		return "", "", false
	}
	return repo, tag, f.Tag(repo, tag) != ""
}

// page cuts a page, counted from 1, out of a list.
func page[T any](items []T, n, size int) (cut []T, more bool) {
	from := min(max(n-1, 0)*size, len(items))
	to := min(from+size, len(items))
	return items[from:to], to < len(items)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}

// bearer tells whether a request carries a token that lives, whatever it allows.
func (f *Fake) bearer(r *http.Request) bool {
	value, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	f.mu.Lock()
	defer f.mu.Unlock()
	token, ok := f.tokens[value]
	return ok && time.Now().Before(token.expires)
}

// amend has a handler answer and changes the answer before it is sent.
func amend(w http.ResponseWriter, r *http.Request, by http.Handler, change func(*httptest.ResponseRecorder)) {
	recorded := httptest.NewRecorder()
	by.ServeHTTP(recorded, r)
	change(recorded)
	for key, values := range recorded.Header() {
		w.Header()[key] = values
	}
	w.Header().Del("Content-Length")
	w.WriteHeader(recorded.Code)
	_, _ = w.Write(recorded.Body.Bytes()) // the client may be gone
}

// addTags puts things into a tag list that are no tags.
func addTags(w http.ResponseWriter, r *http.Request, by http.Handler, more ...any) {
	amend(w, r, by, func(recorded *httptest.ResponseRecorder) {
		var doc map[string]any
		if recorded.Code != http.StatusOK || json.Unmarshal(recorded.Body.Bytes(), &doc) != nil {
			return
		}
		tags, _ := doc["tags"].([]any)
		doc["tags"] = append(tags, more...)
		recorded.Body.Reset()
		_ = json.NewEncoder(recorded.Body).Encode(doc)
	})
}
