-- The record: actions and their versions, jobs and their logs, workers, who may do what.

CREATE TABLE dpe.installation (
  one        boolean PRIMARY KEY DEFAULT true CONSTRAINT installation_is_one CHECK (one),
  secret     text NOT NULL DEFAULT replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''),
  created_at timestamptz NOT NULL DEFAULT now(),
  watched_at timestamptz NOT NULL DEFAULT '-infinity'
);
COMMENT ON COLUMN dpe.installation.watched_at IS 'when a worker last kept the watch: its lease';
COMMENT ON COLUMN dpe.installation.secret IS 'what session tokens are signed with';
INSERT INTO dpe.installation DEFAULT VALUES;

CREATE TABLE dpe.actions (
  id         text PRIMARY KEY CONSTRAINT actions_id_is_24_hex CHECK (id ~ '^[0-9a-f]{24}$'),
  version    integer NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz
);
COMMENT ON COLUMN dpe.actions.version IS 'the version that the next start runs';
COMMENT ON COLUMN dpe.actions.deleted_at IS 'set: no new start; jobs accepted before still run';

CREATE TABLE dpe.action_versions (
  action_id  text NOT NULL REFERENCES dpe.actions (id),
  version    integer NOT NULL,
  name       text NOT NULL,
  function   text NOT NULL,
  timeout_s  double precision,
  config     jsonb NOT NULL,
  digest     text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (action_id, version)
);
COMMENT ON COLUMN dpe.action_versions.config IS 'forepaas.json, unknown keys included';
COMMENT ON COLUMN dpe.action_versions.timeout_s IS 'null: no limit';
COMMENT ON COLUMN dpe.action_versions.digest IS 'SHA-256 over paths and contents';

CREATE TABLE dpe.action_files (
  action_id text NOT NULL,
  version   integer NOT NULL,
  path      text NOT NULL,
  content   bytea NOT NULL,
  PRIMARY KEY (action_id, version, path),
  FOREIGN KEY (action_id, version) REFERENCES dpe.action_versions (action_id, version)
);

CREATE TABLE dpe.jobs (
  execution_id uuid PRIMARY KEY,
  seq          bigint GENERATED ALWAYS AS IDENTITY,
  action_id    text NOT NULL,
  version      integer NOT NULL,
  name         text NOT NULL,
  status       text NOT NULL CONSTRAINT jobs_status_is_known CHECK (status IN
                 ('SUBMITTED', 'QUEUED', 'PROCESSING', 'SUCCESS', 'FAILED', 'TIMEOUT', 'STOPPED')),
  attempt      integer NOT NULL DEFAULT 0,
  losses       integer NOT NULL DEFAULT 0,
  failures     integer NOT NULL DEFAULT 0,
  event        text,
  event_type   text NOT NULL,
  key_id       bigint,
  retry_of     uuid,
  submitted_at timestamptz NOT NULL DEFAULT now(),
  due_at       timestamptz NOT NULL DEFAULT now(),
  published_at timestamptz,
  started_at   timestamptz,
  ended_at     timestamptz,
  timeout_s    double precision,
  deadline     timestamptz,
  worker_id    uuid,
  pid          integer,
  error        json,
  result       json,
  stats        json,
  CONSTRAINT jobs_ended_have_a_time CHECK
    ((status IN ('SUCCESS', 'FAILED', 'TIMEOUT', 'STOPPED')) = (ended_at IS NOT NULL))
);
COMMENT ON COLUMN dpe.jobs.seq IS 'order of acceptance; what lists are sorted and paged by';
COMMENT ON COLUMN dpe.jobs.attempt IS 'the fencing token: raised by every claim, checked by every end';
COMMENT ON COLUMN dpe.jobs.losses IS 'attempts that ended because their process or host was lost';
COMMENT ON COLUMN dpe.jobs.failures IS 'attempts that raised and were followed by another (retry)';
COMMENT ON COLUMN dpe.jobs.event IS 'the body as it was posted, JSON; null: none';
COMMENT ON COLUMN dpe.jobs.due_at IS 'not handed to the broker before (retries wait here)';
COMMENT ON COLUMN dpe.jobs.result IS 'json and not jsonb, which refuses the escape of NUL';
COMMENT ON COLUMN dpe.jobs.published_at IS 'when it was last handed to the broker';

CREATE UNIQUE INDEX jobs_seq ON dpe.jobs (seq);
CREATE INDEX jobs_action ON dpe.jobs (action_id, seq);
-- The hot part: what the watch and the supervisors look at every second, however many have ended.
CREATE INDEX jobs_waiting ON dpe.jobs (published_at) WHERE status IN ('SUBMITTED', 'QUEUED');
CREATE INDEX jobs_running ON dpe.jobs (worker_id) WHERE status = 'PROCESSING';
CREATE INDEX jobs_ended ON dpe.jobs (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE dpe.job_logs (
  execution_id uuid NOT NULL,
  attempt      integer NOT NULL,
  part         integer NOT NULL,
  lines        text NOT NULL,
  PRIMARY KEY (execution_id, attempt, part)
);
COMMENT ON COLUMN dpe.job_logs.lines IS 'JSON: [{"at", "level", "logger", "message"}, …], one part a flush';

CREATE TABLE dpe.workers (
  id          uuid PRIMARY KEY,
  host        text NOT NULL,
  pid         integer NOT NULL,
  children    integer NOT NULL,
  started_at  timestamptz NOT NULL DEFAULT now(),
  beat_at     timestamptz NOT NULL DEFAULT now(),
  progress_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN dpe.workers.progress_at IS 'when one of its children last claimed or ended a job';

CREATE TABLE dpe.keys (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  apikey     text NOT NULL UNIQUE,
  secret     text NOT NULL,
  name       text NOT NULL,
  role       text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL DEFAULT now() + interval '730 days',
  revoked_at timestamptz
);
COMMENT ON COLUMN dpe.keys.secret IS 'SHA-256 of the 64 hex characters that were shown once';

CREATE TABLE dpe.sessions (
  id         text PRIMARY KEY,
  key_id     bigint NOT NULL REFERENCES dpe.keys (id),
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_expiry ON dpe.sessions (expires_at);
CREATE INDEX sessions_key ON dpe.sessions (key_id);

CREATE TABLE dpe.tables (
  dataset     text NOT NULL,
  name        text NOT NULL,
  description jsonb NOT NULL,
  built_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (dataset, name)
);
