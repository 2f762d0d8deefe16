package acr

import "testing"

// TestOwn: another registry's endpoints, and what only looks like one of ours,
// stay strangers.
func TestOwn(t *testing.T) {
	for _, c := range []struct {
		host, other string
		want        bool
	}{
		{"contosodr.azurecr.io", "contosodr.westeurope.data.azurecr.io", true},
		{"ContosoDR.azurecr.io", "contosodr.westeurope.geo.azurecr.io", true},
		{"contosodr.westeurope.geo.azurecr.us", "contosodr.azurecr.us", true},
		{"contosodr.azurecr.io", "contosodr2.westeurope.data.azurecr.io", false},
		{"contosodr.azurecr.io", "contosodr.westeurope.data.azurecr.io.example.com", false},
		{"contosodr.azurecr.io", "contosodr.westeurope.data.azurecr.cn", false},
		{"contosodr.azurecr.io", "x.contosodr.westeurope.data.azurecr.io", false},
		{"contosodr.azurecr.io", "contosodr.blob.core.windows.net", false},
	} {
		if got := own(c.host)(c.other); got != c.want {
			t.Errorf("%s at %s: %v", c.other, c.host, got)
		}
	}
	for _, host := range []string{"registry.example.com", "127.0.0.1:5000", "contosodr.westeurope.data.azurecr.io", "azurecr.io"} {
		if own(host) != nil {
			t.Errorf("%s has endpoints of its own", host)
		}
	}
}
