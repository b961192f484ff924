-- Workflows; a run of one is a job that no worker claims, and its steps are jobs that name it.

CREATE TABLE dpe.workflows (
  id         text PRIMARY KEY CONSTRAINT workflows_id_is_24_hex CHECK (id ~ '^[0-9a-f]{24}$'),
  version    integer NOT NULL,
  name       text NOT NULL,
  definition json NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz
);
COMMENT ON COLUMN dpe.workflows.definition IS 'as it was pushed, unknown keys included';

ALTER TABLE dpe.jobs
  ADD COLUMN run_id  uuid,
  ADD COLUMN step    text,
  ADD COLUMN nth     integer,
  ADD COLUMN item    json,
  ADD COLUMN plan    json,
  ADD COLUMN decided text[];
COMMENT ON COLUMN dpe.jobs.run_id IS 'of a step: the run that it belongs to; the event stands there';
COMMENT ON COLUMN dpe.jobs.step IS 'of a step: its name in the run''s plan';
COMMENT ON COLUMN dpe.jobs.nth IS 'of a step: its place in the list that for_each goes over; else 0';
COMMENT ON COLUMN dpe.jobs.item IS 'of a step: what stands at that place';
COMMENT ON COLUMN dpe.jobs.plan IS 'of a run: its steps, the actions'' versions pinned; no worker claims it';
COMMENT ON COLUMN dpe.jobs.decided IS 'of a run: its steps that have ended, or will never start';

-- A step is started once, whoever starts it: the run's row is locked, and this stands behind it.
CREATE UNIQUE INDEX jobs_step ON dpe.jobs (run_id, step, nth) WHERE run_id IS NOT NULL;
CREATE INDEX jobs_open_steps ON dpe.jobs (run_id) WHERE run_id IS NOT NULL AND ended_at IS NULL;
CREATE INDEX jobs_open_runs ON dpe.jobs (execution_id) WHERE plan IS NOT NULL AND ended_at IS NULL;
