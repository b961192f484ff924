-- 0 high, 1 default, 2 low: the order in which the broker hands jobs out.

ALTER TABLE dpe.action_versions
  ADD COLUMN priority smallint NOT NULL DEFAULT 1 CONSTRAINT priority_is_known CHECK (priority BETWEEN 0 AND 2);
ALTER TABLE dpe.jobs
  ADD COLUMN priority smallint NOT NULL DEFAULT 1 CONSTRAINT jobs_priority_is_known CHECK (priority BETWEEN 0 AND 2);
COMMENT ON COLUMN dpe.jobs.priority IS 'of the start call, or else of the action''s version';
