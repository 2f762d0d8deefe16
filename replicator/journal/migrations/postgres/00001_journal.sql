-- +goose Up

-- The same tables as SQLite has, with texts that sort bytewise, and what several
-- replicas need beside them. A later migration only adds: replicas of the
-- version before go on working on it until they are replaced.

-- Registries by identity; name is what the config calls it now. Records of an
-- older trust than the registry's count for nothing.
CREATE TABLE registries (
	id       BIGINT PRIMARY KEY,
	identity TEXT COLLATE "C" NOT NULL UNIQUE,
	name     TEXT COLLATE "C" NOT NULL,
	trust    BIGINT  NOT NULL DEFAULT 0
);

-- What each name of the config stood for when it was last loaded.
CREATE TABLE names (
	name     TEXT COLLATE "C" PRIMARY KEY,
	registry BIGINT NOT NULL
);

-- An edge is two registries, how they stand to each other, and the routes that
-- want it: few of them, shared by all their jobs.
CREATE TABLE edges (
	id    BIGINT PRIMARY KEY,
	src   BIGINT NOT NULL,
	dst   BIGINT NOT NULL,
	flow  BIGINT NOT NULL,
	wants TEXT COLLATE "C" NOT NULL,
	UNIQUE (src, dst, flow, wants)
);

-- Rows of desired state (ended = 0), and what became of earlier ones
-- (ended = id). ref is the tag, or the digest where there is none. States:
-- 0 waiting, 1 running, 2 failed, 3 refused, 4 held, 5 done, 6 superseded.
CREATE TABLE jobs (
	id             BIGINT PRIMARY KEY,
	edge           BIGINT NOT NULL,
	src            BIGINT NOT NULL,
	src_repository TEXT COLLATE "C" NOT NULL,
	dst            BIGINT NOT NULL,
	dst_repository TEXT COLLATE "C" NOT NULL,
	flow           BIGINT NOT NULL,
	tag            TEXT COLLATE "C" NOT NULL,
	ref            TEXT COLLATE "C" NOT NULL,
	ended          BIGINT NOT NULL,
	digest         TEXT COLLATE "C" NOT NULL,
	lane           BIGINT NOT NULL,
	pushed_at      BIGINT NOT NULL,
	sender_time    BIGINT NOT NULL,
	behind_since   BIGINT NOT NULL,
	wants_full     BIGINT NOT NULL,
	state          BIGINT NOT NULL,
	attempts       BIGINT NOT NULL,
	first_attempt  BIGINT NOT NULL,
	next_attempt   BIGINT NOT NULL,
	error_kind     TEXT COLLATE "C" NOT NULL,
	error_message  TEXT COLLATE "C" NOT NULL,
	error_hint     TEXT COLLATE "C" NOT NULL,
	generation     BIGINT NOT NULL,
	pending_since  BIGINT NOT NULL,
	claimed_digest TEXT COLLATE "C" NOT NULL,
	held_by        TEXT COLLATE "C" NOT NULL,
	held_digest    TEXT COLLATE "C" NOT NULL,
	replica        TEXT COLLATE "C" NOT NULL,
	epoch          BIGINT NOT NULL,
	created_at     BIGINT NOT NULL,
	updated_at     BIGINT NOT NULL
);
CREATE UNIQUE INDEX jobs_key ON jobs (dst, dst_repository, ref, ended, src, src_repository);
CREATE INDEX jobs_source ON jobs (src, src_repository, ref, ended);
CREATE INDEX jobs_due ON jobs (edge, lane, next_attempt, id) WHERE state = 0;
CREATE INDEX jobs_standing ON jobs (edge, state, lane, id, behind_since);
CREATE INDEX jobs_error ON jobs (error_kind, id) WHERE error_kind <> '';

-- Running jobs by who runs them: what a dead replica leaves.
CREATE INDEX jobs_running ON jobs (replica, id) WHERE state = 1;

-- The replicas that live. number is in the ids a replica makes; works says
-- that it copies, and so has a share of the registries' budgets.
CREATE TABLE replicas (
	id      TEXT COLLATE "C" PRIMARY KEY,
	epoch   BIGINT NOT NULL,
	until   BIGINT NOT NULL,
	number  BIGINT NOT NULL UNIQUE,
	works   BIGINT NOT NULL
);

-- The one replica that sweeps, as long as it lives under that epoch.
CREATE TABLE leaders (
	one     BIGINT PRIMARY KEY CHECK (one = 1),
	replica TEXT COLLATE "C" NOT NULL,
	epoch   BIGINT NOT NULL
);

-- Grows with each change of what replicas keep in memory: registries, edges.
CREATE TABLE shared (
	one     BIGINT PRIMARY KEY CHECK (one = 1),
	version BIGINT NOT NULL
);
INSERT INTO shared (one, version) VALUES (1, 1);

CREATE TABLE records (
	registry       BIGINT NOT NULL,
	repository     TEXT COLLATE "C" NOT NULL,
	ref            TEXT COLLATE "C" NOT NULL,
	tag            TEXT COLLATE "C" NOT NULL,
	digest         TEXT COLLATE "C" NOT NULL,
	src            BIGINT NOT NULL,
	src_repository TEXT COLLATE "C" NOT NULL,
	route          TEXT COLLATE "C" NOT NULL,
	pushed_at      BIGINT NOT NULL,
	proven_at      BIGINT NOT NULL,
	referrers_at   BIGINT NOT NULL,
	wrote          BIGINT NOT NULL,
	bytes          BIGINT NOT NULL,
	trust          BIGINT NOT NULL,
	PRIMARY KEY (registry, repository, ref)
);
CREATE INDEX records_route ON records (route, registry, trust, proven_at);

CREATE TABLE bases (
	dst            BIGINT NOT NULL,
	dst_repository TEXT COLLATE "C" NOT NULL,
	ref            TEXT COLLATE "C" NOT NULL,
	src            BIGINT NOT NULL,
	src_repository TEXT COLLATE "C" NOT NULL,
	digest         TEXT COLLATE "C" NOT NULL,
	intents        TEXT COLLATE "C" NOT NULL,
	updated_at     BIGINT NOT NULL,
	PRIMARY KEY (dst, dst_repository, ref, src, src_repository)
);

-- n counts the tag's rows as they were added.
CREATE TABLE tag_states (
	id         BIGINT PRIMARY KEY,
	registry   BIGINT NOT NULL,
	repository TEXT COLLATE "C" NOT NULL,
	tag        TEXT COLLATE "C" NOT NULL,
	at         BIGINT NOT NULL,
	digest     TEXT COLLATE "C" NOT NULL,
	cause      TEXT COLLATE "C" NOT NULL,
	n          BIGINT NOT NULL
);
CREATE INDEX tag_states_tag ON tag_states (registry, repository, tag, at, id);

CREATE TABLE locations (
	registry   BIGINT NOT NULL,
	digest     TEXT COLLATE "C" NOT NULL,
	repository TEXT COLLATE "C" NOT NULL,
	at         BIGINT NOT NULL,
	PRIMARY KEY (registry, digest, repository)
);
CREATE INDEX locations_repository ON locations (repository, registry);

CREATE TABLE refusals (
	registry    BIGINT NOT NULL,
	repository  TEXT COLLATE "C" NOT NULL,
	digest      TEXT COLLATE "C" NOT NULL,
	fingerprint TEXT COLLATE "C" NOT NULL,
	at          BIGINT NOT NULL,
	kind        TEXT COLLATE "C" NOT NULL,
	message     TEXT COLLATE "C" NOT NULL,
	hint        TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (registry, repository, digest)
);

CREATE TABLE findings (
	id           BIGINT PRIMARY KEY,
	same         TEXT COLLATE "C" NOT NULL UNIQUE,
	kind         TEXT COLLATE "C" NOT NULL,
	at           BIGINT NOT NULL,
	first_at     BIGINT NOT NULL,
	times        BIGINT NOT NULL,
	route        TEXT COLLATE "C" NOT NULL,
	registry     TEXT COLLATE "C" NOT NULL,
	repository   TEXT COLLATE "C" NOT NULL,
	tag          TEXT COLLATE "C" NOT NULL,
	digest       TEXT COLLATE "C" NOT NULL,
	message      TEXT COLLATE "C" NOT NULL,
	hint         TEXT COLLATE "C" NOT NULL,
	acknowledged BIGINT NOT NULL
);
CREATE INDEX findings_at ON findings (at, id);

CREATE TABLE finding_totals (
	kind  TEXT COLLATE "C" PRIMARY KEY,
	total BIGINT NOT NULL
);

CREATE TABLE audits (
	id     BIGINT PRIMARY KEY,
	at     BIGINT NOT NULL,
	actor  TEXT COLLATE "C" NOT NULL,
	action TEXT COLLATE "C" NOT NULL,
	target TEXT COLLATE "C" NOT NULL,
	detail TEXT COLLATE "C" NOT NULL
);

CREATE TABLE pauses (
	route TEXT COLLATE "C" PRIMARY KEY,
	at    BIGINT NOT NULL,
	actor TEXT COLLATE "C" NOT NULL
);

CREATE TABLE sweeps (
	route          TEXT COLLATE "C" NOT NULL,
	destination    TEXT COLLATE "C" NOT NULL,
	position       TEXT COLLATE "C" NOT NULL,
	started_at     BIGINT NOT NULL,
	completed_at   BIGINT NOT NULL,
	complete_start BIGINT NOT NULL,
	failed_at      BIGINT NOT NULL,
	error          TEXT COLLATE "C" NOT NULL,
	requests       BIGINT NOT NULL,
	tags           BIGINT NOT NULL,
	seeded         BIGINT NOT NULL,
	PRIMARY KEY (route, destination)
);

CREATE TABLE sweeps_due (
	registry TEXT COLLATE "C" PRIMARY KEY,
	at       BIGINT NOT NULL
);
