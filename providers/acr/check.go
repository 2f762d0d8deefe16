package acr

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"path"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/twinport/twinport/replicator/oci"
)

var _ oci.Introspector = (*Registry)(nil)

// Account is the principal that Entra's own token names, once the registry has
// taken it.
func (r *Registry) Account(ctx context.Context) (string, error) {
	if r.id == nil {
		return r.Registry.Account(ctx)
	}
	name := ""
	if credential, err := r.id.get(false); err == nil {
		token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}, TenantID: r.id.azure.Tenant})
		if err == nil {
			name = principal(token.Token)
		}
	}
	if err := r.LoggedIn(ctx); err != nil {
		return name, err // it says why Entra gave no token, too
	}
	if name == "" {
		user, _, err := r.Credentials(ctx)
		switch {
		case err != nil:
			return "", err
		case user == refreshUser:
			user = "a refresh token"
		}
		return user + " (docker's config)", nil
	}
	return name, nil
}

// principal reads whom an access token is for (Microsoft Learn, "Access token
// claims reference"). Nobody checks its signature: it is only shown.
func principal(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	var claims struct {
		User     string `json:"upn"`
		App      string `json:"appid"`
		AppV2    string `json:"azp"`
		Name     string `json:"app_displayname"`
		Object   string `json:"oid"`
		Tenant   string `json:"tid"`
		Resource string `json:"xms_mirid"` // of a managed identity
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil || json.Unmarshal(text, &claims) != nil {
		return ""
	}
	var who []string
	add := func(what, value string) {
		if value != "" && len(value) <= 256 {
			who = append(who, what+value)
		}
	}
	app := claims.App
	if app == "" {
		app = claims.AppV2
	}
	switch {
	case claims.User != "":
		add("user ", claims.User)
	case claims.Resource != "":
		add("managed identity ", path.Base(claims.Resource))
		add("client ", app)
	case claims.Name != "":
		add("application ", claims.Name)
		add("client ", app)
	default:
		add("client ", app)
	}
	add("object ", claims.Object)
	add("tenant ", claims.Tenant)
	return strings.Join(who, ", ")
}
