package config

import "reflect"

// table is every key of a config: the walk, the JSON Schema and the reference
// page are made from it.
var table = &object{
	name: "config",
	doc:  "The whole file.",
	fields: []field{
		{key: "listen", kind: listenKind, def: "127.0.0.1:8480",
			doc: "Address of webhooks and health, `host:port`; port 0 takes a free one. Beyond loopback, every registry that is some route's `from` and has no `events` needs a webhook secret."},
		{key: "admin", kind: listenKind, def: "127.0.0.1:8481",
			doc: "Address of API and metrics. Beyond loopback it needs `api.token`."},
		{key: "api", kind: apiTable, doc: "Who may use the admin address."},
		{key: "tls", kind: serverTLSTable, doc: "Certificate of both addresses; absent: plain HTTP."},
		{key: "data", kind: pathname{}, def: "./twinport-data",
			doc: "Directory of the embedded journal; with `database`, of this replica's spool and address."},
		{key: "database", kind: secret{},
			doc: "`postgres://USER:PASSWORD@HOST:5432/NAME`: several replicas share one journal in PostgreSQL instead. They divide each registry's `limits` among them."},
		{key: "spool", kind: spoolTable, doc: "Where blobs wait on disk for slower destinations."},
		{key: "history", kind: duration(""), def: "30d",
			doc: "How long ended jobs are kept. (A tag's history is kept 400 days.)"},
		{key: "log", kind: logTable, doc: "What is logged, and how."},
		{key: "registries", kind: named{registryTable}, required: true,
			doc: "The registries, each under a name of its own. The name appears in `/hooks/NAME`, in routes, metrics and commands."},
		{key: "routes", kind: list{of: routeTable}, required: true,
			doc: "What is copied from where to where."},
	},
	check: checkConfig,
}

var apiTable = &object{
	name: "api", doc: "Who may use the admin address.",
	fields: []field{
		{key: "token", kind: secret{}, required: true,
			doc: "Secret asked for on every admin request, as `Authorization: Bearer`."},
	},
}

var serverTLSTable = &object{
	name: "tls", doc: "Certificate of both addresses.",
	fields: []field{
		{key: "cert", kind: pathname{there: true}, required: true, doc: "PEM file with the certificate and its chain."},
		{key: "key", kind: pathname{there: true}, required: true, doc: "PEM file with its private key."},
	},
	check: checkPair,
}

var spoolTable = &object{
	name: "spool", doc: "Where blobs wait on disk for slower destinations.",
	fields: []field{
		{key: "path", kind: pathname{}, shown: "`spool` in `data`", doc: "Directory; emptied at start."},
		{key: "max", kind: size, def: "10GiB", doc: "The most it takes. 1 GiB or 10 % of its filesystem always stays free."},
	},
}

var logTable = &object{
	name: "log", doc: "What is logged, and how.",
	fields: []field{
		{key: "level", kind: words{of: []string{"debug", "info", "warn", "error"}}, def: "info", doc: "The least that is logged."},
		{key: "format", kind: words{of: []string{"json", "console"}}, def: "json", doc: "JSON lines, or lines for people."},
	},
}

// kinds are those of registries.
var kinds = []string{"oci", "zot", "harbor", "quay", "ghcr", "dockerhub", "artifactory", "gitlab", "gitea", "nexus", "ecr", "ecr-public", "acr", "gcr"}

// createKinds make repositories that are missing.
var createKinds = []string{"ecr", "ecr-public", "gcr", "harbor"}

var registryTable = &object{
	name: "registry", doc: "One registry.",
	fields: []field{
		{key: "kind", kind: words{of: kinds}, required: true,
			doc: "What it is: decides how its webhooks read and what it does its own way. `oci` is any registry of the distribution specification."},
		{key: "address", kind: text{name: "host[:port][/prefix]", check: checkAddress, most: 512}, required: true,
			doc: "`host[:port][/prefix]`. Repository names elsewhere in the config exclude the prefix; events outside it are ignored."},
		{key: "region", kind: text{name: "region", check: checkRegion, pattern: regionPattern},
			doc: "Where it is; for cloud kinds the region of their API, for others a label."},
		{key: "plainHTTP", kind: truth{}, def: "false", doc: "Speak HTTP without TLS."},
		{key: "auth", kind: authTable, doc: "How to log in: one of the forms. Absent: the provider's own identity, else docker's config."},
		{key: "tls", kind: clientTLSTable, doc: "Certificates for talking to it."},
		{key: "webhook", kind: webhookTable, doc: "How its events prove themselves."},
		{key: "limits", kind: limitsTable, doc: "The most it is asked for, by all routes together."},
		{key: "redirects", kind: redirectsTable, doc: "Where it may send us."},
		{key: "create", kind: createTable, only: createKinds, doc: "How missing repositories are made."},
		{key: "events", kind: eventsTable, doc: "Where its events come from when not from its webhook: one of the forms."},
	},
	check: checkRegistry,
}

var authTable = &object{
	name: "auth", doc: "One of: `username` with `password`; `token`; `anonymous`; a cloud's form.",
	fields: []field{
		{key: "username", kind: text{}, doc: "User or robot account."},
		{key: "password", kind: secret{}, doc: "Its password."},
		{key: "token", kind: secret{}, doc: "A token. `oci`, `zot`, `harbor` and `artifactory` are sent it as it is, as a bearer token; `quay`, `ghcr`, `gitlab` and `gitea` as the password of whatever user goes with it; `dockerhub` and `nexus` take none."},
		{key: "anonymous", kind: truth{}, def: "false", doc: "Log in as nobody, whatever docker's config says."},
		{key: "assumeRole", kind: assumeRoleTable, only: []string{"ecr", "ecr-public"}, doc: "Take a role of AWS."},
		{key: "azure", kind: azureTable, only: []string{"acr"}, doc: "An identity of Microsoft Entra."},
		{key: "google", kind: googleTable, only: []string{"gcr"}, doc: "A service account of Google Cloud."},
	},
	check: checkAuth,
}

var assumeRoleTable = &object{
	name: "assumeRole", doc: "A role of AWS to take.",
	fields: []field{
		{key: "arn", kind: text{name: "ARN", check: checkRoleARN}, required: true, doc: "The role's ARN."},
		{key: "externalId", kind: text{}, doc: "What the role's trust policy asks for."},
	},
}

var azureTable = &object{
	name: "azure", doc: "An identity of Microsoft Entra; without a secret a managed or workload identity.",
	fields: []field{
		{key: "tenant", kind: text{}, doc: "Tenant ID."},
		{key: "client", kind: text{}, doc: "Client ID."},
		{key: "secret", kind: secret{}, doc: "Client secret; goes with `tenant` and `client`."},
	},
	check: checkAzure,
}

var googleTable = &object{
	name: "google", doc: "A service account of Google Cloud.",
	fields: []field{
		{key: "file", kind: pathname{there: true}, required: true, doc: "Its key, or a configuration of workload identity federation: a JSON file."},
	},
}

var clientTLSTable = &object{
	name: "registry tls", doc: "Certificates for talking to a registry.",
	fields: []field{
		{key: "ca", kind: pathname{there: true}, doc: "PEM file with the authorities its certificate may come from, instead of the system's."},
		{key: "cert", kind: pathname{there: true}, doc: "PEM file with our certificate, for mutual TLS; needs `key`."},
		{key: "key", kind: pathname{there: true}, doc: "PEM file with its private key; needs `cert`."},
	},
	check: checkPair,
}

var webhookTable = &object{
	name: "webhook", doc: "How a registry's events prove themselves.",
	fields: []field{
		{key: "secret", kind: oneOrMore{secret{}},
			doc: "What every event must carry: one secret, or a list of which any will do, for rotation."},
		{key: "google", kind: webhookGoogleTable, only: []string{"gcr"},
			doc: "The token that a Pub/Sub push subscription signs its deliveries with. Beside `secret`, either will do."},
	},
	check: checkWebhook,
}

var webhookGoogleTable = &object{
	name: "webhook google", doc: "The token that a Pub/Sub push subscription signs its deliveries with.",
	fields: []field{
		{key: "audience", kind: text{}, required: true, doc: "Audience that the subscription is configured with; Google's default is its push endpoint."},
		{key: "email", kind: text{}, required: true, doc: "Service account that the subscription signs as."},
	},
}

var limitsTable = &object{
	name: "limits", doc: "The most a registry is asked for, by all routes together.",
	fields: []field{
		{key: "requests", kind: number{min: 0.1, max: 100000}, shown: "the provider's quota, else none", doc: "Requests per second."},
		{key: "connections", kind: number{min: 1, max: 1024, whole: true}, shown: "found out by trying, up to 96", doc: "Requests at a time."},
		{key: "bandwidth", kind: bandwidthKind, shown: "none", doc: "Bytes per second, both ways together: a size, or a list of windows."},
		{key: "timezone", kind: timezone, shown: "UTC", doc: "Time zone of the windows that name none themselves."},
	},
	check: checkZone,
}

// bandwidthKind is a size per second, or a list of windows.
var bandwidthKind = choice{
	{shapes: []shape{isString, isNumber}, into: "Rate", kind: rate},
	{shapes: []shape{isList}, into: "Windows", kind: list{of: windowTable, some: true}},
}

var windowTable = &object{
	name: "window", doc: "A cap for part of each day. Outside all windows there is no cap. One that ends at or before its start runs over midnight.",
	fields: []field{
		{key: "from", kind: clock, required: true, doc: "Begin, like `\"08:00\"`."},
		{key: "to", kind: clock, required: true, doc: "End, like `\"18:00\"`; `\"24:00\"` is the day's end."},
		{key: "rate", kind: rate, required: true, doc: "Bytes per second, like `50MiB`."},
		{key: "timezone", kind: timezone, shown: "`timezone` beside `bandwidth`, else UTC", doc: "Time zone of `from` and `to`, like `Europe/Berlin`."},
	},
	check: checkWindow,
}

var redirectsTable = &object{
	name: "redirects", doc: "Where a registry may send us. Public hosts need no mention.",
	fields: []field{
		{key: "allow", kind: list{of: text{name: "network or host", check: checkAllow, most: 253}}, required: true,
			doc: "Private networks (`10.0.0.0/8`), addresses, hosts (`s3.internal`, or `s3.internal:9000` for one port) or endings of hosts (`.s3.internal`) that its blobs or token realms may live on."},
	},
	check: sortAllow,
}

var createTable = &object{
	name: "create", doc: "How missing repositories are made at a destination.",
	fields: []field{
		{key: "missing", kind: truth{}, def: "true", doc: "Make repositories that are missing; for `harbor` projects."},
		{key: "immutableTags", kind: truth{}, only: []string{"ecr", "gcr"}, def: "false", doc: "Tags of new repositories cannot be moved."},
		{key: "kms", kind: orEmpty{}, only: []string{"ecr", "gcr"}, doc: "Key that encrypts new repositories."},
		{key: "scan", kind: truth{}, only: []string{"ecr", "harbor"}, def: "false", doc: "Scan on push."},
		{key: "lifecycle", kind: lifecycleTable, only: []string{"ecr"}, doc: "Lifecycle policy of new repositories."},
		{key: "policy", kind: policyTable, only: []string{"ecr", "ecr-public"}, doc: "Who else may use new repositories: a repository policy, as pulls and pushes across accounts need."},
		{key: "labels", kind: labels{}, only: []string{"ecr", "ecr-public", "gcr"}, doc: "Labels or resource tags of new repositories."},
	},
}

var lifecycleTable = &object{
	name: "lifecycle", doc: "A policy in the provider's own words.",
	fields: []field{
		{key: "file", kind: pathname{there: true}, required: true, doc: "File with the policy."},
	},
}

var policyTable = &object{
	name: "policy", doc: "A policy in the provider's own words.",
	fields: []field{
		{key: "file", kind: pathname{there: true}, required: true, doc: "File with the policy."},
	},
}

var eventsTable = &object{
	name: "events", doc: "Where a registry's events come from: one of the forms.",
	fields: []field{
		{key: "sqs", kind: text{name: "URL", check: checkURL}, only: []string{"ecr"}, doc: "URL of a queue of AWS, asked with the registry's own identity."},
		{key: "pubsub", kind: text{name: "subscription", check: checkSubscription}, only: []string{"gcr"}, doc: "Subscription of Pub/Sub to the topic `gcr`, as `projects/PROJECT/subscriptions/NAME`; pulled with the registry's own identity."},
		{key: "poll", kind: duration(""), doc: "For registries that tell of nothing: look at the tag lists of the repositories that routes want, so often, at least a second. Where lists tell no digests, new tags are found at once, moved ones by a bounded number of HEADs each time."},
	},
	check: checkEvents,
}

var routeTable = &object{
	name: "route", doc: "One source, one or more destinations, and filters.",
	fields: []field{
		{key: "name", kind: text{name: "name", check: checkName, pattern: namePattern}, required: true, doc: "Its name in commands, metrics and findings."},
		{key: "from", kind: text{name: "registry", check: checkName, pattern: namePattern}, required: true, doc: "The source: a name of `registries`."},
		{key: "to", kind: list{of: text{name: "registry", check: checkName, pattern: namePattern}, some: true}, required: true,
			doc: "The destinations: names of `registries`."},
		{key: "repositories", kind: repositoriesTable, doc: "Which repositories."},
		{key: "tags", kind: tagsTable, doc: "Which tags."},
		{key: "rename", kind: text{name: "template", check: checkTemplate, most: 255}, def: `"{repository}"`,
			doc: "Name at the destination: `{repository}`, `{namespace}` (all but the last part; where it is empty its slash goes too), `{name}` (the last part), `{registry}` (the source's name in this config), `{flat}` (slashes become dashes), and text."},
		{key: "referrers", kind: words{of: []string{"true", "required", "false"}}, def: "true",
			doc: "Copy signatures, SBOMs and attestations. `required`: the tag waits for them; `true`: a tag whose referrers fail moves with a finding."},
		{key: "untagged", kind: words{of: []string{"skip", "copy"}}, def: "skip",
			doc: "Manifests pushed by digest alone: only as part of what is tagged, or for themselves too."},
		{key: "drift", kind: words{of: []string{"keep", "overwrite"}}, def: "keep",
			doc: "A destination's tag that someone else moved: kept with a finding, or restored."},
		{key: "conflict", kind: conflictKind, def: "ask",
			doc: "Both registries of a two-way pair moved a tag: `ask` a person (a finding), take the `newest` push, or `{prefer: REGISTRY}`."},
		{key: "deletes", kind: deletesKind, def: "keep",
			doc: "A deletion at the source stays there, or is carried over by `{mirror: {grace, atMost}}`: only tags that this route wrote, only by a sweep of the whole route, never from an empty listing, and not between registries that feed each other."},
		{key: "rpo", kind: duration("none"), def: "none", doc: "The lag that is promised; status and alerts measure against it."},
		{key: "sweep", kind: duration("never"), def: "15m",
			doc: "Time between two comparisons of source and destinations. `never` switches off the one at start as well, and the RPO is then unknown."},
		{key: "proof", kind: duration(""), def: "24h", doc: "How long a proof counts before the destination is read again."},
		{key: "sourceGone", kind: duration("never"), def: "5m",
			doc: "A source that has given no answer, or nothing but 5xx, for so long counts as gone: its content is read from any destination that proved it, and a tag may move to the newest push that is known, unconfirmed until the source answers. `never`: all waits for the source."},
		{key: "bandwidth", kind: bandwidthKind, shown: "none", doc: "Bytes per second of this route: a size, or a list of windows."},
		{key: "timezone", kind: timezone, shown: "UTC", doc: "Time zone of the windows that name none themselves."},
		{key: "owner", kind: text{}, doc: "Who owns it, in alerts and reports."},
		{key: "contact", kind: text{}, doc: "Whom to tell, in alerts and reports."},
	},
	check: checkRoute,
}

var repositoriesTable = &object{
	name: "repositories", doc: "Globs of repository names: `*` within a part, `**` over parts, `?`, `[a-z]`, `{a,b}`.",
	fields: []field{
		{key: "include", kind: list{of: repositoryGlob, some: true}, def: `["**"]`, doc: "A repository has to match one."},
		{key: "exclude", kind: list{of: repositoryGlob}, doc: "A repository that matches one is left out."},
	},
}

var tagsTable = &object{
	name: "tags", doc: "Globs and rules for tags, in this order: include, exclude, semver, maxAge, newest.",
	fields: []field{
		{key: "include", kind: list{of: tagGlob, some: true}, def: `["*"]`, doc: "A tag has to match one."},
		{key: "exclude", kind: list{of: tagGlob}, doc: "A tag that matches one is left out."},
		{key: "semver", kind: text{name: "version constraint", check: checkSemVer}, doc: "Only tags that are such versions, like `\">=1.2\"`."},
		{key: "maxAge", kind: duration(""), shown: "none", doc: "Only tags no older than this."},
		{key: "newest", kind: number{min: 1, max: 1e6, whole: true}, shown: "all", doc: "Only so many newest tags of each repository."},
	},
}

var (
	repositoryGlob = text{name: "glob", check: checkRepositoryGlob, most: 512}
	tagGlob        = text{name: "glob", check: checkTagGlob, most: 256}
)

var conflictKind = choice{
	{shapes: []shape{isString}, kind: words{of: []string{"ask", "newest"}, also: " or {prefer: REGISTRY}", set: func(into reflect.Value, word string) {
		into.FieldByName("Newest").SetBool(word == "newest")
	}}},
	{shapes: []shape{isMap}, kind: &object{
		name: "conflict", doc: "Who wins when both registries of a two-way pair moved a tag.",
		fields: []field{
			{key: "prefer", kind: text{name: "registry", check: checkName, pattern: namePattern}, required: true, doc: "The registry of the pair that wins."},
		},
	}},
}

var deletesKind = choice{
	{shapes: []shape{isString}, kind: words{of: []string{"keep"}, also: " or {mirror: {grace: 72h, atMost: 5%}}", set: func(reflect.Value, string) {}}},
	{shapes: []shape{isMap}, kind: &object{
		name: "deletes", doc: "What becomes of a deletion at the source.",
		fields: []field{
			{key: "mirror", kind: mirrorTable, required: true, doc: "Carry deletions of tags over, late and capped."},
		},
	}},
}

var mirrorTable = &object{
	name: "mirror", doc: "When a deletion is carried over.",
	fields: []field{
		{key: "grace", kind: duration(""), def: "72h", doc: "How long a tag has to be gone, without coming back, before it is removed. Of the time that nobody looked, or that a clock jumped, a third of it counts at most (an hour where it is short)."},
		{key: "atMost", kind: percentage, def: "5%", doc: "Share of the route's proven tags at a destination that one run may remove there, at least 1; more removes nothing and raises a finding."},
	},
}
