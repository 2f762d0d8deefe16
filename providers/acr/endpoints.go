package acr

import (
	"regexp"
	"strings"
)

// endpoints are a registry's names (Microsoft Learn, "Container registry
// endpoint reference"): the global one, one of a region's replica, and the data
// endpoint of a region, from which layers are read where there are private
// endpoints.
var endpoints = regexp.MustCompile(`^([a-z0-9-]{1,63})(?:\.[a-z0-9-]{1,40}\.(geo|data))?\.azurecr\.(io|cn|us)$`)

// own tells the other endpoints of the registry at a host: behind a private link
// they all have private addresses, and belong together.
func own(host string) func(string) bool {
	m := endpoints.FindStringSubmatch(strings.ToLower(host))
	if len(m) == 0 || m[2] == "data" {
		return nil
	}
	return func(other string) bool {
		o := endpoints.FindStringSubmatch(other)
		return len(o) > 0 && o[1] == m[1] && o[3] == m[3]
	}
}
