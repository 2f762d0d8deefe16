package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // time zones are checked alike on every machine

	"github.com/Masterminds/semver/v3"
)

const (
	namePattern   = `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`
	regionPattern = `^[a-z0-9]+(-[a-z0-9]+)*$`
)

var (
	nameGrammar   = regexp.MustCompile(namePattern)
	regionGrammar = regexp.MustCompile(regionPattern)
	envGrammar    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	roleGrammar   = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+$`)
	// subscriptionGrammar is Pub/Sub's of resource names.
	subscriptionGrammar = regexp.MustCompile(`^projects/[a-z0-9][a-z0-9.:-]{0,61}/subscriptions/[A-Za-z][A-Za-z0-9._~+%-]{2,254}$`)
	hostGrammar         = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$`)
	// repositoryGrammar is the distribution specification's.
	repositoryGrammar = regexp.MustCompile(repositoryPattern)
)

const (
	partPattern       = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
	repositoryPattern = `^` + partPattern + `(?:/` + partPattern + `)*$`
)

// checkName is of registries and routes, which stand in URLs and commands.
func checkName(s string) (what, hint string) {
	if !nameGrammar.MatchString(s) {
		return quote(s) + " is no name", "use letters, digits, dots, dashes and underscores, at most 63, beginning with a letter or digit"
	}
	return "", ""
}

func checkEnv(s string) (what, hint string) {
	if !envGrammar.MatchString(s) || len(s) > 256 {
		return "no name of an environment variable", "use letters, digits and underscores, without $"
	}
	return "", ""
}

func checkRegion(s string) (what, hint string) {
	if !regionGrammar.MatchString(s) || len(s) > 63 {
		return quote(s) + " is no region", "write it like eu-west-1: lower-case letters, digits and dashes"
	}
	return "", ""
}

func checkRoleARN(s string) (what, hint string) {
	if !roleGrammar.MatchString(s) {
		return quote(s) + " is no ARN of a role", "write it like arn:aws:iam::123456789012:role/NAME"
	}
	return "", ""
}

func checkURL(s string) (what, hint string) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil {
		return "no URL of a queue", "write it like https://sqs.us-east-1.amazonaws.com/123456789012/NAME"
	}
	return "", ""
}

func checkSubscription(s string) (what, hint string) {
	if !subscriptionGrammar.MatchString(s) {
		return quote(s) + " is no subscription", "write it like projects/PROJECT/subscriptions/NAME"
	}
	return "", ""
}

func checkSemVer(s string) (what, hint string) {
	if _, err := semver.NewConstraint(s); err != nil {
		return quote(s) + " is no version constraint", `write it like ">=1.2", "^1.4" or ">=1.2 <3 || 4.x"`
	}
	return "", ""
}

// checkPair reads certificates as TLS will.
func checkPair(w *walk, path string, into reflect.Value) {
	t := into.Addr().Interface().(*TLS)
	hasCert, hasKey := w.given(join(path, "cert")), w.given(join(path, "key"))
	if path != "tls" && hasCert != hasKey {
		missing := map[bool]string{true: "key", false: "cert"}[hasCert]
		w.fault(w.entry(path), "add it: a certificate and its private key go together", "%s: missing", join(path, missing))
	}
	if t.Cert != "" && t.Key != "" {
		cert, err1 := w.env.ReadFile(t.Cert)
		key, err2 := w.env.ReadFile(t.Key)
		if err1 == nil && err2 == nil && len(cert) > 0 && len(key) > 0 {
			if _, err := tls.X509KeyPair(cert, key); err != nil {
				w.fault(w.at(join(path, "cert")), "both are PEM files, and the key belongs to the first certificate", "%s: certificate and key do not go together (%v)", path, err)
			}
		}
	}
	if t.CA != "" {
		if ca, err := w.env.ReadFile(t.CA); err == nil && len(ca) > 0 && !x509.NewCertPool().AppendCertsFromPEM(ca) {
			w.fault(w.at(join(path, "ca")), "give a PEM file with at least one certificate", "%s: %s has no certificate", join(path, "ca"), quote(t.CA))
		}
	}
}

// checkAuth wants one form, whole.
func checkAuth(w *walk, path string, into reflect.Value) {
	a := into.Addr().Interface().(*Auth)
	var forms []string
	if w.given(join(path, "username")) || w.given(join(path, "password")) {
		forms = append(forms, "username with password")
	}
	for _, key := range []string{"token", "anonymous", "assumeRole", "azure", "google"} {
		if w.given(join(path, key)) && (key != "anonymous" || a.Anonymous) {
			forms = append(forms, key)
		}
	}
	switch {
	case len(forms) > 1:
		w.fault(w.at(path), "keep one of them", "%s: more than one way to log in (%s)", path, strings.Join(forms, ", "))
	case len(forms) == 0:
		if !w.given(join(path, "anonymous")) {
			w.fault(w.entry(path), "give username and password, token, or anonymous: true; or remove the key", "%s: no way to log in", path)
		}
	case forms[0] == "username with password":
		for _, key := range []string{"username", "password"} {
			if !w.given(join(path, key)) {
				w.fault(w.entry(path), "add it: username and password go together", "%s: missing", join(path, key))
			}
		}
	}
}

// checkWebhook wants one proof at least.
func checkWebhook(w *walk, path string, _ reflect.Value) {
	if !w.given(join(path, "secret")) && !w.given(join(path, "google")) {
		w.fault(w.entry(path), "add it, like secret: {env: NAME}", "%s: missing", join(path, "secret"))
	}
}

// checkAzure wants a service principal whole.
func checkAzure(w *walk, path string, _ reflect.Value) {
	for _, key := range []string{"tenant", "client"} {
		if w.given(join(path, "secret")) && !w.given(join(path, key)) {
			w.fault(w.entry(path), "add it: a client secret goes with tenant and client", "%s: missing", join(path, key))
		}
	}
}

// leastPoll keeps a slip (1ms, where 1m was meant) from becoming a flood.
const leastPoll = time.Second

func checkEvents(w *walk, path string, into reflect.Value) {
	n := 0
	for _, key := range []string{"sqs", "pubsub", "poll"} {
		if w.given(join(path, key)) {
			n++
		}
	}
	if n != 1 {
		w.fault(w.at(path), "keep one of them", "%s: want exactly one of sqs, pubsub, poll", path)
	}
	if poll := into.Addr().Interface().(*Events).Poll; poll > 0 && poll < leastPoll {
		w.fault(w.at(join(path, "poll")), "write it like 1m or 5m", "%s: %s is less than a second", join(path, "poll"), poll)
	}
}

// checkZone gives windows without a time zone that of their neighbour.
func checkZone(w *walk, path string, into reflect.Value) {
	zone := into.FieldByName("Timezone").Interface().(*time.Location)
	b := into.FieldByName("Bandwidth").Addr().Interface().(*Bandwidth)
	if w.given(join(path, "timezone")) && len(b.Windows) == 0 && (b.Rate > 0 || !w.given(join(path, "bandwidth"))) {
		w.fault(w.entry(join(path, "timezone")), "remove it, or give bandwidth as a list of windows", "%s: no bandwidth window uses it", join(path, "timezone"))
	}
	if zone == nil {
		zone = time.UTC
	}
	for i := range b.Windows {
		if b.Windows[i].Timezone == nil {
			b.Windows[i].Timezone = zone
		}
	}
	path = join(path, "bandwidth")
	if len(w.faultsBelow(path)) > 0 {
		return
	}
	for i, x := range b.Windows {
		for j, y := range b.Windows[:i] {
			if x.Timezone.String() == y.Timezone.String() && x.overlaps(y) {
				w.fault(w.at(fmt.Sprintf("%s[%d]", path, i)), "let each window end before the next begins",
					"%s[%d]: overlaps window [%d]", path, i, j)
			}
		}
	}
}

// Contains tells whether a time lies in the window.
func (w Window) Contains(at time.Time) bool {
	if w.Timezone != nil {
		at = at.In(w.Timezone)
	}
	hour, minute, second := at.Clock()
	return w.covers(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second)
}

func (w Window) covers(clock time.Duration) bool {
	if w.From < w.To {
		return clock >= w.From && clock < w.To
	}
	return clock >= w.From || clock < w.To
}

func (w Window) overlaps(o Window) bool { return w.covers(o.From) || o.covers(w.From) }

func checkWindow(w *walk, path string, into reflect.Value) {
	window := into.Addr().Interface().(*Window)
	if len(w.faultsBelow(path)) == 0 && window.From == window.To {
		w.fault(w.at(path), `give a size alone for a cap all day, or "00:00" to "24:00"`, "%s: begins and ends at the same time", path)
	}
}

// noToken are kinds whose tokens are the password of a certain user.
var noToken = []string{"dockerhub", "nexus"}

// checkRegistry takes the address apart and looks at what excludes what.
func checkRegistry(w *walk, path string, into reflect.Value) {
	r := into.Addr().Interface().(*Registry)
	host, prefix, _ := strings.Cut(r.Address, "/")
	r.Host, r.Prefix = strings.ToLower(host), prefix
	if at := join(join(path, "auth"), "token"); slices.Contains(noToken, r.Kind) && w.given(at) {
		w.fault(w.entry(at), "give username and password; the token is the password", "%s: not for kind %s", at, r.Kind)
	}
	if r.PlainHTTP && w.given(join(path, "tls")) {
		w.fault(w.entry(join(path, "tls")), "remove one of them", "%s: of no use with plainHTTP: true", join(path, "tls"))
	}
	w.only([]field{{key: "create", only: createKinds}}, path, r.Kind, "remove the key")
	w.only(authTable.fields, join(path, "auth"), r.Kind, "log in with username and password, or token")
	w.only(eventsTable.fields, join(path, "events"), r.Kind, "remove the key")
	w.only(webhookTable.fields, join(path, "webhook"), r.Kind, "use secret")
	if slices.Contains(createKinds, r.Kind) {
		w.only(createTable.fields, join(path, "create"), r.Kind, "remove the key")
	}
}

// only refuses keys that the registry's kind does not know.
func (w *walk) only(fields []field, path, kind, hint string) {
	for _, f := range fields {
		at := join(path, f.key)
		if len(f.only) > 0 && w.given(at) && kind != "" && !slices.Contains(f.only, kind) {
			w.fault(w.entry(at), hint, "%s: not for kind %s, only for %s", at, kind, strings.Join(f.only, " and "))
		}
	}
}

// checkConfig looks at everything together.
func checkConfig(w *walk, _ string, into reflect.Value) {
	c := into.Addr().Interface().(*Config)
	if c.Spool.Path == "" && c.Data != "" && !w.given("spool.path") {
		c.Spool.Path = filepath.Join(c.Data, "spool")
	}
	if c.Listen != "" && c.Listen == c.Admin && !strings.HasSuffix(c.Listen, ":0") {
		w.fault(w.at("admin"), "give it a port of its own", "admin: the same address as listen")
	}
	checkIdentities(w, c)
	checkRoutes(w, c)
	checkOpen(w, c)
}

// checkIdentities refuses two names for one registry.
func checkIdentities(w *walk, c *Config) {
	seen := map[string]string{}
	for i := range c.Registries {
		r := &c.Registries[i]
		if r.Address == "" {
			continue
		}
		id := r.Identity()
		if first, twice := seen[id]; twice {
			w.fault(w.at(join(join("registries", r.Name), "address")), "use one name for it in all routes",
				"registries.%s.address: the same registry as %s", r.Name, first)
			continue
		}
		seen[id] = r.Name
	}
}

// checkOpen wants secrets where strangers can knock.
func checkOpen(w *walk, c *Config) {
	if c.Listen != "" && !loopback(c.Listen) {
		var bare []string
		for i := range c.Registries {
			r := &c.Registries[i]
			path := join("registries", r.Name)
			source := slices.ContainsFunc(c.Routes, func(route Route) bool { return route.From == r.Name })
			if source && !w.given(join(path, "events")) && !w.given(join(join(path, "webhook"), "secret")) && !w.given(join(join(path, "webhook"), "google")) {
				bare = append(bare, r.Name)
			}
		}
		if len(bare) > 0 {
			w.fault(w.at("listen"), "add webhook: {secret: {env: NAME}} to each, or listen on 127.0.0.1",
				"listen: %s is open beyond loopback, and no webhook secret guards %s", c.Listen, strings.Join(bare, ", "))
		}
	}
	if c.Admin != "" && !loopback(c.Admin) && !w.given("api") {
		w.fault(w.at("admin"), "add api: {token: {env: NAME}}, or use 127.0.0.1", "admin: %s is open beyond loopback, and no api.token guards it", c.Admin)
	}
}

// An orEmpty is a string that may be empty.
type orEmpty struct{}

func (orEmpty) word() string { return "string" }

func (orEmpty) read(w *walk, n *node, path string, into reflect.Value) {
	if n.shape == isString && n.text == "" {
		return
	}
	text{}.read(w, n, path, into)
}
