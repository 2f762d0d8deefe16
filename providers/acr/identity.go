package acr

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/containers/azcontainerregistry"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// scope is the audience that registries of every Azure cloud take.
	scope = "https://containerregistry.azure.net/.default"
	// refreshUser goes with a refresh token as Basic password (Microsoft Learn,
	// "Authenticate with an Azure container registry", az acr login).
	refreshUser = "00000000-0000-0000-0000-000000000000"
	// refreshLife is a refresh token's where it does not tell itself.
	refreshLife = 3 * time.Hour
)

// An identity is one of Microsoft Entra: it gives an Entra token, which the
// registry exchanges for a refresh token of its own (three hours), with which
// generic asks for tokens as any challenge wants.
type identity struct {
	service string // the registry's login server
	azure   generic.Azure
	given   bool // the config names an identity, so docker's config is no way out
	options azcore.ClientOptions
	auth    *azcontainerregistry.AuthenticationClient

	mu         sync.Mutex
	credential azcore.TokenCredential
	secret     string // the credential was made with
}

func newIdentity(spec generic.Spec, rt http.RoundTripper) (*identity, error) {
	id := &identity{service: spec.Host}
	if spec.Auth.Azure != nil {
		id.azure, id.given = *spec.Auth.Azure, true
	}
	id.options = azcore.ClientOptions{
		Cloud: cloudOf(spec.Host),
		// Each asking is made again by whoever needs the token; the SDK's own
		// retries would hold a job for minutes.
		Retry:     policy.RetryOptions{MaxRetries: 1, RetryDelay: time.Second, MaxRetryDelay: 5 * time.Second},
		Transport: generic.SDKClient(rt, oci.OpToken),
		Telemetry: policy.TelemetryOptions{Disabled: true},
	}
	scheme := "https://"
	if spec.PlainHTTP {
		scheme = "http://"
	}
	auth, err := azcontainerregistry.NewAuthenticationClient(scheme+spec.Host, &azcontainerregistry.AuthenticationClientOptions{ClientOptions: id.options})
	id.auth = auth
	return id, err
}

// cloudOf tells the Azure cloud by the address.
func cloudOf(host string) cloud.Configuration {
	config := cloud.AzurePublic
	switch {
	case strings.HasSuffix(host, ".azurecr.cn"):
		config = cloud.AzureChina
	case strings.HasSuffix(host, ".azurecr.us"):
		config = cloud.AzureGovernment
	}
	if own := os.Getenv("AZURE_AUTHORITY_HOST"); own != "" {
		config.ActiveDirectoryAuthorityHost = own
	}
	return config
}

// knownAuthorities are Microsoft's; another one is that of a disconnected cloud,
// of which Entra's public directory knows nothing.
var knownAuthorities = []string{cloud.AzurePublic.ActiveDirectoryAuthorityHost, cloud.AzureChina.ActiveDirectoryAuthorityHost, cloud.AzureGovernment.ActiveDirectoryAuthorityHost}

func (id *identity) disconnected() bool {
	for _, known := range knownAuthorities {
		if strings.TrimSuffix(id.options.Cloud.ActiveDirectoryAuthorityHost, "/") == strings.TrimSuffix(known, "/") {
			return false
		}
	}
	return true
}

// login gives a refresh token of the registry and its end.
func (id *identity) login(ctx context.Context, r *generic.Registry, anew bool) (generic.Login, error) {
	credential, err := id.get(anew)
	if err != nil {
		return generic.Login{}, r.Fault(oci.RegistryError{
			Operation: "log in to Entra", Kind: oci.ErrDenied, Message: err.Error(), Hint: hintIdentity,
		})
	}
	token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}, TenantID: id.azure.Tenant})
	if err != nil {
		return generic.Login{}, id.entraError(ctx, r, err)
	}
	options := &azcontainerregistry.AuthenticationClientExchangeAADAccessTokenForACRRefreshTokenOptions{AccessToken: &token.Token}
	if id.azure.Tenant != "" {
		options.Tenant = &id.azure.Tenant
	}
	asked := time.Now()
	answer, err := id.auth.ExchangeAADAccessTokenForACRRefreshToken(ctx, azcontainerregistry.PostContentSchemaGrantTypeAccessToken, id.service, options)
	if err != nil {
		return generic.Login{}, exchangeError(ctx, r, err)
	}
	if answer.RefreshToken == nil || *answer.RefreshToken == "" {
		return generic.Login{}, r.Senseless("POST /oauth2/exchange", "the answer holds no refresh token")
	}
	return generic.Login{Username: refreshUser, Password: *answer.RefreshToken, Refresh: *answer.RefreshToken, Expires: expiry(*answer.RefreshToken, asked)}, nil
}

// get gives the credential, made again where its secret has changed or it was
// refused: the SDK keeps tokens and would give the same again.
func (id *identity) get(anew bool) (azcore.TokenCredential, error) {
	secret := ""
	if id.azure.Secret != nil {
		var err error
		if secret, err = id.azure.Secret(); err != nil {
			return nil, err
		}
		secret = strings.TrimRight(secret, "\r\n")
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.credential != nil && secret == id.secret && !anew {
		return id.credential, nil
	}
	credential, err := id.open(secret)
	if err != nil {
		return nil, err
	}
	id.credential, id.secret = credential, secret
	return credential, nil
}

func (id *identity) open(secret string) (azcore.TokenCredential, error) {
	alone := id.disconnected()
	tenant, client := id.azure.Tenant, id.azure.Client
	switch {
	case secret != "":
		if tenant == "" {
			tenant = os.Getenv("AZURE_TENANT_ID")
		}
		if client == "" {
			client = os.Getenv("AZURE_CLIENT_ID")
		}
		return azidentity.NewClientSecretCredential(tenant, client, secret, &azidentity.ClientSecretCredentialOptions{ClientOptions: id.options, DisableInstanceDiscovery: alone})
	case client != "" && os.Getenv("AZURE_FEDERATED_TOKEN_FILE") != "":
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: id.options, ClientID: client, TenantID: tenant, DisableInstanceDiscovery: alone,
		})
	case client != "":
		return azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: id.options, ID: azidentity.ClientID(client)})
	}
	return azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: id.options, TenantID: tenant, DisableInstanceDiscovery: alone})
}

const hintIdentity = "give the process an identity (AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, a workload or a managed identity), or set auth.azure"

// entraError classifies what Entra or the metadata service said. Without any
// identity at all docker's config may have one.
func (id *identity) entraError(ctx context.Context, r *generic.Registry, err error) error {
	if ctx.Err() != nil {
		return err
	}
	e := oci.RegistryError{Operation: "log in to Entra", Kind: oci.ErrDenied, Message: firstLine(err.Error()), Hint: hintIdentity}
	var failed *azidentity.AuthenticationFailedError
	switch {
	case errors.As(err, &failed) && failed.RawResponse != nil:
		e.Status = failed.RawResponse.StatusCode
		e.Hint = "check tenant, client and secret of the identity in Entra"
		if e.Status >= 500 || e.Status == http.StatusTooManyRequests {
			e.Kind, e.Hint = oci.ErrInterrupted, ""
		}
		e.Message = entraMessage(err.Error())
	case generic.NoAnswer(err):
		e.Kind, e.Hint = oci.ErrUnreachable, "check that Entra can be reached from here"
	case !id.given:
		return errors.Join(generic.ErrNoLogin, r.Fault(e))
	}
	return r.Fault(e)
}

// exchangeError classifies what the registry said to an Entra token.
func exchangeError(ctx context.Context, r *generic.Registry, err error) error {
	const what = "POST /oauth2/exchange"
	var answered *azcore.ResponseError
	if ctx.Err() != nil {
		return err
	}
	if !errors.As(err, &answered) {
		return r.Fault(oci.RegistryError{Operation: what, Kind: oci.ErrUnreachable, Cause: err})
	}
	e := oci.RegistryError{Operation: what, Status: answered.StatusCode, Code: answered.ErrorCode, Kind: oci.ErrDenied}
	switch {
	case e.Status == http.StatusTooManyRequests:
		return &oci.ThrottledError{Wait: generic.RetryAfter(answered.RawResponse.Header), Err: r.Fault(e)}
	case e.Status >= 500:
		e.Kind = oci.ErrInterrupted
		if e.Status != http.StatusInternalServerError {
			e.Kind = oci.ErrUnreachable
		}
	default:
		e.Message = "the registry takes no tokens of this identity"
		e.Hint = "check that the registry trusts the identity's tenant (azureADAuthenticationAsArmPolicy enabled), and give it the role " + rolePull + "; at a destination " + rolePush
	}
	return r.Fault(e)
}

// entraMessage is the AADSTS line of an error whose text holds a whole dump.
func entraMessage(text string) string {
	if at := strings.Index(text, "AADSTS"); at >= 0 {
		text = text[at:]
		if end := strings.IndexAny(text, "\r\n\"\\"); end >= 0 {
			text = text[:end]
		}
		return text
	}
	return firstLine(text)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// expiry is the end a refresh token tells of itself.
func expiry(token string, asked time.Time) time.Time {
	if life, ok := generic.JWTLife(token, asked); ok {
		return asked.Add(life)
	}
	return asked.Add(refreshLife)
}
