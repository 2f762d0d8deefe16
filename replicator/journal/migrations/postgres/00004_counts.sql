-- +goose Up

-- How many rows of desired state each edge, state and lane has, and how many
-- records each route at a registry, so that nobody has to count them. Whoever
-- writes jobs and says so (twinport.counts) writes their numbers, too, once a
-- transaction; for others, replicas of the version before among them, and for
-- records, triggers do. What drops many rows at once is counted at once, since
-- each change of a number leaves a dead row until the transaction ends. The
-- functions find their tables wherever they are called from.
CREATE TABLE job_counts (
	edge  BIGINT NOT NULL,
	state BIGINT NOT NULL,
	lane  BIGINT NOT NULL,
	n     BIGINT NOT NULL,
	PRIMARY KEY (edge, state, lane)
);

CREATE TABLE record_counts (
	route       TEXT COLLATE "C" NOT NULL,
	registry    BIGINT NOT NULL,
	trust       BIGINT NOT NULL,
	n           BIGINT NOT NULL,
	unconfirmed BIGINT NOT NULL,
	PRIMARY KEY (route, registry, trust)
);

-- The earliest push that no proof covers is the first of an edge here.
CREATE INDEX jobs_behind ON jobs (edge, behind_since) WHERE state < 4 AND behind_since > 0;

-- Errors are looked for within a route or a state, too.
DROP INDEX jobs_error;
CREATE INDEX jobs_errors ON jobs (edge, error_kind, state, id) WHERE error_kind <> '';

-- +goose StatementBegin
CREATE FUNCTION count_job() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
	IF TG_OP = 'UPDATE' THEN
		UPDATE job_counts SET n = n - 1 WHERE edge = OLD.edge AND state = OLD.state AND lane = OLD.lane;
	END IF;
	IF NEW.state < 5 THEN
		INSERT INTO job_counts AS c (edge, state, lane, n) VALUES (NEW.edge, NEW.state, NEW.lane, 1)
			ON CONFLICT (edge, state, lane) DO UPDATE SET n = c.n + 1;
	END IF;
	RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION count_dropped_jobs() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
	UPDATE job_counts c SET n = c.n - d.n FROM (SELECT edge, state, lane, COUNT(*) AS n FROM dropped
		WHERE state < 5 GROUP BY edge, state, lane) AS d
		WHERE c.edge = d.edge AND c.state = d.state AND c.lane = d.lane;
	RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER jobs_counted_made AFTER INSERT ON jobs FOR EACH ROW
	WHEN (NEW.state < 5 AND current_setting('twinport.counts', true) IS DISTINCT FROM 'kept')
	EXECUTE FUNCTION count_job();
CREATE TRIGGER jobs_counted_changed AFTER UPDATE OF edge, state, lane ON jobs FOR EACH ROW
	WHEN ((OLD.edge <> NEW.edge OR OLD.state <> NEW.state OR OLD.lane <> NEW.lane)
		AND current_setting('twinport.counts', true) IS DISTINCT FROM 'kept')
	EXECUTE FUNCTION count_job();
CREATE TRIGGER jobs_counted_dropped AFTER DELETE ON jobs REFERENCING OLD TABLE AS dropped
	FOR EACH STATEMENT EXECUTE FUNCTION count_dropped_jobs();

-- +goose StatementBegin
CREATE FUNCTION count_record() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
	IF TG_OP = 'UPDATE' THEN
		UPDATE record_counts SET n = n - 1, unconfirmed = unconfirmed - OLD.unconfirmed
			WHERE route = OLD.route AND registry = OLD.registry AND trust = OLD.trust;
	END IF;
	INSERT INTO record_counts AS c (route, registry, trust, n, unconfirmed)
		VALUES (NEW.route, NEW.registry, NEW.trust, 1, NEW.unconfirmed)
		ON CONFLICT (route, registry, trust) DO UPDATE SET n = c.n + 1, unconfirmed = c.unconfirmed + excluded.unconfirmed;
	RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION count_dropped_records() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
	UPDATE record_counts c SET n = c.n - d.n, unconfirmed = c.unconfirmed - d.unconfirmed
		FROM (SELECT route, registry, trust, COUNT(*) AS n, SUM(unconfirmed) AS unconfirmed FROM dropped
			GROUP BY route, registry, trust) AS d
		WHERE c.route = d.route AND c.registry = d.registry AND c.trust = d.trust;
	RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER records_counted_made AFTER INSERT ON records FOR EACH ROW EXECUTE FUNCTION count_record();
CREATE TRIGGER records_counted_changed AFTER UPDATE OF route, registry, trust, unconfirmed ON records FOR EACH ROW
	WHEN (OLD.route <> NEW.route OR OLD.registry <> NEW.registry OR OLD.trust <> NEW.trust OR OLD.unconfirmed <> NEW.unconfirmed)
	EXECUTE FUNCTION count_record();
CREATE TRIGGER records_counted_dropped AFTER DELETE ON records REFERENCING OLD TABLE AS dropped
	FOR EACH STATEMENT EXECUTE FUNCTION count_dropped_records();

-- Since the triggers are there nobody writes beside this transaction.
INSERT INTO job_counts (edge, state, lane, n)
	SELECT edge, state, lane, COUNT(*) FROM jobs WHERE state < 5 GROUP BY edge, state, lane;
INSERT INTO record_counts (route, registry, trust, n, unconfirmed)
	SELECT route, registry, trust, COUNT(*), SUM(unconfirmed) FROM records GROUP BY route, registry, trust;
