package acr

import (
	"encoding/base64"
	"testing"
)

// TestPrincipal reads whom a token is for, whatever kind of identity has it.
func TestPrincipal(t *testing.T) {
	token := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
	}
	for name, c := range map[string]struct{ token, want string }{
		"a service principal": {token(`{"appid":"a1","oid":"o1","tid":"t1"}`), "client a1, object o1, tenant t1"},
		"of version 2":        {token(`{"azp":"a1","tid":"t1"}`), "client a1, tenant t1"},
		"with a name":         {token(`{"app_displayname":"twinport","appid":"a1","tid":"t1"}`), "application twinport, client a1, tenant t1"},
		"a managed identity":  {token(`{"xms_mirid":"/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/twinport","appid":"a1","tid":"t1"}`), "managed identity twinport, client a1, tenant t1"},
		"a person":            {token(`{"upn":"ada@example.com","appid":"az","oid":"o1","tid":"t1"}`), "user ada@example.com, object o1, tenant t1"},
		"no token":            {"nothing", ""},
		"no claims":           {token(`[]`), ""},
		"no base64":           {"a.%%%.c", ""},
	} {
		if got := principal(c.token); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
