-- +goose Up

-- Registries by identity; name is what the config calls it now. Records of an
-- older trust than the registry's count for nothing.
CREATE TABLE registries (
	id       INTEGER PRIMARY KEY,
	identity TEXT    NOT NULL UNIQUE,
	name     TEXT    NOT NULL,
	trust    BIGINT  NOT NULL DEFAULT 0
);

-- What each name of the config stood for when it was last loaded.
CREATE TABLE names (
	name     TEXT PRIMARY KEY,
	registry BIGINT NOT NULL
) WITHOUT ROWID;

-- An edge is two registries, how they stand to each other, and the routes that
-- want it: few of them, shared by all their jobs.
CREATE TABLE edges (
	id    INTEGER PRIMARY KEY,
	src   BIGINT NOT NULL,
	dst   BIGINT NOT NULL,
	flow  BIGINT NOT NULL,
	wants TEXT   NOT NULL,
	UNIQUE (src, dst, flow, wants)
);

-- Rows of desired state (ended = 0), and what became of earlier ones
-- (ended = id). ref is the tag, or the digest where there is none. States:
-- 0 waiting, 1 running, 2 failed, 3 refused, 4 held, 5 done, 6 superseded.
CREATE TABLE jobs (
	id             INTEGER PRIMARY KEY,
	edge           BIGINT NOT NULL,
	src            BIGINT NOT NULL,
	src_repository TEXT   NOT NULL,
	dst            BIGINT NOT NULL,
	dst_repository TEXT   NOT NULL,
	flow           BIGINT NOT NULL,
	tag            TEXT   NOT NULL,
	ref            TEXT   NOT NULL,
	ended          BIGINT NOT NULL,
	digest         TEXT   NOT NULL,
	lane           BIGINT NOT NULL,
	pushed_at      BIGINT NOT NULL,
	sender_time    BIGINT NOT NULL,
	behind_since   BIGINT NOT NULL,
	wants_full     BIGINT NOT NULL,
	state          BIGINT NOT NULL,
	attempts       BIGINT NOT NULL,
	first_attempt  BIGINT NOT NULL,
	next_attempt   BIGINT NOT NULL,
	error_kind     TEXT   NOT NULL,
	error_message  TEXT   NOT NULL,
	error_hint     TEXT   NOT NULL,
	generation     BIGINT NOT NULL,
	pending_since  BIGINT NOT NULL,
	claimed_digest TEXT   NOT NULL,
	held_by        TEXT   NOT NULL,
	held_digest    TEXT   NOT NULL,
	replica        TEXT   NOT NULL,
	epoch          BIGINT NOT NULL,
	created_at     BIGINT NOT NULL,
	updated_at     BIGINT NOT NULL
);
CREATE UNIQUE INDEX jobs_key ON jobs (dst, dst_repository, ref, ended, src, src_repository);
CREATE INDEX jobs_source ON jobs (src, src_repository, ref, ended);
CREATE INDEX jobs_due ON jobs (edge, lane, next_attempt, id) WHERE state = 0;
CREATE INDEX jobs_standing ON jobs (edge, state, lane, id, behind_since);
CREATE INDEX jobs_error ON jobs (error_kind, id) WHERE error_kind <> '';

CREATE TABLE replicas (
	id      TEXT PRIMARY KEY,
	epoch   BIGINT NOT NULL,
	until   BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE records (
	registry       BIGINT NOT NULL,
	repository     TEXT   NOT NULL,
	ref            TEXT   NOT NULL,
	tag            TEXT   NOT NULL,
	digest         TEXT   NOT NULL,
	src            BIGINT NOT NULL,
	src_repository TEXT   NOT NULL,
	route          TEXT   NOT NULL,
	pushed_at      BIGINT NOT NULL,
	proven_at      BIGINT NOT NULL,
	referrers_at   BIGINT NOT NULL,
	wrote          BIGINT NOT NULL,
	bytes          BIGINT NOT NULL,
	trust          BIGINT NOT NULL,
	PRIMARY KEY (registry, repository, ref)
) WITHOUT ROWID;
CREATE INDEX records_route ON records (route, registry, trust, proven_at);

CREATE TABLE bases (
	dst            BIGINT NOT NULL,
	dst_repository TEXT   NOT NULL,
	ref            TEXT   NOT NULL,
	src            BIGINT NOT NULL,
	src_repository TEXT   NOT NULL,
	digest         TEXT   NOT NULL,
	intents        TEXT   NOT NULL,
	updated_at     BIGINT NOT NULL,
	PRIMARY KEY (dst, dst_repository, ref, src, src_repository)
) WITHOUT ROWID;

-- n counts the tag's rows as they were added.
CREATE TABLE tag_states (
	id         INTEGER PRIMARY KEY,
	registry   BIGINT NOT NULL,
	repository TEXT   NOT NULL,
	tag        TEXT   NOT NULL,
	at         BIGINT NOT NULL,
	digest     TEXT   NOT NULL,
	cause      TEXT   NOT NULL,
	n          BIGINT NOT NULL
);
CREATE INDEX tag_states_tag ON tag_states (registry, repository, tag, at, id);

CREATE TABLE locations (
	registry   BIGINT NOT NULL,
	digest     TEXT   NOT NULL,
	repository TEXT   NOT NULL,
	at         BIGINT NOT NULL,
	PRIMARY KEY (registry, digest, repository)
) WITHOUT ROWID;
CREATE INDEX locations_repository ON locations (repository, registry);

CREATE TABLE refusals (
	registry    BIGINT NOT NULL,
	repository  TEXT   NOT NULL,
	digest      TEXT   NOT NULL,
	fingerprint TEXT   NOT NULL,
	at          BIGINT NOT NULL,
	kind        TEXT   NOT NULL,
	message     TEXT   NOT NULL,
	hint        TEXT   NOT NULL,
	PRIMARY KEY (registry, repository, digest)
) WITHOUT ROWID;

CREATE TABLE findings (
	id           INTEGER PRIMARY KEY,
	same         TEXT   NOT NULL UNIQUE,
	kind         TEXT   NOT NULL,
	at           BIGINT NOT NULL,
	first_at     BIGINT NOT NULL,
	times        BIGINT NOT NULL,
	route        TEXT   NOT NULL,
	registry     TEXT   NOT NULL,
	repository   TEXT   NOT NULL,
	tag          TEXT   NOT NULL,
	digest       TEXT   NOT NULL,
	message      TEXT   NOT NULL,
	hint         TEXT   NOT NULL,
	acknowledged BIGINT NOT NULL
);
CREATE INDEX findings_at ON findings (at, id);

CREATE TABLE finding_totals (
	kind  TEXT PRIMARY KEY,
	total BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE audits (
	id     INTEGER PRIMARY KEY,
	at     BIGINT NOT NULL,
	actor  TEXT   NOT NULL,
	action TEXT   NOT NULL,
	target TEXT   NOT NULL,
	detail TEXT   NOT NULL
);

CREATE TABLE pauses (
	route TEXT PRIMARY KEY,
	at    BIGINT NOT NULL,
	actor TEXT   NOT NULL
) WITHOUT ROWID;

CREATE TABLE sweeps (
	route          TEXT   NOT NULL,
	destination    TEXT   NOT NULL,
	position       TEXT   NOT NULL,
	started_at     BIGINT NOT NULL,
	completed_at   BIGINT NOT NULL,
	complete_start BIGINT NOT NULL,
	failed_at      BIGINT NOT NULL,
	error          TEXT   NOT NULL,
	requests       BIGINT NOT NULL,
	tags           BIGINT NOT NULL,
	seeded         BIGINT NOT NULL,
	PRIMARY KEY (route, destination)
) WITHOUT ROWID;

CREATE TABLE sweeps_due (
	registry TEXT PRIMARY KEY,
	at       BIGINT NOT NULL
) WITHOUT ROWID;
