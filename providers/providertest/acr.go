package providertest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// An ACR is an Azure Container Registry before an upstream registry: Entra, the
// exchange, tokens with scopes, the listings of /acr/v1, locks and bounds. Set
// its fields before it serves; the upstream asks for no login of its own.
type ACR struct {
	Upstream *Fake
	// Service is the registry's login server, as it names itself.
	Service string
	// Tenant, Client and Secret are the service principal that Entra knows;
	// Federated is a Kubernetes token it takes instead of the secret.
	Tenant, Client, Secret, Federated string
	// May are the actions the identity's roles allow: pull, push, delete, metadata_read, catalog.
	May []string
	// Tokens' lives; zero: an hour, three hours, 75 minutes.
	EntraLife, RefreshLife, AccessLife time.Duration
	// MaxPage answers 400 to listings that ask for more; 0: 1000.
	MaxPage int
	// Locked are tags that may not be written, as repository:tag.
	Locked []string
	// Before sees every request first; true means that it has answered.
	Before func(w http.ResponseWriter, r *http.Request) bool
	// Rates are requests per second: read, write, delete, referrers. What goes
	// beyond is refused with the time to wait. Zero: without bound.
	Rates map[string]float64
	// Told is given each push as the webhook tells it, before it is answered.
	Told func(event []byte)

	mu       sync.Mutex
	next     int
	entra    map[string]time.Time
	refresh  map[string]time.Time
	access   map[string]acrToken
	requests []string
	pushed   map[string]time.Time
	quotas
}

type acrToken struct {
	expires time.Time
	scopes  []string
}

// Requests are those served so far, Entra's among them, as `METHOD /path`.
func (a *ACR) Requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.requests)
}

// Count is how many requests so far begin with a method and hold a word.
func (a *ACR) Count(method, word string) int {
	n := 0
	for _, r := range a.Requests() {
		if strings.HasPrefix(r, method+" ") && strings.Contains(r, word) {
			n++
		}
	}
	return n
}

// Revoke ends every token given so far, of each hop.
func (a *ACR) Revoke() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.refresh)
	clear(a.access)
}

func (a *ACR) may(action string) bool { return slices.Contains(a.May, action) }

// jwt is a token that tells its own end, as those of ACR and Entra do.
func (a *ACR) jwt(life time.Duration) (string, time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next++
	now := time.Now()
	part := func(v any) string {
		text, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(text)
	}
	claims := map[string]any{"iat": now.Unix(), "exp": now.Add(life).Unix(), "jti": a.next, "aud": a.Service,
		"appid": a.Client, "oid": "99999999-8888-7777-6666-555555555555", "tid": a.Tenant}
	return part(map[string]string{"alg": "RS256", "typ": "JWT"}) + "." + part(claims) + ".c2lnbmF0dXJl" + strconv.Itoa(a.next), now.Add(life)
}

func life(set, usual time.Duration) time.Duration {
	if set > 0 {
		return set
	}
	return usual
}

func (a *ACR) log(r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests = append(a.requests, r.Method+" "+r.URL.Path)
}

// Entra is login.microsoftonline.com: it speaks to https alone.
func (a *ACR) Entra() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.log(r)
		base := "https://" + r.Host + "/" + a.Tenant
		switch r.URL.Path {
		case "/" + a.Tenant + "/v2.0/.well-known/openid-configuration":
			reply(w, map[string]any{
				"token_endpoint": base + "/oauth2/v2.0/token", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "issuer": base + "/v2.0",
			})
		case "/" + a.Tenant + "/oauth2/v2.0/token":
			a.entraToken(w, r)
		default:
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_tenant", "error_description": "AADSTS90002: Tenant not found."})
		}
	})
}

func (a *ACR) entraToken(w http.ResponseWriter, r *http.Request) {
	fail := func(code, text string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": text})
	}
	err := r.ParseForm()
	form := r.PostForm
	proven := a.Secret != "" && form.Get("client_secret") == a.Secret || a.Federated != "" && form.Get("client_assertion") == a.Federated
	switch {
	case err != nil || form.Get("grant_type") != "client_credentials":
		fail("unsupported_grant_type", "AADSTS70003: unsupported grant type.")
	case form.Get("client_id") != a.Client:
		fail("unauthorized_client", "AADSTS700016: Application was not found in the directory.")
	case !proven:
		fail("invalid_client", "AADSTS7000215: Invalid client secret provided.")
	case !strings.Contains(form.Get("scope"), "https://containerregistry.azure.net/.default"):
		fail("invalid_scope", "AADSTS70011: The provided value for scope is not valid.")
	default:
		a.giveEntra(w)
	}
}

func (a *ACR) giveEntra(w http.ResponseWriter) {
	lasts := life(a.EntraLife, time.Hour)
	token, expires := a.jwt(lasts)
	a.mu.Lock()
	if a.entra == nil {
		a.entra = make(map[string]time.Time)
	}
	a.entra[token] = expires
	a.mu.Unlock()
	reply(w, map[string]any{
		"access_token": token, "expires_in": int(lasts.Seconds()), "ext_expires_in": int(lasts.Seconds()), "token_type": "Bearer",
		"expires_on": strconv.FormatInt(expires.Unix(), 10), "resource": "https://containerregistry.azure.net",
	})
}

// ManagedIdentity is App Service's flavour of it: IDENTITY_ENDPOINT with
// IDENTITY_HEADER.
func (a *ACR) ManagedIdentity(header string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.log(r)
		if r.Header.Get("X-IDENTITY-HEADER") != header {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		a.giveEntra(w)
	})
}

func reply(w http.ResponseWriter, doc any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(doc)
}

var acrTag = regexp.MustCompile(`^/acr/v1/(.+)/_tags/([^/]+)$`)

// ServeHTTP is the registry.
func (a *ACR) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.log(r)
	if a.Before != nil && a.Before(w, r) {
		return
	}
	switch r.URL.Path {
	case "/oauth2/exchange":
		a.exchange(w, r)
		return
	case "/oauth2/token":
		a.token(w, r)
		return
	}
	parts := fakePaths.FindStringSubmatch(r.URL.Path)
	list, tags := "", strings.HasPrefix(r.URL.Path, "/acr/v1/") && strings.HasSuffix(r.URL.Path, "/_tags")
	scopes := scopesOf(r, parts)
	untag := acrTag.FindStringSubmatch(r.URL.Path)
	switch {
	case untag != nil:
		scopes = []string{"repository:" + untag[1] + ":delete"}
	case r.URL.Path == "/acr/v1/_catalog":
		scopes = []string{"registry:catalog:*"}
	case tags:
		list = strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/acr/v1/"), "/_tags")
		scopes = []string{"repository:" + list + ":metadata_read"}
	}
	if !a.authorized(r, scopes) {
		a.challenge(w, r, scopes)
		return
	}
	class := acrClass(r, parts)
	wait := a.take(class, a.Rates[class])
	switch {
	case wait > 0:
		tooMany(w, wait, true, "too many requests of class "+class)
	case untag != nil && r.Method == http.MethodDelete && slices.Contains(a.Locked, untag[1]+":"+untag[2]):
		Fail(w, http.StatusMethodNotAllowed, "REGISTRY_DISALLOWED_OPERATION", "The operation is disallowed on this registry, repository or image.")
	case untag != nil && r.Method == http.MethodDelete && a.Upstream.Untag(untag[1], untag[2], false):
		w.WriteHeader(http.StatusAccepted)
	case untag != nil:
		Fail(w, http.StatusNotFound, "TAG_UNKNOWN", "the specified tag does not exist")
	case r.URL.Path == "/acr/v1/_catalog":
		a.list(w, r, "repositories", a.Upstream.Repos(), nil)
	case tags && !a.Upstream.Has(list):
		Fail(w, 404, "NAME_UNKNOWN", "repository name not known to registry")
	case tags:
		a.tags(w, r, list)
	case parts == nil && r.URL.Path != "/v2/" && r.URL.Path != "/v2/_catalog":
		http.NotFound(w, r)
	case parts != nil && a.refused(w, r, parts):
	default:
		if p, ok := taken(w, r, a.Upstream); ok {
			a.took(p)
		}
	}
}

// acrClass is what a request counts as (Microsoft Learn, "Azure Container
// Registry service limits"): each request of a push is a write.
func acrClass(r *http.Request, parts []string) string {
	switch {
	case len(parts) > 2 && parts[2] == "referrers":
		return "referrers"
	case r.Method == http.MethodDelete:
		return "delete"
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return "read"
	}
	return "write"
}

// took keeps a push's time, and tells of it.
func (a *ACR) took(p pushed) {
	a.mu.Lock()
	if a.pushed == nil {
		a.pushed = make(map[string]time.Time)
	}
	if p.tag != "" {
		a.pushed[p.repository+":"+p.tag] = time.Now().UTC()
	}
	a.next++
	id := a.next
	a.mu.Unlock()
	if a.Told != nil {
		a.Told(registryEvent(a.Service, id, p))
	}
}

// refused is what ACR refuses that the specification does not.
func (a *ACR) refused(w http.ResponseWriter, r *http.Request, parts []string) bool {
	switch {
	case parts[2] == "manifests" && (r.Method == http.MethodPut || r.Method == http.MethodDelete) && slices.Contains(a.Locked, parts[1]+":"+parts[3]):
		Fail(w, http.StatusMethodNotAllowed, "REGISTRY_DISALLOWED_OPERATION", "The operation is disallowed on this registry, repository or image. View troubleshooting steps at https://aka.ms/acr/faq/#why-does-my-pull-or-push-request-fail-with-disallowed-operation")
	case r.Method == http.MethodPut && r.ContentLength < 0:
		Fail(w, http.StatusLengthRequired, "SIZE_INVALID", "the content length is missing")
	case parts[2] == "manifests" && r.ContentLength > 4<<20:
		Fail(w, http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", "manifest over 4 MiB")
	case r.Method == http.MethodPatch && r.Header.Get("Content-Range") != "":
		Fail(w, http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID", "another replica has the rest")
	default:
		return false
	}
	return true
}

func (a *ACR) exchange(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.ParseForm() != nil {
		http.NotFound(w, r)
		return
	}
	a.mu.Lock()
	expires, known := a.entra[r.PostForm.Get("access_token")]
	a.mu.Unlock()
	tenant := r.PostForm.Get("tenant")
	switch {
	case r.PostForm.Get("grant_type") != "access_token" || r.PostForm.Get("service") != a.Service || tenant != "" && tenant != a.Tenant:
		Fail(w, http.StatusBadRequest, "UNSUPPORTED", "invalid request")
		return
	case !known || time.Now().After(expires):
		Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required, visit https://aka.ms/acr/authorization for more information.")
		return
	}
	token, end := a.jwt(life(a.RefreshLife, 3*time.Hour))
	a.mu.Lock()
	if a.refresh == nil {
		a.refresh = make(map[string]time.Time)
	}
	a.refresh[token] = end
	a.mu.Unlock()
	reply(w, map[string]string{"refresh_token": token})
}

// token gives an access token for what the roles allow of what is asked; it is
// not refused for asking for more.
func (a *ACR) token(w http.ResponseWriter, r *http.Request) {
	if r.ParseForm() != nil {
		http.NotFound(w, r)
		return
	}
	presented := r.PostForm.Get("refresh_token")
	if username, password, ok := r.BasicAuth(); ok && username == "00000000-0000-0000-0000-000000000000" {
		presented = password
	}
	a.mu.Lock()
	expires, known := a.refresh[presented]
	a.mu.Unlock()
	if !known || time.Now().After(expires) || r.Form.Get("service") != a.Service {
		Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required, visit https://aka.ms/acr/authorization for more information.")
		return
	}
	var granted []string
	for _, scope := range strings.Fields(strings.Join(r.Form["scope"], " ")) {
		i := strings.LastIndex(scope, ":")
		if i < 0 {
			continue
		}
		for _, action := range strings.Split(scope[i+1:], ",") {
			if a.may(action) || action == "*" && a.may("catalog") {
				granted = append(granted, scope[:i+1]+action)
			}
		}
	}
	token, end := a.jwt(life(a.AccessLife, 75*time.Minute))
	a.mu.Lock()
	if a.access == nil {
		a.access = make(map[string]acrToken)
	}
	a.access[token] = acrToken{end, granted}
	a.mu.Unlock()
	reply(w, map[string]string{"access_token": token}) // it tells no expires_in
}

func (a *ACR) authorized(r *http.Request, scopes []string) bool {
	value, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a.mu.Lock()
	defer a.mu.Unlock()
	token, ok := a.access[value]
	if !ok || time.Now().After(token.expires) {
		return false
	}
	for _, scope := range scopes {
		if !slices.Contains(token.scopes, scope) {
			return false
		}
	}
	return true
}

func (a *ACR) challenge(w http.ResponseWriter, r *http.Request, scopes []string) {
	scheme := "https"
	if strings.HasPrefix(r.Host, "127.") || strings.HasPrefix(r.Host, "localhost") {
		scheme = "http"
	}
	header := fmt.Sprintf(`Bearer realm=%q,service=%q`, scheme+"://"+r.Host+"/oauth2/token", a.Service)
	if len(scopes) > 0 {
		header += `,scope="` + strings.Join(scopes, " ") + `"`
	}
	if r.Header.Get("Authorization") != "" {
		header += `,error="invalid_token"`
	}
	w.Header().Set("WWW-Authenticate", header)
	Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required, visit https://aka.ms/acr/authorization for more information.")
}

func (a *ACR) tags(w http.ResponseWriter, r *http.Request, repository string) {
	named := a.Upstream.Tags(repository)
	var names []string
	for name := range named {
		names = append(names, name)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list(w, r, "tags", names, func(name string) any {
		updated := a.pushed[repository+":"+name]
		if updated.IsZero() {
			updated = time.Date(2026, 5, 14, 9, 21, 37, 0, time.UTC)
		}
		return map[string]any{
			"name": name, "digest": named[name], "createdTime": updated.Add(-time.Hour).Format(time.RFC3339Nano),
			"lastUpdateTime": updated.Format(time.RFC3339Nano), "signed": false,
			"changeableAttributes": map[string]bool{"deleteEnabled": true, "writeEnabled": true, "readEnabled": true, "listEnabled": true},
		}
	})
}

// list gives a page of what is sorted by name, and a Link to the next.
func (a *ACR) list(w http.ResponseWriter, r *http.Request, field string, names []string, line func(string) any) {
	most := a.MaxPage
	if most == 0 {
		most = 1000
	}
	n := 100
	if asked := r.URL.Query().Get("n"); asked != "" {
		n, _ = strconv.Atoi(asked)
	}
	if n < 1 || n > most {
		Fail(w, http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "invalid number of results requested")
		return
	}
	sort.Strings(names)
	last := r.URL.Query().Get("last")
	names = names[sort.Search(len(names), func(i int) bool { return names[i] > last }):]
	if len(names) > n {
		names = names[:n]
		next := url.Values{"last": {names[n-1]}, "n": {strconv.Itoa(n)}, "orderby": {""}}
		w.Header().Set("Link", "<"+r.URL.Path+"?"+next.Encode()+`>; rel="next"`)
	}
	items := make([]any, 0, len(names))
	for _, name := range names {
		if line == nil {
			items = append(items, name)
		} else {
			items = append(items, line(name))
		}
	}
	doc := map[string]any{field: items}
	if line != nil {
		doc["registry"], doc["imageName"] = a.Service, "fake"
	}
	reply(w, doc)
}

// GiveRefresh makes a refresh token valid that somebody else has got.
func (a *ACR) GiveRefresh(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refresh == nil {
		a.refresh = make(map[string]time.Time)
	}
	a.refresh[token] = time.Now().Add(3 * time.Hour)
}
