package providertest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Google is Artifact Registry before an upstream registry: its tokens, its own
// tag list, repositories that have to be made first, immutable tags, the REST
// API, the token endpoint and the metadata server. Set its fields before it
// serves; the upstream asks for no login of its own.
type Google struct {
	Upstream *Fake
	// Project and Location are the registry's; Repositories those that exist.
	Project, Location string
	Repositories      []string
	// Immutable are repositories whose tags may not move.
	Immutable []string
	// May are permissions: upload, download, delete, list (the REST API), create.
	May []string
	// TokenLife is an access token's; zero: an hour.
	TokenLife time.Duration
	// Page bounds the REST API's pages; 0: 1000.
	Page int
	// Before sees every request first; true means that it has answered.
	Before func(w http.ResponseWriter, r *http.Request) bool
	// Rate and WriteRate are requests per second, of all kinds and of those that
	// write. What goes beyond is refused; how long to wait is not told. Zero:
	// without bound.
	Rate, WriteRate float64
	// Told is given each push as it is published to the topic gcr, before it is
	// answered.
	Told func(data []byte)

	once     sync.Once
	key      *rsa.PrivateKey
	mu       sync.Mutex
	next     int
	tokens   map[string]time.Time
	bearer   map[string]acrToken
	making   map[string]int // polls left, by operation
	requests []string
	quotas
}

// Requests are those served so far, of all endpoints, as `METHOD /path`.
func (g *Google) Requests() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.requests)
}

// Count is how many requests so far begin with a method and hold a word.
func (g *Google) Count(method, word string) int {
	n := 0
	for _, r := range g.Requests() {
		if strings.HasPrefix(r, method+" ") && strings.Contains(r, word) {
			n++
		}
	}
	return n
}

// Revoke ends every token given so far.
func (g *Google) Revoke() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.tokens)
	clear(g.bearer)
}

func (g *Google) log(r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests = append(g.requests, r.Method+" "+r.URL.Path)
}

func (g *Google) may(permission string) bool { return slices.Contains(g.May, permission) }

func (g *Google) private() *rsa.PrivateKey {
	g.once.Do(func() {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err) // no entropy
		}
		g.key = key
	})
	return g.key
}

// KeyFile is a service account's key whose tokens are had at tokenURI.
func (g *Google) KeyFile(tokenURI string) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(g.private())
	if err != nil {
		panic(err) // our own key
	}
	text, _ := json.Marshal(map[string]string{
		"type": "service_account", "project_id": g.Project, "private_key_id": "key-1",
		"private_key":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email": "twinport@" + g.Project + ".iam.gserviceaccount.com", "client_id": "1", "token_uri": tokenURI,
	})
	return text
}

func (g *Google) give(w http.ResponseWriter) {
	lasts := life(g.TokenLife, time.Hour)
	g.mu.Lock()
	g.next++
	token := "ya29.fake-" + strconv.Itoa(g.next)
	if g.tokens == nil {
		g.tokens = make(map[string]time.Time)
	}
	g.tokens[token] = time.Now().Add(lasts)
	g.mu.Unlock()
	reply(w, map[string]any{"access_token": token, "expires_in": int(lasts.Seconds()), "token_type": "Bearer"})
}

// Token is oauth2.googleapis.com: it takes assertions that the key has signed.
func (g *Google) Token() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.log(r)
		if r.ParseForm() != nil || r.PostForm.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" || !g.signed(r.PostForm.Get("assertion")) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
			return
		}
		g.give(w)
	})
}

func (g *Google) signed(assertion string) bool {
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		return false
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err != nil || rsa.VerifyPKCS1v15(&g.private().PublicKey, crypto.SHA256, sum[:], signature) != nil {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Scope   string `json:"scope"`
		Expires int64  `json:"exp"`
	}
	return err == nil && json.Unmarshal(payload, &claims) == nil && claims.Expires > time.Now().Unix() && strings.Contains(claims.Scope, "cloud-platform")
}

// Metadata is the metadata server.
func (g *Google) Metadata() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.log(r)
		path, ours := strings.CutPrefix(r.URL.Path, "/computeMetadata/v1/instance/service-accounts/default/")
		if r.Header.Get("Metadata-Flavor") != "Google" || !ours || path != "token" && path != "email" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Metadata-Flavor", "Google")
		if path == "email" {
			_, _ = io.WriteString(w, "machine@"+g.Project+".iam.gserviceaccount.com")
			return
		}
		g.give(w)
	})
}

// LetsIn tells whether a request carries an access token that lives.
func (g *Google) LetsIn(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && g.live(token)
}

func (g *Google) live(token string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	expires, ok := g.tokens[token]
	return ok && time.Now().Before(expires)
}

func refuse(w http.ResponseWriter, code int, status, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "status": status, "message": message}})
}

// API is artifactregistry.googleapis.com.
func (g *Google) API() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.log(r)
		all := "projects/" + g.Project + "/locations/" + g.Location + "/repositories"
		path := strings.TrimPrefix(r.URL.Path, "/v1/")
		name, rest, _ := strings.Cut(strings.TrimPrefix(path, all+"/"), "/")
		switch {
		case !g.LetsIn(r):
			refuse(w, 401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
		case r.Method == http.MethodGet && strings.HasPrefix(path, "projects/"+g.Project+"/locations/"+g.Location+"/operations/"):
			g.poll(w, path)
		case r.Method == http.MethodPost && path == all && !g.may("create"):
			refuse(w, 403, "PERMISSION_DENIED", `Permission "artifactregistry.repositories.create" denied on resource "`+all+`" (or it may not exist).`)
		case r.Method == http.MethodPost && path == all:
			g.create(w, r)
		case !g.may("list"):
			refuse(w, 403, "PERMISSION_DENIED", `Permission "artifactregistry.packages.list" denied on resource "`+path+`" (or it may not exist).`)
		case r.Method == http.MethodGet && path == all:
			var items []map[string]string
			for _, repository := range g.exist() {
				items = append(items, map[string]string{"name": all + "/" + repository, "format": "DOCKER"})
			}
			items = append(items, map[string]string{"name": all + "/jars", "format": "MAVEN"})
			g.page(w, r, "repositories", items)
		case r.Method != http.MethodGet || !slices.Contains(g.exist(), name):
			refuse(w, 404, "NOT_FOUND", "Requested entity was not found.")
		case rest == "":
			g.mu.Lock()
			fixed := slices.Contains(g.Immutable, name)
			g.mu.Unlock()
			reply(w, map[string]any{"name": path, "format": "DOCKER", "dockerConfig": map[string]bool{"immutableTags": fixed}})
		case rest == "packages":
			var items []map[string]string
			for _, image := range g.Upstream.Repos() {
				if below, ok := strings.CutPrefix(image, g.base(name)); ok && len(g.Upstream.Tags(image)) > 0 {
					items = append(items, map[string]string{"name": path + "/" + url.PathEscape(below)})
				}
			}
			g.page(w, r, "packages", items)
		default:
			refuse(w, 404, "NOT_FOUND", "Requested entity was not found.")
		}
	})
}

// base is what names of a repository's images begin with.
func (g *Google) base(repository string) string {
	if strings.HasSuffix(repository, "gcr.io") {
		return g.Project + "/"
	}
	return g.Project + "/" + repository + "/"
}

func (g *Google) exist() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.Repositories)
}

func (g *Google) page(w http.ResponseWriter, r *http.Request, field string, items []map[string]string) {
	size, _ := strconv.Atoi(r.URL.Query().Get("pageSize"))
	from, _ := strconv.Atoi(r.URL.Query().Get("pageToken"))
	most := g.Page
	if most == 0 {
		most = 1000
	}
	size = min(max(size, 1), most)
	doc := map[string]any{field: items[min(from, len(items)):min(from+size, len(items))]}
	if from+size < len(items) {
		doc["nextPageToken"] = strconv.Itoa(from + size)
	}
	reply(w, doc)
}

func (g *Google) create(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Format string `json:"format"`
		Docker struct {
			Immutable bool `json:"immutableTags"`
		} `json:"dockerConfig"`
	}
	name := r.URL.Query().Get("repositoryId")
	if json.NewDecoder(r.Body).Decode(&body) != nil || body.Format != "DOCKER" || name == "" {
		refuse(w, 400, "INVALID_ARGUMENT", "Repository is invalid.")
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if slices.Contains(g.Repositories, name) {
		refuse(w, 409, "ALREADY_EXISTS", "the repository already exists")
		return
	}
	if body.Docker.Immutable {
		g.Immutable = append(g.Immutable, name)
	}
	operation := "projects/" + g.Project + "/locations/" + g.Location + "/operations/" + name
	if g.making == nil {
		g.making = make(map[string]int)
	}
	g.making[operation] = 1
	reply(w, map[string]any{"name": operation})
}

// poll ends an operation at the second asking.
func (g *Google) poll(w http.ResponseWriter, operation string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	left, known := g.making[operation]
	switch {
	case !known:
		refuse(w, 404, "NOT_FOUND", "no such operation")
	case left > 0:
		g.making[operation]--
		reply(w, map[string]any{"name": operation})
	default:
		delete(g.making, operation)
		g.Repositories = append(g.Repositories, operation[strings.LastIndexByte(operation, '/')+1:])
		reply(w, map[string]any{"name": operation, "done": true})
	}
}

// ServeHTTP is the registry.
func (g *Google) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.log(r)
	if g.Before != nil && g.Before(w, r) {
		return
	}
	if r.URL.Path == "/v2/token" {
		g.token(w, r)
		return
	}
	parts := fakePaths.FindStringSubmatch(r.URL.Path)
	if !g.authorized(r) {
		scheme := "https"
		if strings.HasPrefix(r.Host, "127.") {
			scheme = "http"
		}
		header := fmt.Sprintf(`Bearer realm=%q,service=%q`, scheme+"://"+r.Host+"/v2/token", r.Host)
		if scopes := scopesOf(r, parts); len(scopes) > 0 {
			header += `,scope="` + strings.Join(scopes, " ") + `"`
		}
		w.Header().Set("WWW-Authenticate", header)
		Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication failed")
		return
	}
	if parts == nil {
		if r.URL.Path == "/v2/" {
			reply(w, struct{}{})
			return
		}
		Fail(w, http.StatusNotFound, "UNSUPPORTED", "not found")
		return
	}
	g.repository(w, r, parts)
}

// repository serves what is about one image.
func (g *Google) repository(w http.ResponseWriter, r *http.Request, parts []string) {
	write := r.Method != http.MethodGet && r.Method != http.MethodHead
	wait := g.take("all", g.Rate)
	if write {
		wait = max(wait, g.take("write", g.WriteRate))
	}
	if wait > 0 {
		tooMany(w, wait, false, "Quota exceeded for quota metric 'Requests' and limit 'Requests per project per region per minute'")
		return
	}
	segments := strings.SplitN(parts[1], "/", 3)
	name := segments[min(1, len(segments)-1)]
	for _, exists := range g.exist() {
		if strings.HasSuffix(exists, "gcr.io") {
			name = exists
		}
	}
	resource := `"projects/` + g.Project + `/locations/` + g.Location + `/repositories/` + name + `" (or it may not exist)`
	g.mu.Lock()
	immutable := slices.Contains(g.Immutable, name)
	g.mu.Unlock()
	switch {
	case isErase(r, parts) && !g.may("delete"):
		permission := "artifactregistry.tags.delete"
		if strings.Contains(parts[3], ":") {
			permission = "artifactregistry.versions.delete"
		}
		Fail(w, http.StatusForbidden, "DENIED", `Permission "`+permission+`" denied on resource `+resource)
	case write && !isErase(r, parts) && !g.may("upload"):
		Fail(w, http.StatusForbidden, "DENIED", `Permission "artifactregistry.repositories.uploadArtifacts" denied on resource `+resource)
	case !write && !g.may("download"):
		Fail(w, http.StatusForbidden, "DENIED", `Permission "artifactregistry.repositories.downloadArtifacts" denied on resource `+resource)
	case segments[0] != g.Project || !slices.Contains(g.exist(), name):
		Fail(w, http.StatusNotFound, "NAME_UNKNOWN", `Repository "`+name+`" not found`)
	case r.Method == http.MethodPatch && r.Header.Get("Content-Range") != "":
		Fail(w, http.StatusBadRequest, "UNSUPPORTED", "chunked uploads are not supported")
	case r.Method == http.MethodDelete && parts[2] == "manifests" && immutable && g.Upstream.Tag(parts[1], parts[3]) != "":
		Fail(w, http.StatusBadRequest, "FAILED_PRECONDITION", "Deleting tag "+parts[1]+":"+parts[3]+" failed: the repository has enabled tag immutability")
	case r.Method == http.MethodPut && parts[2] == "manifests" && immutable && g.Upstream.Tag(parts[1], parts[3]) != "":
		Fail(w, http.StatusBadRequest, "FAILED_PRECONDITION", "Updating image "+parts[1]+":"+parts[3]+" failed: the repository has enabled tag immutability")
	case parts[2] == "tags":
		g.tags(w, parts[1])
	default:
		if p, ok := taken(w, r, g.Upstream); ok && g.Told != nil {
			g.Told(insertion(r.Host, p))
		}
	}
}

// tags is Google's own list. It has no pages, and an empty one for any path.
func (g *Google) tags(w http.ResponseWriter, name string) {
	manifests := map[string]any{}
	tags := g.Upstream.Tags(name)
	named := map[string][]string{}
	var all []string
	for tag, d := range tags {
		named[d.String()] = append(named[d.String()], tag)
		all = append(all, tag)
	}
	sort.Strings(all)
	for d, list := range named {
		sort.Strings(list)
		manifests[d] = map[string]any{
			"imageSizeBytes": "1782", "layerId": "", "mediaType": "application/vnd.oci.image.manifest.v1+json", "tag": list,
			"timeCreatedMs": "0", "timeUploadedMs": strconv.FormatInt(time.Date(2026, 5, 14, 9, 21, 37, 0, time.UTC).UnixMilli(), 10),
		}
	}
	children := map[string]bool{}
	for _, image := range g.Upstream.Repos() {
		if below, ok := strings.CutPrefix(image, name+"/"); ok && len(g.Upstream.Tags(image)) > 0 {
			child, _, _ := strings.Cut(below, "/")
			children[child] = true
		}
	}
	child := []string{}
	for c := range children {
		child = append(child, c)
	}
	sort.Strings(child)
	reply(w, map[string]any{"name": name, "tags": all, "child": child, "manifest": manifests})
}

// token exchanges an access token, as Basic password, for one of the registry's.
func (g *Google) token(w http.ResponseWriter, r *http.Request) {
	username, password, _ := r.BasicAuth()
	if username != "oauth2accesstoken" || !g.live(password) {
		Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "Authentication failed.")
		return
	}
	lasts := life(g.TokenLife, time.Hour)
	g.mu.Lock()
	g.next++
	token := "registry-token-" + strconv.Itoa(g.next)
	if g.bearer == nil {
		g.bearer = make(map[string]acrToken)
	}
	g.bearer[token] = acrToken{expires: time.Now().Add(lasts)}
	g.mu.Unlock()
	reply(w, map[string]any{"token": token, "expires_in": int(lasts.Seconds()), "issued_at": time.Now().UTC().Format(time.RFC3339)})
}

func (g *Google) authorized(r *http.Request) bool {
	if username, password, ok := r.BasicAuth(); ok {
		return username == "oauth2accesstoken" && g.live(password)
	}
	value, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	g.mu.Lock()
	defer g.mu.Unlock()
	token, ok := g.bearer[value]
	return ok && time.Now().Before(token.expires)
}
