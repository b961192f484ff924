-- How many jobs of an action run at a time; the others are held, in line.

ALTER TABLE dpe.action_versions
  ADD COLUMN max_running integer CONSTRAINT max_running_is_positive CHECK (max_running > 0),
  ADD COLUMN exclusive   boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN dpe.action_versions.max_running IS 'null: as many as there are';
COMMENT ON COLUMN dpe.action_versions.exclusive IS 'a start is turned down while another job of it is open';

ALTER TABLE dpe.jobs
  ADD COLUMN max_running integer,
  ADD COLUMN held        boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN dpe.jobs.max_running IS 'of its action''s version: null for most, which no index below has';
COMMENT ON COLUMN dpe.jobs.held IS 'it waits for its turn: not published, not claimed';
CREATE INDEX jobs_limited ON dpe.jobs (action_id, held, priority, seq)
  WHERE max_running IS NOT NULL AND status IN ('SUBMITTED', 'QUEUED', 'PROCESSING');
