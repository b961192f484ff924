-- The few jobs that were ended from outside, by time: the watch asks for the newest every second.

CREATE INDEX jobs_cut_short ON dpe.jobs (ended_at)
  WHERE status IN ('STOPPED', 'TIMEOUT') OR (status = 'FAILED' AND worker_id IS NULL);
