package zot_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/providers/zot"
	"github.com/twinport/twinport/replicator/oci"
)

func TestContract(t *testing.T) {
	server := httptest.NewServer(&providertest.Fake{Username: "robot", Password: "api-key-of-robot", Deletes: providertest.DeletesLast})
	t.Cleanup(server.Close)
	spec := generic.Spec{
		Name: "zot", Kind: "zot", Host: strings.TrimPrefix(server.URL, "http://"), PlainHTTP: true,
		Auth: generic.Auth{Username: "robot", Password: func() (string, error) { return "api-key-of-robot", nil }},
	}
	transport, err := generic.Transport(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	providertest.Run(t, providertest.Suite{
		Catalog: true, Mount: true, Ranges: true, Referrers: true, Strict: true, Resume: true, SHA512: true,
		Open: func(t *testing.T) oci.Registry {
			reg, err := zot.New(spec, transport)
			if err != nil {
				t.Fatal(err)
			}
			return reg
		},
	})
}
