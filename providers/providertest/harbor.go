package providertest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/twinport/twinport/replicator/oci"
)

// A Harbor stands before a Fake and refuses what Harbor refuses: projects that
// do not exist, the catalog to those who are no administrators, tags that a rule
// of the project holds. Its API leaves accessories out of artifacts.
type Harbor struct {
	*Fake
	// Projects are those that exist.
	Projects []string
	// Rule is the project whose tags are immutable; Quota the one that is full;
	// Policy the one whose images may not be pulled.
	Rule, Quota, Policy string
	// Admin: the account may make projects.
	Admin bool
	// DenyAPI: the account may use the registry alone.
	DenyAPI bool
}

var (
	harborArtifacts = regexp.MustCompile(`^/api/v2\.0/projects/([^/]+)/repositories/([^/]+)/artifacts$`)
	harborTag       = regexp.MustCompile(`^/api/v2\.0/projects/([^/]+)/repositories/([^/]+)/artifacts/([^/]+)/tags/([^/]+)$`)
)

// ServeHTTP serves /v2/ and /api/v2.0/.
func (h *Harbor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/api/v2.0/") {
		h.note(r)
		h.api(w, r)
		return
	}
	if r.URL.Path == "/v2/_catalog" {
		h.note(r)
		Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "unauthorized to list catalog: unauthorized to list catalog")
		return
	}
	repo, what, _, writing := writes(r)
	project, _, nested := strings.Cut(repo, "/")
	switch _, tag, moving := h.moves(r); {
	case writing && (!nested || !h.project(project)):
		Fail(w, http.StatusNotFound, "NOT_FOUND", "project "+project+" not found")
	case moving && project == h.Rule:
		Fail(w, http.StatusPreconditionFailed, "PRECONDITION", "Failed to process request due to '"+strings.TrimPrefix(repo, project+"/")+":"+tag+"' configured as immutable.")
	case writing && what == "blobs/uploads" && r.Method == http.MethodPut && project == h.Quota:
		Fail(w, http.StatusForbidden, "DENIED", "adding 1.0 MiB of storage resource, which when updated to current usage of 10.0 MiB will exceed the configured upper limit of 10.0 MiB. quota exceeded")
	case !writing && h.Policy != "" && r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/v2/"+h.Policy+"/") && strings.Contains(r.URL.Path, "/manifests/"):
		Fail(w, http.StatusPreconditionFailed, "PROJECTPOLICYVIOLATION", "current image with 3 vulnerabilities cannot be pulled due to configured policy")
	default:
		h.Fake.ServeHTTP(w, r)
	}
}

func (h *Harbor) api(w http.ResponseWriter, r *http.Request) {
	if !h.basic(r) || h.DenyAPI {
		Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "unauthorized")
		return
	}
	q := r.URL.Query()
	if r.URL.Path == "/api/v2.0/projects" {
		h.projects(w, r)
		return
	}
	if parts := harborTag.FindStringSubmatch(r.URL.EscapedPath()); parts != nil && r.Method == http.MethodDelete {
		h.deleteTag(w, parts[1], parts[2], parts[3], parts[4])
		return
	}
	if project, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/api/v2.0/projects/"), "/immutabletagrules"); ok {
		rules := []map[string]any{{"id": 1, "disabled": true}}
		if project == h.Rule {
			rules = append(rules, map[string]any{"id": 2, "disabled": false})
		}
		answer(w, http.StatusOK, rules)
		return
	}
	n, _ := strconv.Atoi(q.Get("page"))
	size, _ := strconv.Atoi(q.Get("page_size"))
	if size > 100 || size < 1 {
		Fail(w, http.StatusUnprocessableEntity, "UNPROCESSABLE", "page_size in query should be less than or equal to 100")
		return
	}
	if parts := harborArtifacts.FindStringSubmatch(r.URL.EscapedPath()); parts != nil {
		once, err := url.PathUnescape(parts[2])
		name, err2 := url.PathUnescape(once)
		if err != nil || err2 != nil || strings.Contains(once, "/") {
			Fail(w, http.StatusBadRequest, "BAD_REQUEST", "encode the name twice")
			return
		}
		h.artifacts(w, parts[1]+"/"+name, n, size)
		return
	}
	var found []map[string]any
	project, inProject := strings.CutPrefix(strings.TrimSuffix(r.URL.Path, "/repositories"), "/api/v2.0/projects/")
	for _, name := range h.Repos() {
		if !inProject || strings.HasPrefix(name, project+"/") {
			found = append(found, map[string]any{"name": name, "artifact_count": 1})
		}
	}
	cut, _ := page(found, n, size)
	answer(w, http.StatusOK, cut)
}

// deleteTag removes a tag of the artifact that reference names.
func (h *Harbor) deleteTag(w http.ResponseWriter, project, repository, reference, tag string) {
	once, err := url.PathUnescape(repository)
	name, err2 := url.PathUnescape(once)
	if err != nil || err2 != nil || strings.Contains(once, "/") {
		Fail(w, http.StatusBadRequest, "BAD_REQUEST", "encode the name twice")
		return
	}
	full := project + "/" + name
	switch {
	case project == h.Rule:
		Fail(w, http.StatusPreconditionFailed, "PRECONDITION", "the tag "+tag+" configured as immutable, cannot be deleted")
	case h.Tag(full, reference) == "" || h.Tag(full, reference) != h.Tag(full, tag):
		Fail(w, http.StatusNotFound, "NOT_FOUND", "artifact "+full+":"+reference+" not found")
	case h.Untag(full, tag, false):
		w.WriteHeader(http.StatusOK)
	default:
		Fail(w, http.StatusNotFound, "NOT_FOUND", "tag "+tag+" not found")
	}
}

func (h *Harbor) project(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.Projects, name)
}

// projects tells whether one exists, and makes one.
func (h *Harbor) projects(w http.ResponseWriter, r *http.Request) {
	var doc struct {
		Name string `json:"project_name"`
	}
	switch {
	case r.Method == http.MethodHead && h.project(r.URL.Query().Get("project_name")):
		w.WriteHeader(http.StatusOK)
	case r.Method == http.MethodHead:
		w.WriteHeader(http.StatusNotFound)
	case !h.Admin:
		Fail(w, http.StatusForbidden, "FORBIDDEN", "Only system admin can create project")
	case json.NewDecoder(r.Body).Decode(&doc) != nil || doc.Name == "":
		Fail(w, http.StatusBadRequest, "BAD_REQUEST", "no project_name")
	case h.project(doc.Name):
		Fail(w, http.StatusConflict, "CONFLICT", "The project named "+doc.Name+" already exists")
	default:
		h.mu.Lock()
		h.Projects = append(h.Projects, doc.Name)
		h.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
	}
}

func (h *Harbor) artifacts(w http.ResponseWriter, repo string, n, size int) {
	lines, exists := h.Inventory(repo)
	if !exists {
		Fail(w, http.StatusNotFound, "NOT_FOUND", "repository "+repo+" not found")
		return
	}
	type tag struct {
		Name     string `json:"name"`
		PushTime string `json:"push_time"`
	}
	type artifact struct {
		Digest   string `json:"digest"`
		PushTime string `json:"push_time"`
		Tags     []tag  `json:"tags"`
	}
	at := Pushed.Format("2006-01-02T15:04:05.000Z")
	var list []*artifact
	byDigest := make(map[string]*artifact)
	for _, line := range lines {
		if _, _, accessory := oci.CompanionSubject(line.Tag); accessory {
			continue
		}
		a := byDigest[line.Digest.String()]
		if a == nil {
			a = &artifact{Digest: line.Digest.String(), PushTime: at}
			byDigest[a.Digest], list = a, append(list, a)
		}
		a.Tags = append(a.Tags, tag{line.Tag, at})
	}
	cut, _ := page(list, n, size)
	answer(w, http.StatusOK, cut)
}
