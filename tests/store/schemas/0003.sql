BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0003');
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
	updated_at DATETIME NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "jobs" VALUES('0123456789ab','demo','{"name": "demo"}','interrupted','stopped from the keyboard','out/demo','2026-01-01 10:00:00.000000','2026-01-01 10:05:00.000000');
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
CREATE INDEX ix_evaluations_context ON evaluations (context);
CREATE INDEX ix_kernels_device ON kernels (device);
COMMIT;
