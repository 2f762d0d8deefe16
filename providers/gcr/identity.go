package gcr

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"cloud.google.com/go/auth"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// tokenUser goes with an access token as password (Artifact Registry,
	// "Configure authentication to Artifact Registry for Docker").
	tokenUser = "oauth2accesstoken"
	scope     = "https://www.googleapis.com/auth/cloud-platform"
	maxKey    = 1 << 20
)

// An identity is one of Google Cloud: a key file of the config's, else
// Application Default Credentials.
type identity struct {
	file   string
	client *http.Client
	// metadata is asked apart from the registry's limits: it is a link of this
	// machine, and its absence says nothing about the registry.
	metadata *http.Client

	mu     sync.Mutex
	source source
	key    []byte // the source was made of
}

func newIdentity(google *generic.Google, rt http.RoundTripper) *identity {
	id := &identity{client: generic.SDKClient(rt, oci.OpToken), metadata: &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second, // never through a proxy
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if google != nil {
		id.file = google.File
	}
	return id
}

// login gives an access token and its end.
func (id *identity) login(ctx context.Context, r *generic.Registry, _ bool) (generic.Login, error) {
	source, err := id.get()
	var token *auth.Token
	if err == nil {
		token, err = source.Token(ctx)
	}
	if err == nil && token.Value == "" {
		err = errors.New("an empty token")
	}
	if err != nil {
		return generic.Login{}, id.fault(ctx, r, err)
	}
	return generic.Login{Username: tokenUser, Password: token.Value, Expires: token.Expiry}, nil
}

var errNoIdentity = errors.New("no identity of Google Cloud here")

// get gives the source of tokens, made again where the key file has changed.
// None of them keeps tokens: whoever logs in does.
func (id *identity) get() (source, error) {
	file := id.file
	if file == "" {
		file = defaultFile()
	}
	if file == "" {
		return metadataServer{id.metadata}, nil
	}
	key, err := readKey(file)
	if err != nil {
		return nil, err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.source == nil || !bytes.Equal(key, id.key) {
		source, err := openKey(key, id.client)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		id.source, id.key = source, key
	}
	return id.source, nil
}

// defaultFile is where Application Default Credentials lie, empty where there
// is no file and the metadata server is the one left to ask.
func defaultFile() string {
	if file := os.Getenv("GOOGLE_APPLICATION_CREDENTIALS"); file != "" {
		return file
	}
	dir := os.Getenv("CLOUDSDK_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(home, ".config", "gcloud")
	}
	file := filepath.Join(dir, "application_default_credentials.json")
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

func readKey(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxKey {
		return nil, fmt.Errorf("%s is no key file: %d bytes", file, info.Size())
	}
	return os.ReadFile(file)
}

// fault classifies why there is no token. Without any identity at all docker's
// config may have one.
func (id *identity) fault(ctx context.Context, r *generic.Registry, err error) error {
	if ctx.Err() != nil {
		return err
	}
	e := oci.RegistryError{Operation: "log in to Google Cloud", Kind: oci.ErrDenied, Message: err.Error()}
	var answered *auth.Error
	switch {
	case errors.Is(err, errNoIdentity):
		e.Hint = "give the process an identity (GOOGLE_APPLICATION_CREDENTIALS, workload identity, the machine's service account), or set auth.google"
		return errors.Join(generic.ErrNoLogin, r.Fault(e))
	case errors.As(err, &answered) && answered.Response != nil:
		e.Status, e.Message = answered.Response.StatusCode, tokenMessage(answered.Body)
		switch {
		case e.Status == http.StatusTooManyRequests:
			return &oci.ThrottledError{Wait: generic.RetryAfter(answered.Response.Header), Err: r.Fault(e)}
		case e.Status >= 500:
			e.Kind = oci.ErrInterrupted
		default:
			e.Hint = "check that the service account and its key still exist and are enabled"
		}
	case generic.NoAnswer(err):
		e.Kind, e.Hint = oci.ErrUnreachable, "check that oauth2.googleapis.com, or the metadata server, can be reached from here"
	default:
		e.Hint = "check auth.google of this registry"
	}
	return r.Fault(e)
}

// tokenMessage is what a token endpoint says (RFC 6749, section 5.2).
func tokenMessage(body []byte) string {
	var doc struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(body, &doc) != nil {
		return "no token"
	}
	return doc.Error + ": " + doc.Description
}
