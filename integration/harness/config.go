package harness

import (
	"fmt"
	"strings"
)

// A Config becomes twinport's YAML file.
type Config struct {
	// Lines are further top-level lines, as they stand in the file.
	Lines      []string
	Registries []RegistryConfig
	Routes     []RouteConfig
}

// A RegistryConfig is one registry by plain HTTP.
type RegistryConfig struct {
	Name, Addr string
	// Kind, where it is not oci: then the login is the provider's own identity,
	// or stands in Lines.
	Kind               string
	Username, Password string
	// Lines are further keys, as they stand in the file (`limits: {requests: 5}`).
	Lines []string
}

// Secret is what the registry's webhooks are to carry.
func Secret(registry string) string { return "secret-of-" + registry }

// A RouteConfig is one route.
type RouteConfig struct {
	Name, From string
	To         []string
	Lines      []string // further keys
}

// YAML is the file.
func (c Config) YAML(listen, data string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen: %s\nadmin: 127.0.0.1:0\ndata: %s\n", listen, data)
	for _, line := range c.Lines {
		b.WriteString(line + "\n")
	}
	b.WriteString("registries:\n")
	for _, r := range c.Registries {
		kind := r.Kind
		if kind == "" {
			kind = "oci"
		}
		fmt.Fprintf(&b, "  %s:\n    kind: %s\n    address: %s\n    plainHTTP: true\n", r.Name, kind, r.Addr)
		switch {
		case r.Password != "":
			fmt.Fprintf(&b, "    auth: {username: %s, password: %s}\n", r.Username, r.Password)
		case r.Kind == "":
			b.WriteString("    auth: {anonymous: true}\n")
		}
		fmt.Fprintf(&b, "    webhook: {secret: %s}\n", Secret(r.Name))
		for _, line := range r.Lines {
			b.WriteString("    " + line + "\n")
		}
	}
	b.WriteString("routes:\n")
	for _, r := range c.Routes {
		fmt.Fprintf(&b, "  - name: %s\n    from: %s\n    to: [%s]\n", r.Name, r.From, strings.Join(r.To, ", "))
		for _, line := range r.Lines {
			b.WriteString("    " + line + "\n")
		}
	}
	return b.String()
}
