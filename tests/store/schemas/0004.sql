BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004');
CREATE TABLE artifacts (
	job_id VARCHAR(32) NOT NULL, 
	name VARCHAR(300) NOT NULL, 
	location TEXT NOT NULL, 
	bytes BIGINT NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY (job_id, name), 
	FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
CREATE TABLE audit (
	id INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	user VARCHAR(80) NOT NULL, 
	action VARCHAR(80) NOT NULL, 
	target TEXT NOT NULL, 
	outcome VARCHAR(20) NOT NULL, 
	detail TEXT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE candidates (
	job_id VARCHAR(32) NOT NULL, 
	configuration VARCHAR(16) NOT NULL, 
	formats JSON NOT NULL, 
	origin VARCHAR(40) NOT NULL, 
	predicted FLOAT, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (job_id, configuration), 
	FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "candidates" VALUES('0123456789ab','c0ffee','{"a": "w4"}','uniform',NULL,'2026-01-01 10:00:00.000000');
CREATE TABLE conditions (
	id INTEGER NOT NULL, 
	job_id VARCHAR(32) NOT NULL, 
	type VARCHAR(40) NOT NULL, 
	reason VARCHAR(80) NOT NULL, 
	message TEXT NOT NULL, 
	attempt INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
CREATE TABLE evaluations (
	context VARCHAR(80) NOT NULL, 
	configuration VARCHAR(16) NOT NULL, 
	split VARCHAR(20) NOT NULL, 
	metric VARCHAR(80) NOT NULL, 
	value FLOAT NOT NULL, 
	low FLOAT NOT NULL, 
	high FLOAT NOT NULL, 
	seconds FLOAT NOT NULL, 
	samples INTEGER NOT NULL, 
	"values" BLOB NOT NULL, 
	formats JSON NOT NULL, 
	worker VARCHAR(120) NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (context, configuration, split)
);
CREATE TABLE events (
	id INTEGER NOT NULL, 
	job_id VARCHAR(32) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	content JSON NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
CREATE TABLE failures (
	context VARCHAR(80) NOT NULL, 
	configuration VARCHAR(16) NOT NULL, 
	split VARCHAR(20) NOT NULL, 
	formats JSON NOT NULL, 
	reason TEXT NOT NULL, 
	final BOOLEAN NOT NULL, 
	worker VARCHAR(120) NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (context, configuration, split)
);
CREATE TABLE formulas (
	context VARCHAR(80) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	expression TEXT NOT NULL, 
	size INTEGER NOT NULL, 
	signature VARCHAR(64) NOT NULL, 
	fitness FLOAT, 
	details JSON NOT NULL, 
	reason TEXT NOT NULL, 
	seconds FLOAT NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (context, digest)
);
CREATE TABLE jobs (
	id VARCHAR(32) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	specification JSON NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	reason TEXT NOT NULL, 
	out TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, local BOOLEAN DEFAULT 1 NOT NULL, owner VARCHAR(80) DEFAULT '' NOT NULL, submission VARCHAR(200), priority INTEGER DEFAULT '0' NOT NULL, attempt INTEGER DEFAULT '0' NOT NULL, most_attempts INTEGER DEFAULT '3' NOT NULL, queued_at FLOAT, not_before FLOAT, started_at FLOAT, finished_at FLOAT, epoch INTEGER DEFAULT '0' NOT NULL, worker VARCHAR(200) DEFAULT '' NOT NULL, lease_until FLOAT, beat_at FLOAT, wish VARCHAR(10) DEFAULT '' NOT NULL, seconds_used FLOAT DEFAULT '0' NOT NULL, most_seconds FLOAT, needs JSON DEFAULT '[]' NOT NULL, waiting BOOLEAN DEFAULT 0 NOT NULL, gpus INTEGER DEFAULT '0' NOT NULL, progress JSON DEFAULT '{}' NOT NULL, record JSON DEFAULT '{}' NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "jobs" VALUES('0123456789ab','demo','{"name": "demo"}','paused','stopped from the keyboard','out/demo','2026-01-01 10:00:00.000000','2026-01-01 10:05:00.000000',1,'',NULL,0,0,3,NULL,NULL,NULL,NULL,0,'',NULL,NULL,'',0.0,NULL,'[]',0,0,'{}','{}');
CREATE TABLE kernels (
	digest VARCHAR(64) NOT NULL, 
	device VARCHAR(120) NOT NULL, 
	"row" JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (digest)
);
INSERT INTO "kernels" VALUES('d','cpu','{}','2026-01-01 10:00:00.000000');
CREATE TABLE scores (
	"key" VARCHAR(80) NOT NULL, 
	proxy VARCHAR(80) NOT NULL, 
	payload BLOB NOT NULL, 
	seconds FLOAT NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY ("key")
);
CREATE TABLE tokens (
	hash VARCHAR(64) NOT NULL, 
	user VARCHAR(80) NOT NULL, 
	note VARCHAR(200) NOT NULL, 
	expires_at FLOAT, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (hash), 
	FOREIGN KEY(user) REFERENCES users (name) ON DELETE CASCADE
);
CREATE TABLE uploads (
	sha256 VARCHAR(64) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	owner VARCHAR(80) NOT NULL, 
	location TEXT NOT NULL, 
	bytes BIGINT NOT NULL, 
	details JSON NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY (sha256)
);
CREATE TABLE users (
	name VARCHAR(80) NOT NULL, 
	role VARCHAR(20) NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE workers (
	id VARCHAR(200) NOT NULL, 
	capabilities JSON NOT NULL, 
	draining BOOLEAN NOT NULL, 
	started_at FLOAT NOT NULL, 
	seen_at FLOAT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE INDEX ix_evaluations_context ON evaluations (context);
CREATE INDEX ix_kernels_device ON kernels (device);
CREATE UNIQUE INDEX uq_jobs_submission ON jobs (owner, submission);
CREATE INDEX ix_jobs_queue ON jobs (state, priority, queued_at);
CREATE INDEX ix_conditions_job_id ON conditions (job_id);
CREATE INDEX ix_events_job ON events (job_id, id);
CREATE INDEX ix_tokens_user ON tokens (user);
CREATE INDEX ix_audit_at ON audit (at);
COMMIT;
