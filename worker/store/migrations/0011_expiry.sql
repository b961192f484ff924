-- A job that waits may have a deadline as well: not begun by then, it ends.

ALTER TABLE dpe.action_versions ADD COLUMN expires_s double precision;
COMMENT ON COLUMN dpe.action_versions.expires_s IS 'null: its jobs wait for as long as it takes';
COMMENT ON COLUMN dpe.jobs.deadline IS
  'of a job that waits for the first time: to begin by; of one that runs: to end by';
CREATE INDEX jobs_expiring ON dpe.jobs (deadline)
  WHERE status IN ('SUBMITTED', 'QUEUED') AND deadline IS NOT NULL;
