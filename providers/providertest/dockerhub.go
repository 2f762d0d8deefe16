package providertest

import (
	"cmp"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// A DockerHub stands before a Fake with Tokens, registry and API in one: pulls
// are counted and refused when used up, names of one part do not exist, the API wants its
// own login where Private.
type DockerHub struct {
	*Fake
	// Allowance is how many manifests may be read, 0: no limit.
	Allowance int64
	Private   bool
	// Updated is when a tag was moved last, nil: all at Pushed. Lists that are
	// asked for by that time begin with the newest, but for those of Unsorted.
	Updated  func(repo, tag string) time.Time
	Unsorted bool
	// Logins counts those at the API.
	Logins atomic.Int64

	pulls atomic.Int64
}

var hubTag = regexp.MustCompile(`^/v2/repositories/([^/]+/[^/]+)/tags/([^/]+)/$`)

var hubTags = regexp.MustCompile(`^/v2/namespaces/([^/]+)/repositories/([^/]+)/tags$`)

const hubToken = "token-of-the-hub's-api"

// Forget makes the whole allowance available again.
func (h *DockerHub) Forget() { h.pulls.Store(0) }

// ServeHTTP serves the registry, /token and the API's login and tag lists.
func (h *DockerHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if parts := hubTags.FindStringSubmatch(r.URL.Path); parts != nil {
		h.note(r)
		h.tags(w, r, parts[1]+"/"+parts[2])
		return
	}
	if parts := hubTag.FindStringSubmatch(r.URL.Path); parts != nil && r.Method == http.MethodDelete {
		h.note(r)
		switch {
		case r.Header.Get("Authorization") != "Bearer "+hubToken:
			answer(w, http.StatusUnauthorized, map[string]string{"message": "unauthorized"})
		case !h.Untag(parts[1], parts[2], true):
			answer(w, http.StatusNotFound, map[string]string{"message": "object not found"})
		default:
			w.WriteHeader(http.StatusNoContent)
		}
		return
	}
	parts := fakePaths.FindStringSubmatch(r.URL.Path)
	switch {
	case r.URL.Path == "/v2/auth/token":
		h.note(r)
		h.login(w, r)
		return
	case r.URL.Path == "/v2/_catalog":
		h.note(r)
		Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	case len(parts) > 1 && !strings.Contains(parts[1], "/"):
		h.note(r)
		Fail(w, http.StatusUnauthorized, "DENIED", "requested access to the resource is denied")
		return
	}
	if h.Allowance > 0 && len(parts) > 2 && parts[2] == "manifests" && r.Method != http.MethodPut {
		left := h.Allowance - h.pulls.Load()
		if r.Method == http.MethodGet && h.authorized(r, parts) {
			if left--; left >= 0 {
				h.pulls.Add(1)
			}
		}
		w.Header().Set("Ratelimit-Limit", strconv.FormatInt(h.Allowance, 10)+";w=21600")
		w.Header().Set("Ratelimit-Remaining", strconv.FormatInt(max(left, 0), 10)+";w=21600")
		if left < 0 {
			h.note(r)
			Fail(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "You have reached your pull rate limit.")
			return
		}
	}
	h.Fake.ServeHTTP(w, r)
}

func (h *DockerHub) login(w http.ResponseWriter, r *http.Request) {
	var doc struct{ Identifier, Secret string }
	h.Logins.Add(1)
	if json.NewDecoder(r.Body).Decode(&doc) != nil || doc.Identifier != h.Username || doc.Secret != h.Password {
		answer(w, http.StatusUnauthorized, map[string]string{"detail": "Incorrect authentication credentials"})
		return
	}
	answer(w, http.StatusOK, map[string]string{"access_token": hubToken})
}

func (h *DockerHub) tags(w http.ResponseWriter, r *http.Request, repo string) {
	lines, exists := h.Inventory(repo)
	n, _ := strconv.Atoi(r.URL.Query().Get("page"))
	size, _ := strconv.Atoi(r.URL.Query().Get("page_size"))
	known := r.Header.Get("Authorization") == "Bearer "+hubToken
	switch {
	case r.Header.Get("Authorization") != "" && !known:
		answer(w, http.StatusUnauthorized, map[string]string{"message": "unauthorized"})
		return
	case !exists, h.Private && !known:
		answer(w, http.StatusNotFound, map[string]string{"message": "object not found"})
		return
	}
	type tag struct {
		Name   string `json:"name"`
		Digest string `json:"digest"`
		Pushed string `json:"tag_last_pushed"`
		Update string `json:"last_updated"`
	}
	list := []tag{}
	for _, line := range lines {
		at := Pushed
		if h.Updated != nil {
			at = h.Updated(repo, line.Tag)
		}
		told := at.UTC().Format("2006-01-02T15:04:05.000000Z")
		list = append(list, tag{line.Tag, line.Digest.String(), told, told})
	}
	if r.URL.Query().Get("ordering") == "last_updated" && !h.Unsorted {
		slices.SortStableFunc(list, func(a, b tag) int { return cmp.Compare(b.Update, a.Update) })
	}
	cut, more := page(list, n, min(size, 100))
	next := any(nil)
	if more {
		next = "https://hub.docker.com" + r.URL.Path + "?page=" + strconv.Itoa(n+1)
	}
	answer(w, http.StatusOK, map[string]any{"count": len(list), "next": next, "results": cut})
}
