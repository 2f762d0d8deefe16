package providertest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// ecrRequest is what the calls of the API carry, all together.
type ecrRequest struct {
	RepositoryName             string
	RepositoryNames            []string
	RegistryID                 string `json:"registryId"`
	MaxResults                 int
	NextToken                  string
	ImageTagMutability         string
	ImageScanningConfiguration struct {
		ScanOnPush bool
	}
	ImageTagMutabilityExclusionFilters []struct{ Filter, FilterType string }
	EncryptionConfiguration            struct{ EncryptionType, KmsKey string }
	Tags                               []struct{ Key, Value string }
	LifecyclePolicyText, PolicyText    string
	LayerDigests                       []string
	Filter                             struct{ TagStatus, ImageStatus string }
	ImageIDs                           []struct{ ImageTag, ImageDigest string } `json:"imageIds"`
}

func apiFault(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
}

// key is the access key that a request is signed with, "" where it is not
// signed as SigV4 wants it for the region.
func (e *ECR) key(r *http.Request, region string) string {
	rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) < 5 || r.Header.Get("X-Amz-Date") == "" || !strings.Contains(rest, "Signature=") || region != "" && parts[2] != region {
		return ""
	}
	return parts[0]
}

func (e *ECR) serveAPI(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	service, operation, ok := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	if !ok {
		e.serveSTS(w, r, string(body))
		return
	}
	e.mu.Lock()
	e.calls = append(e.calls, operation)
	e.mu.Unlock()
	want, action, region := "AmazonEC2ContainerRegistry_V20150921", "ecr:"+operation, e.Region
	if e.Alias != "" {
		want, action, region = "SpencerFrontendService", "ecr-public:"+operation, "us-east-1"
	}
	switch key := e.key(r, region); {
	case service != want:
		apiFault(w, 400, "UnknownOperationException", "no such service here: "+service)
		return
	case key == "":
		apiFault(w, 400, "InvalidSignatureException", "the request is not signed for this region")
		return
	case e.Role != "" && key != "ASIAROLE", e.denies(action):
		apiFault(w, 400, "AccessDeniedException", "User: arn:aws:iam::"+e.Account+":user/robot is not authorized to perform: "+action)
		return
	}
	if !e.within(operation) {
		apiFault(w, 400, "ThrottlingException", "Rate exceeded")
		return
	}
	var in ecrRequest
	if json.Unmarshal(body, &in) != nil {
		apiFault(w, 400, "SerializationException", "not JSON")
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	switch operation {
	case "GetAuthorizationToken":
		e.authorize(w)
	case "DescribeRepositories":
		e.describeRepositories(w, in)
	case "DescribeImages":
		e.describeImages(w, in)
	case "BatchDeleteImage":
		e.batchDelete(w, in)
	case "CreateRepository":
		e.createRepository(w, in)
	case "DeleteRepository":
		e.deleteRepository(w, in)
	case "PutLifecyclePolicy":
		e.putLifecycle(w, in)
	case "SetRepositoryPolicy":
		e.setPolicy(w, in)
	case "BatchCheckLayerAvailability":
		e.checkLayers(w, in)
	case "DescribeRegistries":
		ecrAnswer(w, map[string]any{"registries": []any{map[string]any{
			"registryId": e.Account, "aliases": []any{map[string]any{"name": e.Alias, "status": "ACTIVE"}},
		}}})
	default:
		apiFault(w, 400, "UnknownOperationException", operation)
	}
}

func ecrAnswer(w io.Writer, doc any) { _ = json.NewEncoder(w).Encode(doc) }

// GiveToken gives a token as GetAuthorizationToken does, and its end: the
// password of the user AWS.
func (e *ECR) GiveToken() (password string, expires time.Time) {
	e.once.Do(e.defaults)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.next++
	password = "password-of-ecr-" + strconv.Itoa(e.next)
	if e.tokens == nil {
		e.tokens = make(map[string]time.Time)
	}
	expires = time.Now().Add(e.TokenLife)
	e.tokens[password] = expires
	return password, expires
}

func (e *ECR) authorize(w http.ResponseWriter) {
	token, expires := e.GiveToken()
	data := map[string]any{
		"authorizationToken": base64.StdEncoding.EncodeToString([]byte("AWS:" + token)),
		"expiresAt":          float64(expires.UnixMilli()) / 1000,
	}
	if e.Alias != "" {
		ecrAnswer(w, map[string]any{"authorizationData": data})
		return
	}
	data["proxyEndpoint"] = fmt.Sprintf("https://%s.dkr.ecr.%s.amazonaws.com", e.Account, e.Region)
	ecrAnswer(w, map[string]any{"authorizationData": []any{data}})
}

// letIn tells whether a request of the registry carries a token that lives.
func (e *ECR) letIn(r *http.Request) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.Alias != "" {
		value, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		return time.Now().Before(e.bearers[value]) && e.use(value)
	}
	username, password, _ := r.BasicAuth()
	return username == "AWS" && time.Now().Before(e.tokens[password]) && e.use(password)
}

// use counts one request of a token that lives.
func (e *ECR) use(token string) bool {
	if e.uses == nil {
		e.uses = make(map[string]int)
	}
	e.uses[token]++
	return e.TokenUses == 0 || e.uses[token] <= e.TokenUses
}

// serveBearer is the public registry's realm.
func (e *ECR) serveBearer(w http.ResponseWriter, r *http.Request) {
	username, password, _ := r.BasicAuth()
	e.mu.Lock()
	defer e.mu.Unlock()
	if username != "AWS" || !time.Now().Before(e.tokens[password]) || !e.use(password) {
		Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "Not Authorized")
		return
	}
	e.next++
	if e.bearers == nil {
		e.bearers = make(map[string]time.Time)
	}
	value := "bearer-of-ecr-" + strconv.Itoa(e.next)
	e.bearers[value] = time.Now().Add(e.TokenLife)
	ecrAnswer(w, map[string]any{"token": value})
}

// whole is a repository's name as the registry has it, its alias included.
func (e *ECR) whole(name string) string {
	if e.Alias != "" {
		return e.Alias + "/" + name
	}
	return name
}

func (e *ECR) unknown(w http.ResponseWriter, name string) {
	apiFault(w, 400, "RepositoryNotFoundException", fmt.Sprintf("The repository with name '%s' does not exist in the registry with id '%s'", name, e.Account))
}

func (e *ECR) describeRepositories(w http.ResponseWriter, in ecrRequest) {
	e.mu.Lock()
	names := slices.Sorted(maps.Keys(e.repositories))
	e.mu.Unlock()
	if in.RegistryID != "" && in.RegistryID != e.Account {
		names = nil
	}
	for _, name := range in.RepositoryNames {
		if !slices.Contains(names, e.whole(name)) {
			e.unknown(w, name)
			return
		}
	}
	if in.RepositoryNames != nil {
		names = nil
		for _, name := range in.RepositoryNames {
			names = append(names, e.whole(name))
		}
	}
	page, next, ok := pageOf(w, names, in)
	if !ok {
		return
	}
	list := []any{}
	for _, name := range page {
		if e.Alias != "" {
			name = strings.TrimPrefix(name, e.Alias+"/")
		}
		list = append(list, map[string]any{"repositoryName": name, "registryId": e.Account})
	}
	ecrAnswer(w, map[string]any{"repositories": list, "nextToken": next})
}

// pageOf cuts a sorted list; more than 1,000 are refused.
func pageOf(w http.ResponseWriter, names []string, in ecrRequest) (page []string, next any, ok bool) {
	if in.MaxResults > 1000 {
		apiFault(w, 400, "InvalidParameterException", "maxResults is over 1000")
		return nil, nil, false
	}
	n := in.MaxResults
	if n == 0 {
		n = 100
	}
	start, _ := strconv.Atoi(in.NextToken)
	names = names[min(start, len(names)):]
	if len(names) > n {
		return names[:n], strconv.Itoa(start + n), true
	}
	return names, nil, true
}

func (e *ECR) describeImages(w http.ResponseWriter, in ecrRequest) {
	name := e.whole(in.RepositoryName)
	e.mu.Lock()
	repository := e.repositories[name]
	pushed := map[string]time.Time{}
	if repository != nil {
		pushed = maps.Clone(repository.pushed)
	}
	e.mu.Unlock()
	if repository == nil {
		e.unknown(w, name)
		return
	}
	tags := make(map[string][]string)
	var digests []string
	for tag, d := range e.Registry.Tags(name) {
		if !e.shown(name, d, in.Filter.ImageStatus) {
			continue
		}
		if tags[d.String()] == nil {
			digests = append(digests, d.String())
		}
		tags[d.String()] = append(tags[d.String()], tag)
	}
	sort.Strings(digests)
	page, next, ok := pageOf(w, digests, in)
	if !ok {
		return
	}
	list := []any{}
	for _, d := range page {
		var at time.Time
		for _, tag := range tags[d] {
			if pushed[tag].After(at) {
				at = pushed[tag]
			}
		}
		image := map[string]any{"imageStatus": e.status(name, digest.Digest(d)), "imageDigest": d, "imageTags": tags[d], "imagePushedAt": float64(at.UnixMilli()) / 1000}
		list = append(list, image)
	}
	ecrAnswer(w, map[string]any{"imageDetails": list, "nextToken": next})
}

// batchDelete answers 200 whatever became of each image. One that an index of
// the repository names stays.
func (e *ECR) batchDelete(w http.ResponseWriter, in ecrRequest) {
	name := e.whole(in.RepositoryName)
	if _, there := e.Made(name); !there {
		e.unknown(w, name)
		return
	}
	deleted, failures := []any{}, []any{}
	for _, id := range in.ImageIDs {
		shown := map[string]string{"imageTag": id.ImageTag}
		fail := func(code, reason string) {
			failures = append(failures, map[string]any{"imageId": shown, "failureCode": code, "failureReason": reason})
		}
		switch {
		case id.ImageTag == "" || id.ImageDigest != "":
			fail("InvalidImageTag", "this fake deletes by tag alone: by digest all tags would go")
		case e.Registry.Tag(name, id.ImageTag) == "":
			fail("ImageNotFound", "Requested image not found")
		case slices.Contains(e.Referenced, name+":"+id.ImageTag):
			fail("ImageReferencedByManifestList", "Requested image referenced by manifest list")
		default:
			e.Registry.Untag(name, id.ImageTag, true)
			deleted = append(deleted, shown)
		}
	}
	ecrAnswer(w, map[string]any{"imageIds": deleted, "failures": failures})
}

func (e *ECR) createRepository(w http.ResponseWriter, in ecrRequest) {
	name := e.whole(in.RepositoryName)
	if _, there := e.Made(name); there {
		apiFault(w, 400, "RepositoryAlreadyExistsException", "The repository with name '"+name+"' already exists")
		return
	}
	how := ECRRepository{Mutability: in.ImageTagMutability, KMS: in.EncryptionConfiguration.KmsKey, Scan: in.ImageScanningConfiguration.ScanOnPush, Tags: map[string]string{}}
	if how.Mutability == "" {
		how.Mutability = "MUTABLE"
	}
	for _, filter := range in.ImageTagMutabilityExclusionFilters {
		if filter.FilterType != "WILDCARD" {
			apiFault(w, 400, "InvalidParameterException", "filterType")
			return
		}
		how.Exclude = append(how.Exclude, filter.Filter)
	}
	for _, tag := range in.Tags {
		how.Tags[tag.Key] = tag.Value
	}
	e.Make(name, how)
	ecrAnswer(w, map[string]any{"repository": map[string]any{"repositoryName": in.RepositoryName, "registryId": e.Account}})
}

// deleteRepository takes away one without images; nobody forces it here.
func (e *ECR) deleteRepository(w http.ResponseWriter, in ecrRequest) {
	name := e.whole(in.RepositoryName)
	if _, there := e.Made(name); !there {
		e.unknown(w, in.RepositoryName)
		return
	}
	if e.Registry.holds(name) {
		apiFault(w, 400, "RepositoryNotEmptyException", "The repository with name '"+name+"' cannot be deleted because it still contains images")
		return
	}
	e.mu.Lock()
	delete(e.repositories, name)
	e.mu.Unlock()
	ecrAnswer(w, map[string]any{"repository": map[string]any{"repositoryName": in.RepositoryName, "registryId": e.Account}})
}

func (e *ECR) putLifecycle(w http.ResponseWriter, in ecrRequest) {
	e.mu.Lock()
	defer e.mu.Unlock()
	repository := e.repositories[in.RepositoryName]
	switch {
	case repository == nil:
		e.unknown(w, in.RepositoryName)
	case !json.Valid([]byte(in.LifecyclePolicyText)):
		apiFault(w, 400, "InvalidParameterException", "Lifecycle policy is no JSON")
	default:
		repository.Lifecycle = in.LifecyclePolicyText
		ecrAnswer(w, map[string]any{"registryId": e.Account})
	}
}

// serveSTS gives the keys of the role, to who names it and its external id.
func (e *ECR) serveSTS(w http.ResponseWriter, r *http.Request, body string) {
	form, _ := url.ParseQuery(body)
	if form.Get("Action") == "GetCallerIdentity" {
		e.callerIdentity(w, r)
		return
	}
	e.mu.Lock()
	e.calls = append(e.calls, "AssumeRole")
	e.mu.Unlock()
	w.Header().Set("Content-Type", "text/xml")
	if form.Get("Action") == "AssumeRoleWithWebIdentity" && form.Get("WebIdentityToken") == "web-identity" && form.Get("RoleArn") == e.Role {
		writeKeys(w, "AssumeRoleWithWebIdentity")
		return
	}
	if form.Get("Action") != "AssumeRole" || e.key(r, "") != "AKIAFAKE" || form.Get("RoleArn") != e.Role || form.Get("ExternalId") != e.ExternalID {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>`)
		return
	}
	writeKeys(w, "AssumeRole")
}

// callerIdentity names whoever has signed; it needs no permission.
func (e *ECR) callerIdentity(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/xml")
	arn := "arn:aws:iam::" + e.Account + ":user/robot"
	switch e.key(r, "") {
	case "":
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `<ErrorResponse><Error><Type>Sender</Type><Code>InvalidClientTokenId</Code><Message>The security token included in the request is invalid.</Message></Error></ErrorResponse>`)
		return
	case "ASIAROLE":
		arn = "arn:aws:sts::" + e.Account + ":assumed-role/twinport/twinport"
	}
	_, _ = fmt.Fprintf(w, `<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>%s</Arn><UserId>AIDAFAKE</UserId><Account>%s</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`, arn, e.Account)
}

func writeKeys(w io.Writer, action string) {
	_, _ = fmt.Fprintf(w, `<%[1]sResponse><%[1]sResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%[2]s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
		action, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
}
