package gcr

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"cloud.google.com/go/auth"
)

// A source gives access tokens, a new one at each asking. (The SDK's own
// detection of credentials brings mutual TLS with helper programs and asks
// beside the registry's limits; these are the documented flows it makes.)
type source = auth.TokenProvider

const (
	tokenURL       = "https://oauth2.googleapis.com/token"
	maxTokenAnswer = 1 << 20
	exchangeGrant  = "urn:ietf:params:oauth:grant-type:token-exchange"
	accessType     = "urn:ietf:params:oauth:token-type:access_token"
)

// A key is a credential file of any type that Google documents.
type key struct {
	Type string `json:"type"`

	ClientEmail  string `json:"client_email"` // service_account
	PrivateKey   string `json:"private_key"`
	PrivateKeyID string `json:"private_key_id"`
	TokenURI     string `json:"token_uri"`

	ClientID     string `json:"client_id"` // authorized_user
	ClientSecret string `json:"client_secret"`
	RefreshToken string `json:"refresh_token"`

	Audience         string     `json:"audience"` // external_account
	SubjectTokenType string     `json:"subject_token_type"`
	TokenURL         string     `json:"token_url"`
	Subject          subjectKey `json:"credential_source"`

	ImpersonationURL string          `json:"service_account_impersonation_url"` // it and impersonated_service_account
	Source           json.RawMessage `json:"source_credentials"`
	Delegates        []string        `json:"delegates"`
}

// A subjectKey says where a workload's own token lies (workload identity federation).
type subjectKey struct {
	File          string            `json:"file"`
	URL           string            `json:"url"`
	Headers       map[string]string `json:"headers"`
	EnvironmentID string            `json:"environment_id"`
	Executable    json.RawMessage   `json:"executable"`
	Format        struct {
		Type  string `json:"type"`
		Field string `json:"subject_token_field_name"`
	} `json:"format"`
}

// openKey makes a source of a credential file. Its errors show nothing of it.
func openKey(text []byte, client *http.Client) (source, error) {
	var k key
	if json.Unmarshal(text, &k) != nil {
		return nil, errors.New("no credential file: it is no JSON object")
	}
	var s source
	switch k.Type {
	case "service_account":
		if k.TokenURI == "" {
			k.TokenURI = tokenURL
		}
		two, err := auth.New2LOTokenProvider(&auth.Options2LO{
			Email: k.ClientEmail, PrivateKey: []byte(k.PrivateKey), PrivateKeyID: k.PrivateKeyID,
			TokenURL: k.TokenURI, Scopes: []string{scope}, Client: client,
		})
		if err != nil {
			return nil, errors.New("the service account's key is incomplete")
		}
		s = two
	case "authorized_user":
		s = user{k, client}
	case "external_account":
		if k.Subject.EnvironmentID != "" || k.Subject.Executable != nil || k.Subject.File == "" && k.Subject.URL == "" {
			return nil, errors.New("external account whose token is neither in a file nor at a URL: make its configuration with --credential-source-file or --credential-source-url")
		}
		s = federated{k, client}
	case "impersonated_service_account":
		inner, err := openKey(k.Source, client)
		if err != nil {
			return nil, fmt.Errorf("source_credentials: %w", err)
		}
		s = inner
	default:
		return nil, fmt.Errorf("credential file of type %.40q: want service_account, external_account, impersonated_service_account or authorized_user", k.Type)
	}
	if k.ImpersonationURL != "" {
		s = impersonated{s, k, client}
	}
	return s, nil
}

// user is a person's, of `gcloud auth application-default login`.
type user struct {
	key
	client *http.Client
}

func (u user) Token(ctx context.Context) (*auth.Token, error) {
	at := u.TokenURI
	if at == "" {
		at = tokenURL
	}
	return postForm(ctx, u.client, at, url.Values{
		"grant_type": {"refresh_token"}, "client_id": {u.ClientID}, "client_secret": {u.ClientSecret}, "refresh_token": {u.RefreshToken},
	})
}

// federated exchanges a token of another issuer (RFC 8693).
type federated struct {
	key
	client *http.Client
}

func (f federated) Token(ctx context.Context) (*auth.Token, error) {
	subject, err := f.subject(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the workload's token: %w", err)
	}
	return postForm(ctx, f.client, f.TokenURL, url.Values{
		"grant_type": {exchangeGrant}, "audience": {f.Audience}, "scope": {scope}, "requested_token_type": {accessType},
		"subject_token": {subject}, "subject_token_type": {f.SubjectTokenType},
	})
}

func (f federated) subject(ctx context.Context) (string, error) {
	var text []byte
	var err error
	if f.Subject.File != "" {
		text, err = readKey(f.Subject.File)
	} else {
		var req *http.Request
		if req, err = http.NewRequestWithContext(ctx, http.MethodGet, f.Subject.URL, nil); err == nil {
			for name, value := range f.Subject.Headers {
				req.Header.Set(name, value)
			}
			text, err = send(f.client, req)
		}
	}
	if err != nil {
		return "", err
	}
	if f.Subject.Format.Type != "json" {
		return strings.TrimSpace(string(text)), nil
	}
	var doc map[string]any
	if json.Unmarshal(text, &doc) != nil {
		return "", errors.New("it is no JSON object")
	}
	value, _ := doc[f.Subject.Format.Field].(string)
	if value == "" {
		return "", fmt.Errorf("it has no field %.60q", f.Subject.Format.Field)
	}
	return value, nil
}

// impersonated acts for a service account (iamcredentials, generateAccessToken).
type impersonated struct {
	source
	key
	client *http.Client
}

func (i impersonated) Token(ctx context.Context) (*auth.Token, error) {
	own, err := i.source.Token(ctx)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]any{"scope": []string{scope}, "lifetime": "3600s", "delegates": i.Delegates})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, i.ImpersonationURL, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("service_account_impersonation_url is no address")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+own.Value)
	text, err := send(i.client, req)
	if err != nil {
		return nil, fmt.Errorf("impersonate: %w", err)
	}
	var doc struct {
		Token  string    `json:"accessToken"`
		Expiry time.Time `json:"expireTime"`
	}
	if json.Unmarshal(text, &doc) != nil {
		return nil, errors.New("impersonate: the answer is no token")
	}
	return &auth.Token{Value: doc.Token, Expiry: doc.Expiry}, nil
}

// metadataServer is that of Google's machines and of GKE's workload identity.
type metadataServer struct{ client *http.Client }

func (m metadataServer) Token(ctx context.Context) (*auth.Token, error) {
	host := os.Getenv("GCE_METADATA_HOST")
	if host == "" {
		host = "metadata.google.internal"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		"http://"+host+"/computeMetadata/v1/instance/service-accounts/default/token?scopes="+url.QueryEscape(scope), nil)
	if err != nil {
		return nil, errors.New("GCE_METADATA_HOST is no host")
	}
	req.Header.Set("Metadata-Flavor", "Google")
	asked := time.Now()
	text, err := send(m.client, req)
	if err != nil {
		var answered *auth.Error
		if errors.As(err, &answered) && answered.Response.StatusCode >= 500 {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", errNoIdentity, err)
	}
	return parseToken(text, asked)
}

func postForm(ctx context.Context, client *http.Client, at string, form url.Values) (*auth.Token, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, errors.New("the token endpoint is no address")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	asked := time.Now()
	text, err := send(client, req)
	if err != nil {
		return nil, err
	}
	return parseToken(text, asked)
}

func parseToken(text []byte, asked time.Time) (*auth.Token, error) {
	var doc struct {
		Token   string  `json:"access_token"`
		Expires float64 `json:"expires_in"` // seconds
	}
	if json.Unmarshal(text, &doc) != nil || doc.Token == "" {
		return nil, errors.New("the answer is no token")
	}
	t := &auth.Token{Value: doc.Token}
	if doc.Expires > 0 {
		t.Expiry = asked.Add(time.Duration(min(doc.Expires, 86400) * float64(time.Second)))
	}
	return t, nil
}

// send gives the body of a 200; another answer is an *auth.Error.
func send(client *http.Client, req *http.Request) ([]byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		var u *url.Error // its text is the whole address
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &auth.Error{Response: resp, Body: text}
	}
	return text, nil
}
