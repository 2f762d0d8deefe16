package providertest

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A GitLab stands before a Fake with Tokens: its tokens come from /jwt/auth, its
// catalog is off, projects have to exist, and its API at /api/v4 takes the
// password as PRIVATE-TOKEN.
type GitLab struct {
	*Fake
	// Projects are those that exist, by path.
	Projects []string
	// Protected is a tag that may not be written, Kept one that may not be deleted.
	Protected, Kept string
	// NoAPI: the token has no read_api.
	NoAPI bool
	// Database: the registry has one, and with it the API at /gitlab/v1.
	Database bool
}

var gitlabTags = regexp.MustCompile(`^/gitlab/v1/repositories/(.+)/tags/list/$`)

// tags is the registry's own list, by name.
func (g *GitLab) tags(w http.ResponseWriter, r *http.Request, repo string) {
	parts := []string{"", repo, "tags"}
	if !g.authorized(r, parts) {
		g.challenge(w, r, parts)
		return
	}
	lines, exists := g.Inventory(repo)
	if !exists {
		Fail(w, http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
		return
	}
	slices.SortFunc(lines, func(a, b Line) int { return strings.Compare(a.Tag, b.Tag) })
	type tag struct {
		Name    string `json:"name"`
		Digest  string `json:"digest"`
		Created string `json:"created_at"`
		Updated string `json:"updated_at,omitempty"`
	}
	list := []tag{}
	for _, line := range lines {
		if line.Tag > r.URL.Query().Get("last") {
			list = append(list, tag{line.Tag, line.Digest.String(), "2020-01-01T00:00:00.000+00:00", Pushed.Format("2006-01-02T15:04:05.000+00:00")})
		}
	}
	n, err := strconv.Atoi(r.URL.Query().Get("n"))
	if err != nil || n < 1 || n > 1000 {
		Fail(w, http.StatusBadRequest, "INVALID_QUERY_PARAMETER_VALUE", "n")
		return
	}
	if len(list) > n {
		list = list[:n]
		w.Header().Set("Link", "<http://"+r.Host+r.URL.Path+"?n="+strconv.Itoa(n)+"&last="+list[n-1].Name+`>; rel="next"`)
	}
	answer(w, http.StatusOK, list)
}

// ServeHTTP serves registry, realm and API.
func (g *GitLab) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if path, ok := strings.CutPrefix(r.URL.EscapedPath(), "/api/v4/"); ok {
		g.note(r)
		g.api(w, r, path)
		return
	}
	if parts := gitlabTags.FindStringSubmatch(r.URL.Path); parts != nil {
		g.note(r)
		if !g.Database {
			http.NotFound(w, r)
			return
		}
		amend(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.tags(w, r, parts[1]) }), g.realm)
		return
	}
	repo, what, reference, writing := writes(r)
	switch {
	case r.URL.Path == "/token":
		http.NotFound(w, r)
	case r.URL.Path == "/jwt/auth":
		inner := r.Clone(r.Context())
		inner.URL.Path = "/token"
		g.Fake.ServeHTTP(w, inner)
	case r.URL.Path == "/v2/_catalog":
		g.note(r)
		Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	case writing && g.project(repo) == "":
		g.note(r)
		Fail(w, http.StatusForbidden, "DENIED", "requested access to the resource is denied")
	case writing && what == "manifests" && reference == g.Protected && g.Protected != "":
		g.note(r)
		Fail(w, http.StatusForbidden, "DENIED", "the tag is protected")
	default:
		amend(w, r, g.Fake, g.realm)
	}
}

// realm has tokens made at GitLab itself.
func (g *GitLab) realm(recorded *httptest.ResponseRecorder) {
	if c := recorded.Header().Get("WWW-Authenticate"); c != "" {
		recorded.Header().Set("WWW-Authenticate", strings.Replace(c, "/token\"", "/jwt/auth\"", 1))
	}
}

// project is the one a repository belongs to: itself or above it.
func (g *GitLab) project(repo string) string {
	for {
		if slices.Contains(g.Projects, repo) {
			return repo
		}
		i := strings.LastIndexByte(repo, '/')
		if i < 0 {
			return ""
		}
		repo = repo[:i]
	}
}

func (g *GitLab) api(w http.ResponseWriter, r *http.Request, path string) {
	n, _ := strconv.Atoi(r.URL.Query().Get("page"))
	size, _ := strconv.Atoi(r.URL.Query().Get("per_page"))
	size = min(max(size, 1), 100)
	if g.NoAPI || r.Header.Get("PRIVATE-TOKEN") != g.Password {
		answer(w, http.StatusUnauthorized, map[string]string{"message": "401 Unauthorized"})
		return
	}
	if path == "projects" {
		projects := []map[string]any{}
		for i := range g.Projects {
			projects = append(projects, map[string]any{"id": i + 1, "container_registry_enabled": true})
		}
		cut, _ := page(projects, n, size)
		answer(w, http.StatusOK, cut)
		return
	}
	kind, rest, _ := strings.Cut(path, "/")
	if r.Method == http.MethodDelete {
		g.deleteTag(w, rest)
		return
	}
	escaped, ok := strings.CutSuffix(rest, "/registry/repositories")
	name, err := url.PathUnescape(escaped)
	if !ok || err != nil || strings.Contains(escaped, "/") {
		answer(w, http.StatusNotFound, map[string]string{"error": "404 Not Found"})
		return
	}
	if id, err := strconv.Atoi(name); err == nil && id >= 1 && id <= len(g.Projects) {
		name = g.Projects[id-1]
	}
	isProject := slices.Contains(g.Projects, name)
	isGroup := !isProject && slices.ContainsFunc(g.Projects, func(p string) bool { return strings.HasPrefix(p, name+"/") })
	if kind == "groups" && !isGroup || kind == "projects" && !isProject {
		answer(w, http.StatusNotFound, map[string]string{"message": "404 Not Found"})
		return
	}
	found := []map[string]any{}
	for i, repo := range g.Repos() {
		if project := g.project(repo); project == name || isGroup && strings.HasPrefix(project, name+"/") {
			found = append(found, map[string]any{"id": i + 1, "path": repo})
		}
	}
	cut, _ := page(found, n, size)
	answer(w, http.StatusOK, cut)
}

// deleteTag takes PROJECT/registry/repositories/ID/tags/TAG, the project escaped.
func (g *GitLab) deleteTag(w http.ResponseWriter, path string) {
	parts := strings.Split(path, "/")
	if len(parts) != 6 || parts[1] != "registry" || parts[2] != "repositories" || parts[4] != "tags" {
		answer(w, http.StatusNotFound, map[string]string{"error": "404 Not Found"})
		return
	}
	project, _ := url.PathUnescape(parts[0])
	id, err := strconv.Atoi(parts[3])
	all := g.Repos()
	if err != nil || id < 1 || id > len(all) || g.project(all[id-1]) != project {
		answer(w, http.StatusNotFound, map[string]string{"message": "404 Not found"})
		return
	}
	switch tag := parts[5]; {
	case tag == g.Kept && tag != "":
		answer(w, http.StatusForbidden, map[string]string{"message": "403 Forbidden"})
	case !g.Untag(all[id-1], tag, false):
		answer(w, http.StatusNotFound, map[string]string{"message": "404 Tag Not Found"})
	default:
		answer(w, http.StatusOK, map[string]any{})
	}
}
