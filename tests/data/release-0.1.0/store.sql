-- A store of soakd 0.1.0: r1 finished, r2 running (its host is another boot by now), r3 queued.
-- Never edited: later releases must load it. SQL dumps leave these two out:
PRAGMA application_id = 1936679275;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE audit (                                -- who did what; outlives the run it is about
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  at          REAL NOT NULL,
  run_id      INTEGER,
  uid         INTEGER,                              -- NULL: soakd itself
  what        TEXT NOT NULL,
  detail_json TEXT NOT NULL
);
INSERT INTO "audit" VALUES(1,1.79537755944129276278e+09,1,0,'created as queued','{}');
INSERT INTO "audit" VALUES(2,1.79537755944331741328e+09,1,NULL,'queued -> staging: SlotGranted','{}');
INSERT INTO "audit" VALUES(3,1.79537755953476619715e+09,1,NULL,'staging -> starting: Staged','{}');
INSERT INTO "audit" VALUES(4,1.79537756008935618394e+09,1,NULL,'starting -> warming: AllReady','{}');
INSERT INTO "audit" VALUES(5,1.79537756009067893023e+09,1,NULL,'warming -> running: Warmed','{}');
INSERT INTO "audit" VALUES(6,1.79537756895224809641e+09,1,NULL,'running -> stopping: RoundsDone','{}');
INSERT INTO "audit" VALUES(7,1.79537756898519039157e+09,1,NULL,'stopping -> finished: LadderDone','{}');
INSERT INTO "audit" VALUES(8,1.79537756905033564569e+09,2,0,'created as queued','{}');
INSERT INTO "audit" VALUES(9,1.79537756905186843868e+09,2,NULL,'queued -> staging: SlotGranted','{}');
INSERT INTO "audit" VALUES(10,1.79537756914065766335e+09,2,NULL,'staging -> starting: Staged','{}');
INSERT INTO "audit" VALUES(11,1.79537756914413356781e+09,3,0,'created as queued','{}');
INSERT INTO "audit" VALUES(12,1.79537756968537187576e+09,2,NULL,'starting -> warming: AllReady','{}');
INSERT INTO "audit" VALUES(13,1.79537756968652558323e+09,2,NULL,'warming -> running: Warmed','{}');
CREATE TABLE gaps (                                 -- times in which nobody measured
  run_id  INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  from_at REAL NOT NULL,
  to_at   REAL NOT NULL,
  s       REAL NOT NULL,                            -- by the boot clock: to_at - from_at may lie
  why     TEXT NOT NULL
);
CREATE TABLE leases (
  kind   TEXT NOT NULL,                             -- port, session, identity, slot
  key    TEXT NOT NULL,
  run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE TABLE nodes (
  run_id    INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  name      TEXT NOT NULL,
  pid       INTEGER,
  ticks     INTEGER,
  exit_json TEXT,
  PRIMARY KEY (run_id, name)
) WITHOUT ROWID;
INSERT INTO "nodes" VALUES(1,'a',23651,830577,'{"code": 0, "signal": null}');
INSERT INTO "nodes" VALUES(1,'b',23652,830578,'{"code": 0, "signal": null}');
INSERT INTO "nodes" VALUES(2,'a',23705,831538,NULL);
INSERT INTO "nodes" VALUES(2,'b',23706,831539,NULL);
CREATE TABLE runs (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,  -- AUTOINCREMENT: an id is never reused
  owner_uid     INTEGER NOT NULL,
  owner_name    TEXT NOT NULL,
  label         TEXT,
  created_at    REAL NOT NULL,
  state         TEXT NOT NULL,                      -- name of the state, what transitions compare
  state_json    TEXT NOT NULL,                      -- the whole state (core.run_state.to_dict)
  plan_json     TEXT NOT NULL,                      -- frozen at submission
  sha256_json   TEXT NOT NULL,                      -- binaries as the client saw them
  nonce         TEXT,                               -- labels the processes of the run
  started_at    REAL,
  ended_at      REAL,
  result        TEXT,
  verdict       TEXT,
  why           TEXT,
  cause_json    TEXT,
  edits_json    TEXT NOT NULL DEFAULT '[]',
  counters_json TEXT,                               -- checkpoint: counters over ...
  rounds_offset INTEGER NOT NULL DEFAULT 0,         -- ... rounds.ndjson up to this byte
  last_round    INTEGER NOT NULL DEFAULT 0,
  measured_json TEXT,
  cgroup        TEXT,
  boot_id       TEXT,
  shim_pid      INTEGER,
  shim_ticks    INTEGER,
  shim_n        INTEGER NOT NULL DEFAULT 0          -- shims of this run so far
);
INSERT INTO "runs" VALUES(1,0,'root','release',1.79537755944129276278e+09,'finished','{"state": "finished", "result": "completed", "cause": null, "verdict": "passed", "why": "all 5 gates hold"}','{"scenario": "source_probe", "nodes": [{"name": "a", "source": "/srv/soakd-release/mule-a", "host": "127.0.0.1", "port": 21845, "roles": ["publisher"]}, {"name": "b", "source": "/srv/soakd-release/mule-b", "host": "127.0.0.1", "port": 21846, "roles": ["searcher"]}], "duration_s": null, "rounds": 4, "wait_publish_s": 0.5, "wait_search_s": 1.0, "wait_between_s": 0.2, "read_every_s": 0.5, "miss_recheck_attempts": 1, "miss_recheck_delay_s": 1.0, "ready_timeout_s": 1200.0, "fresh_identity": true, "run_tag": "20261122T195919Z-ad32", "run_root": null, "label": "release", "keep_config": false, "latest": false, "node_env": {}, "ports": "fixed", "stop_grace_s": 10.0, "orphan_grace_s": 600.0, "staging_timeout_s": 600.0, "gates": []}','{"a": "7fc5c4379fd7df882cb6dae3fd3ed1aabf3af91600ab6a1b8f2208d0a34bfd13", "b": "7fc5c4379fd7df882cb6dae3fd3ed1aabf3af91600ab6a1b8f2208d0a34bfd13"}','880fa59027966c586964bf1a3aeebce4',1.79537755944331741328e+09,1.79537756898519039157e+09,'completed','passed','all 5 gates hold',NULL,'["a: sam.session_name = ''rust-mule-a-soak-20261122T195919Z-ad32-r1'' (was ''rust-mule'')", "a: general.data_dir = ''data''", "a: sam.forward_port = 0", "a: kad.service_runtime_secs = 0", "a: api.rate_limit_enabled = False", "b: sam.session_name = ''rust-mule-b-soak-20261122T195919Z-ad32-r1'' (was ''rust-mule'')", "b: general.data_dir = ''data''", "b: sam.forward_port = 0", "b: kad.service_runtime_secs = 0", "b: api.rate_limit_enabled = False"]','{"hit": 2, "late": 1, "miss": 1, "error": 0, "skipped": 0, "prestored": 1, "prestored_hit": 1, "prestored_miss": 0}',1864,4,'{"deadline_at": null, "simulation": true, "notes": []}','/sys/fs/cgroup/unified/soak-3f49623e-r1','00000000-0000-4000-8000-000000000001',23649,830569,1);
INSERT INTO "runs" VALUES(2,0,'root','live',1.79537756905033564569e+09,'running','{"state": "running", "since_s": 8315.926240273, "deadline_s": 8915.926240273, "until_s": 9014.626240273, "cold": false}','{"scenario": "source_probe", "nodes": [{"name": "a", "source": "/srv/soakd-release/mule-a", "host": "127.0.0.1", "port": 21845, "roles": ["publisher"]}, {"name": "b", "source": "/srv/soakd-release/mule-b", "host": "127.0.0.1", "port": 21846, "roles": ["searcher"]}], "duration_s": 600.0, "rounds": null, "wait_publish_s": 0.5, "wait_search_s": 1.0, "wait_between_s": 0.2, "read_every_s": 0.5, "miss_recheck_attempts": 1, "miss_recheck_delay_s": 1.0, "ready_timeout_s": 1200.0, "fresh_identity": true, "run_tag": "20261122T195929Z-951f", "run_root": null, "label": "live", "keep_config": false, "latest": false, "node_env": {}, "ports": "fixed", "stop_grace_s": 10.0, "orphan_grace_s": 600.0, "staging_timeout_s": 600.0, "gates": []}','{"a": "7fc5c4379fd7df882cb6dae3fd3ed1aabf3af91600ab6a1b8f2208d0a34bfd13", "b": "7fc5c4379fd7df882cb6dae3fd3ed1aabf3af91600ab6a1b8f2208d0a34bfd13"}','366058a315c3579676d39a25afebd667',1.79537756905186843868e+09,NULL,NULL,NULL,NULL,NULL,'["a: sam.session_name = ''rust-mule-a-soak-20261122T195929Z-951f-r2'' (was ''rust-mule'')", "a: general.data_dir = ''data''", "a: sam.forward_port = 0", "a: kad.service_runtime_secs = 0", "a: api.rate_limit_enabled = False", "b: sam.session_name = ''rust-mule-b-soak-20261122T195929Z-951f-r2'' (was ''rust-mule'')", "b: general.data_dir = ''data''", "b: sam.forward_port = 0", "b: kad.service_runtime_secs = 0", "b: api.rate_limit_enabled = False"]',NULL,0,0,'{"deadline_at": "2026-11-22T20:09:29.687Z", "simulation": true, "notes": []}','/sys/fs/cgroup/unified/soak-3f49623e-r2','00000000-0000-4000-8000-000000000001',23703,831529,1);
INSERT INTO "runs" VALUES(3,0,'root','queued',1.79537756914413356781e+09,'queued','{"state": "queued"}','{"scenario": "source_probe", "nodes": [{"name": "a", "source": "/srv/soakd-release/mule-a", "host": "127.0.0.1", "port": 21845, "roles": ["publisher"]}, {"name": "b", "source": "/srv/soakd-release/mule-b", "host": "127.0.0.1", "port": 21846, "roles": ["searcher"]}], "duration_s": 600.0, "rounds": null, "wait_publish_s": 0.5, "wait_search_s": 1.0, "wait_between_s": 0.2, "read_every_s": 0.5, "miss_recheck_attempts": 1, "miss_recheck_delay_s": 1.0, "ready_timeout_s": 1200.0, "fresh_identity": true, "run_tag": "20261122T195929Z-956f", "run_root": null, "label": "queued", "keep_config": false, "latest": false, "node_env": {}, "ports": "fixed", "stop_grace_s": 10.0, "orphan_grace_s": 600.0, "staging_timeout_s": 600.0, "gates": []}','{"a": "7fc5c4379fd7df882cb6dae3fd3ed1aabf3af91600ab6a1b8f2208d0a34bfd13", "b": "7fc5c4379fd7df882cb6dae3fd3ed1aabf3af91600ab6a1b8f2208d0a34bfd13"}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'[]',NULL,0,0,NULL,NULL,NULL,NULL,NULL,0);
CREATE TABLE secrets (                              -- what no bundle of the run may contain
  run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  kind   TEXT NOT NULL,
  value  TEXT NOT NULL,
  PRIMARY KEY (run_id, kind, value)
) WITHOUT ROWID;
INSERT INTO "secrets" VALUES(1,'token','0fc6be25a9159f684d476ace99cbab9dc6666ad6b5860b141029593d978c874d');
INSERT INTO "secrets" VALUES(1,'token','eeaea0ff146b57243c3add4b9c163db6c22ea34686ff6bc8b7240ea747482747');
INSERT INTO "secrets" VALUES(2,'token','b1bb683b1f6666cf30a4373328c917c400ef4789de08c04e3968b89db8ac2881');
INSERT INTO "secrets" VALUES(2,'token','e3c4ff8ea2eaf92e9f27cf9e7a832adcbed970ff145226e5bccd247a1d9bb478');
CREATE INDEX runs_by_owner ON runs (owner_uid, id);
CREATE INDEX runs_unfinished ON runs (id) WHERE state <> 'finished';
CREATE INDEX leases_by_run ON leases (run_id);
CREATE INDEX gaps_by_run ON gaps (run_id, from_at);
CREATE INDEX audit_by_run ON audit (run_id, id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runs',3);
INSERT INTO "sqlite_sequence" VALUES('audit',13);
COMMIT;
