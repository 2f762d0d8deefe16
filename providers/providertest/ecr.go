package providertest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// An ECR is Amazon's registry in memory: AWS's API (JSON 1.1, also STS) and the
// registry behind it, with the refusals of the real one. It serves both at one
// address. Set its fields before it serves.
type ECR struct {
	// Registry holds the content; its logins, mounts and pages are set here.
	Registry Fake
	Account  string // default 123456789012
	Region   string // default eu-west-1
	// Alias makes it a public registry, whose names begin with it.
	Alias string
	// TokenLife of GetAuthorizationToken, default 12 h.
	TokenLife time.Duration
	// TokenUses, where set, is how many requests a token lets in.
	TokenUses int
	// Quotas are operations per second (PutImage); what goes beyond is refused.
	Quotas map[string]float64
	// Denied are IAM actions that the identity lacks (ecr:PutImage).
	Denied []string
	// Role and ExternalID: AssumeRole is asked for, and its keys alone let in.
	Role, ExternalID string
	// CreateOnPush: a template makes what is pushed to.
	CreateOnPush bool
	// NoReferrers answers 405 to the referrers API, NoMounts 202 to mounts: the
	// account's setting.
	NoReferrers, NoMounts bool
	// Referenced are images, as name:tag, that an index of theirs keeps.
	Referenced []string
	// Told is given each push as EventBridge tells it, before it is answered.
	Told func(event []byte)

	mu           sync.Mutex
	repositories map[string]*ECRRepository
	tokens       map[string]time.Time
	bearers      map[string]time.Time
	uses         map[string]int // of tokens, by whichever kind let in
	calls        []string
	buckets      map[string]*bucket
	throttled    int
	leaks        []string
	archived     map[string]bool // by repository@digest
	next         int
	once         sync.Once
}

// An ECRRepository is one as it was made.
type ECRRepository struct {
	Mutability string
	Exclude    []string
	KMS        string
	Scan       bool
	Tags       map[string]string
	Lifecycle  string
	Policy     string
	pushed     map[string]time.Time // by tag
}

type bucket struct {
	tokens float64
	at     time.Time
}

// Start serves until the test ends and points the SDKs at it by the settings
// that AWS documents. It gives the registry's host, and the storage's host to
// which it redirects. A credential that arrives there fails the test.
func (e *ECR) Start(t *testing.T) (host, storage string) {
	t.Helper()
	blobs := httptest.NewServer(e.Storage())
	t.Cleanup(blobs.Close)
	e.Registry.Blobs = blobs.URL
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAFAKE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-key")
	for _, name := range []string{"AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_REGION", "AWS_CA_BUNDLE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Cleanup(func() {
		for _, leak := range e.Leaks() {
			t.Error(leak)
		}
	})
	return strings.TrimPrefix(server.URL, "http://"), strings.TrimPrefix(blobs.URL, "http://")
}

// Storage serves the blobs that the registry redirects to.
func (e *ECR) Storage() http.Handler {
	return Storage{Fake: &e.Registry, Fail: func(format string, args ...any) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.leaks = append(e.leaks, fmt.Sprintf(format, args...))
	}}
}

// Leaks are credentials that arrived where they must not.
func (e *ECR) Leaks() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.leaks)
}

// Calls is how often an operation of the API was called.
func (e *ECR) Calls(operation string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, call := range e.calls {
		if call == operation {
			n++
		}
	}
	return n
}

// Throttled is how many requests were over a quota.
func (e *ECR) Throttled() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.throttled
}

// Expire ends all tokens given so far.
func (e *ECR) Expire() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.tokens)
	clear(e.bearers)
}

// Make makes a repository, by its whole name.
func (e *ECR) Make(name string, how ECRRepository) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.repositories == nil {
		e.repositories = make(map[string]*ECRRepository)
	}
	how.pushed = make(map[string]time.Time)
	e.repositories[name] = &how
}

// Made gives a repository as it was made.
func (e *ECR) Made(name string) (ECRRepository, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.repositories[name]; r != nil {
		return *r, true
	}
	return ECRRepository{}, false
}

func (e *ECR) defaults() {
	if e.Account == "" {
		e.Account = "123456789012"
	}
	if e.Region == "" {
		e.Region = "eu-west-1"
	}
	if e.TokenLife == 0 {
		e.TokenLife = 12 * time.Hour
	}
	e.Registry.MaxPage, e.Registry.NoMount, e.Registry.Before = 1000, e.NoMounts, e.before
}

// ServeHTTP serves API and registry.
func (e *ECR) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.once.Do(e.defaults)
	if r.URL.Path == "/" {
		e.serveAPI(w, r)
		return
	}
	p, ok := taken(w, r, &e.Registry)
	if !ok {
		return
	}
	e.restored(p)
	e.mu.Lock()
	if made := e.repositories[p.repository]; made != nil && p.tag != "" {
		made.pushed[p.tag] = time.Now()
	}
	e.next++
	id := e.next
	e.mu.Unlock()
	if e.Told != nil {
		e.Told(eventBridge(e.Account, e.Region, id, p))
	}
}

// before refuses what ECR refuses and the plain registry does not.
func (e *ECR) before(w http.ResponseWriter, r *http.Request) bool {
	if e.Alias != "" && r.URL.Path == "/token/" {
		e.serveBearer(w, r)
		return true
	}
	if !e.letIn(r) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Basic realm="http://%s/",service="ecr.amazonaws.com"`, r.Host))
		if e.Alias != "" {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token/",service="public.ecr.aws",scope="aws"`, r.Host))
		}
		Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "Your authorization token has expired. Reauthenticate and try again.")
		return true
	}
	parts := fakePaths.FindStringSubmatch(r.URL.Path)
	if parts == nil {
		return false
	}
	action := actionOf(r, parts)
	for _, needed := range append(alsoNeeded(r, parts), action) {
		if e.denies("ecr:" + needed) {
			Fail(w, http.StatusForbidden, "DENIED", "User: arn:aws:iam::"+e.Account+":user/robot is not authorized to perform: ecr:"+needed)
			return true
		}
	}
	if !e.within(action) {
		Fail(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "Rate exceeded")
		return true
	}
	return e.refuse(w, r, parts[1], parts[2], parts[3])
}

func (e *ECR) refuse(w http.ResponseWriter, r *http.Request, name, what, reference string) bool {
	e.mu.Lock()
	repository := e.repositories[name]
	e.mu.Unlock()
	if repository == nil && e.CreateOnPush && r.Method == http.MethodPost {
		e.Make(name, ECRRepository{Mutability: "MUTABLE"})
		repository = &ECRRepository{}
	}
	switch {
	case repository == nil:
		Fail(w, http.StatusNotFound, "NAME_UNKNOWN", fmt.Sprintf("The repository with name '%s' does not exist in the registry with id '%s'", name, e.Account))
		return true
	case e.away(w, r, name, what, reference):
		return true
	case what == "referrers" && e.NoReferrers:
		Fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported")
		return true
	case what == "blobs" && r.Method == http.MethodDelete:
		Fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported")
		return true
	case what == "blobs/uploads" && r.Method == http.MethodPatch && r.Header.Get("Content-Range") != "":
		// whoever believes this Range sends the rest to a wrong place
		w.Header().Set("Location", r.URL.String())
		w.Header().Set("Range", "0-0")
		w.WriteHeader(http.StatusCreated)
		return true
	case what == "blobs/uploads" && r.Method == http.MethodGet:
		Fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported")
		return true
	case what == "manifests" && r.Method == http.MethodPut && !strings.Contains(reference, ":"):
		if e.Registry.Tag(name, reference) != "" && repository.immutable(reference) {
			Fail(w, http.StatusBadRequest, "TAG_INVALID", fmt.Sprintf(
				"The image tag '%s' already exists in the '%s' repository and cannot be overwritten because the tag is immutable.", reference, name))
			return true
		}
	}
	return false
}

func (r *ECRRepository) immutable(tag string) bool {
	switch r.Mutability {
	case "IMMUTABLE":
		return true
	case "IMMUTABLE_WITH_EXCLUSION":
		return !slices.ContainsFunc(r.Exclude, func(pattern string) bool {
			ok, _ := path.Match(pattern, tag)
			return ok
		})
	}
	return false
}

// actionOf is the IAM action that a request needs.
func actionOf(r *http.Request, parts []string) string {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch parts[2] {
	case "manifests":
		switch {
		case read:
			return "BatchGetImage"
		case r.Method == http.MethodDelete:
			return "BatchDeleteImage"
		}
		return "PutImage"
	case "blobs":
		if r.Method == http.MethodHead {
			return "BatchCheckLayerAvailability"
		}
		return "GetDownloadUrlForLayer"
	case "blobs/uploads":
		if r.Method == http.MethodPost || r.Method == http.MethodDelete { // who begins one may give it up
			return "InitiateLayerUpload"
		}
		return "CompleteLayerUpload"
	case "tags":
		return "ListImages"
	}
	return "ListImageReferrers"
}

// alsoNeeded are further actions: an upload in one request sends and ends it.
func alsoNeeded(r *http.Request, parts []string) []string {
	if parts[2] == "blobs/uploads" && r.Method == http.MethodPut && r.ContentLength != 0 {
		return []string{"UploadLayerPart"}
	}
	return nil
}

func (e *ECR) denies(action string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.Denied, action)
}

// Deny takes IAM actions away, and gives back what it does not name.
func (e *ECR) Deny(actions ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.Denied = actions
}

// within takes one of an operation's quota, which refills evenly and holds a
// second's worth.
func (e *ECR) within(operation string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	quota := e.Quotas[operation]
	if quota == 0 {
		return true
	}
	if e.buckets == nil {
		e.buckets = make(map[string]*bucket)
	}
	now := time.Now()
	b := e.buckets[operation]
	if b == nil {
		b = &bucket{tokens: quota, at: now}
		e.buckets[operation] = b
	}
	b.tokens = min(quota, b.tokens+now.Sub(b.at).Seconds()*quota)
	b.at = now
	if b.tokens < 1 {
		e.throttled++
		return false
	}
	b.tokens--
	return true
}
