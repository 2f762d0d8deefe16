// Package config reads Twinport's config file into checked plain data.
//
// A file is walked once over its YAML syntax tree against one table of fields
// (table.go), from which also come the JSON Schema and the reference page. The
// walk is strict and reports every fault of a file at once, each with its line.
package config

import (
	"net/netip"
	"time"
)

//go:generate go test . -run TestGenerated -update

// A Config is one file, checked: defaults filled in, paths made absolute, every
// name it mentions there. Fields are named after the keys.
type Config struct {
	// File is the path the config was read from, as given.
	File string
	// Files are all other files the config names (secrets, certificates),
	// sorted; Watch looks at them too.
	Files []string

	// Listen and Admin are host:port; port 0 takes a free one.
	Listen string
	Admin  string
	API    API
	TLS    TLS
	// Data is the directory of the embedded journal.
	Data     string
	Database Secret
	Spool    Spool
	// History is how long ended jobs are kept.
	History time.Duration
	Log     Log
	// Registries and Routes are in the file's order.
	Registries []Registry
	Routes     []Route
}

// Registry finds a registry by its name.
func (c *Config) Registry(name string) (*Registry, bool) {
	for i := range c.Registries {
		if c.Registries[i].Name == name {
			return &c.Registries[i], true
		}
	}
	return nil, false
}

// Route finds a route by its name.
func (c *Config) Route(name string) (*Route, bool) {
	for i := range c.Routes {
		if c.Routes[i].Name == name {
			return &c.Routes[i], true
		}
	}
	return nil, false
}

// API guards the admin address; a zero Token asks for none.
type API struct {
	Token Secret
}

// TLS is a certificate and its key, PEM files; CA is a client's: what the
// server's certificate has to come from, instead of the system's list.
type TLS struct {
	CA   string
	Cert string
	Key  string
}

// Spool is where blobs wait for slower destinations.
type Spool struct {
	Path string
	// Max is in bytes.
	Max int64
}

// Log is what is logged, and how.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // json, console
}

// A Registry is one named registry.
type Registry struct {
	Name string
	Kind string
	// Address is host[:port][/prefix] as written; Host its host[:port] in lower
	// case, Prefix what follows the first slash, empty where there is none.
	Address string
	Host    string
	Prefix  string
	// Region is a label, and for cloud kinds the region of its API.
	Region    string
	PlainHTTP bool
	Auth      Auth
	TLS       TLS
	Webhook   Webhook
	Limits    Limits
	Redirects Redirects
	Create    *Create
	Events    *Events
}

// Identity is the canonical address that outlives names: lower case, without
// the scheme's own port.
func (r *Registry) Identity() string {
	return joinPath(canonicalHost(r.Host, r.PlainHTTP), r.Prefix)
}

// Auth is how a registry is logged in to: one of the forms, or none of them
// (the provider's own identity, else docker's config).
type Auth struct {
	Username   string
	Password   Secret
	Token      Secret
	Anonymous  bool
	AssumeRole *AssumeRole
	Azure      *Azure
	Google     *Google
}

// AssumeRole is a role of AWS to take.
type AssumeRole struct {
	ARN        string
	ExternalID string
}

// Azure is an identity of Microsoft Entra.
type Azure struct {
	Tenant string
	Client string
	Secret Secret
}

// Google is a service account's key file.
type Google struct {
	File string
}

// Webhook is how a registry's own events prove themselves; any of the secrets
// will do.
type Webhook struct {
	Secret []Secret
	// Google proves deliveries of Pub/Sub by their token; nil: not taken.
	Google *WebhookGoogle
}

// WebhookGoogle is what a token of a Pub/Sub push subscription has to say.
type WebhookGoogle struct {
	Audience string
	Email    string
}

// Limits are of all requests to one registry together; zero is none.
type Limits struct {
	Requests    float64 // per second
	Connections int
	Bandwidth   Bandwidth
	// Timezone is that of the windows without their own; resolved into them.
	Timezone *time.Location
}

// Bandwidth is a cap in bytes per second, always (Rate) or by time of day
// (Windows); the zero value is none.
type Bandwidth struct {
	Rate    int64
	Windows []Window
}

// A Window is a cap for part of each day. From and To are since midnight; one
// that ends at or before its start runs over midnight. Outside all windows
// there is no cap.
type Window struct {
	From     time.Duration
	To       time.Duration
	Rate     int64 // bytes per second
	Timezone *time.Location
}

// Redirects are private hosts that blobs or token realms may live on.
type Redirects struct {
	// Allow is as written: addresses, networks, host names with or without port,
	// or endings of host names that begin with a dot. Networks and Hosts (lower
	// case) are the same, sorted out; an address is a network of one.
	Allow    []string
	Networks []netip.Prefix
	Hosts    []string
}

// Create is how repositories are made at a destination that lacks them.
type Create struct {
	Missing       bool
	ImmutableTags bool
	KMS           string
	Scan          bool
	Lifecycle     PolicyFile
	Policy        PolicyFile
	Labels        map[string]string
}

// PolicyFile is a file with a policy in the provider's own words.
type PolicyFile struct {
	File string
}

// Events is where a registry's events come from when not from its webhook.
type Events struct {
	SQS    string
	PubSub string
	// Poll is how often to look at the registry ourselves; 0: it is not polled.
	Poll time.Duration
}

// A Route is one source, one or more destinations, and filters.
type Route struct {
	Name         string
	From         string
	To           []string
	Repositories Filter
	Tags         Tags
	// Rename is the template of the destination's repository name, never empty.
	Rename    string
	Referrers Referrers
	Untagged  Untagged
	Drift     Drift
	Conflict  Conflict
	Deletes   Deletes
	// RPO is the lag promised; 0 is none.
	RPO time.Duration
	// Sweep is the time between two sweeps; 0 is never.
	Sweep time.Duration
	// Proof is how long a proof spares asking again.
	Proof time.Duration
	// SourceGone is how long the source has to be silent before what it had is
	// read from elsewhere; 0 is never.
	SourceGone time.Duration
	Bandwidth  Bandwidth
	Timezone   *time.Location
	Owner      string
	Contact    string
}

// A Filter takes what any of Include matches and none of Exclude.
type Filter struct {
	Include []string
	Exclude []string
}

// Tags is a filter of tags; what passes Include and Exclude has then to pass
// SemVer, then MaxAge, then Newest. Zero values take all.
type Tags struct {
	Include []string
	Exclude []string
	SemVer  string
	MaxAge  time.Duration
	Newest  int // per repository
}

// Referrers says what becomes of signatures, SBOMs and attestations.
type Referrers string

// The ways of a route with referrers.
const (
	ReferrersTrue     Referrers = "true"     // copied before the tag; failing ones are a finding
	ReferrersRequired Referrers = "required" // the tag waits for them
	ReferrersFalse    Referrers = "false"    // not copied
)

// Untagged says whether manifests pushed by digest alone are copied for
// themselves.
type Untagged string

// The ways of a route with untagged manifests.
const (
	UntaggedSkip Untagged = "skip"
	UntaggedCopy Untagged = "copy"
)

// Drift says what becomes of a destination's tag that someone else moved.
type Drift string

// The ways of a route with drift.
const (
	DriftKeep      Drift = "keep"
	DriftOverwrite Drift = "overwrite"
)

// Conflict says who wins when both ends of a two-way pair moved a tag: nobody
// (the zero value: a person is asked), the newest push, or one registry.
type Conflict struct {
	Newest bool
	Prefer string
}

// Deletes says what becomes of a deletion at the source: nothing (the zero
// value), or it is carried over.
type Deletes struct {
	Mirror *Mirror
}

// Mirror is when a deletion is carried over.
type Mirror struct {
	Grace time.Duration
	// AtMost is the share of the route's proven tags that one run may delete, 0 to 1.
	AtMost float64
}
