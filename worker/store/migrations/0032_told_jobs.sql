-- Whoever waits for a job gets it with the notice of its end, as it is shown then (`jobs.COLUMNS`), or
-- where a notice has no room for it, its id.  All else is as in 0031.
CREATE OR REPLACE FUNCTION dpe.end_attempt(
  id uuid, owner_attempt int, new_status text, pause_s float8, new_error json, new_result json,
  new_stats json, log_part int, log_lines text, ran_s float8, ago_s float8
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  channel text;
  shown text;
  end_at timestamptz := clock_timestamp() - ago_s * interval '1 second';
BEGIN
  UPDATE dpe.jobs
  SET status = new_status,
      started_at = CASE WHEN ran_s IS NULL THEN started_at
        ELSE end_at - ran_s * interval '1 second' END,
      ended_at = CASE WHEN new_status <> 'SUBMITTED' THEN end_at END,
      due_at = CASE WHEN new_status = 'SUBMITTED'
        THEN clock_timestamp() + pause_s * interval '1 second' ELSE due_at END,
      failures = failures + CASE WHEN new_status = 'SUBMITTED' THEN 1 ELSE 0 END,
      published_at = CASE WHEN new_status = 'SUBMITTED' THEN NULL ELSE published_at END,
      deadline = NULL,
      held = max_running IS NOT NULL AND new_status = 'SUBMITTED',
      error = new_error, result = new_result, stats = new_stats
  WHERE execution_id = id AND attempt = owner_attempt AND status = 'PROCESSING'
  RETURNING waiter INTO channel;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'attempt % of % is no longer the owner', owner_attempt, id
      USING ERRCODE = 'DP001';
  END IF;
  INSERT INTO dpe.job_logs (execution_id, attempt, part, lines)
  VALUES (id, owner_attempt, log_part, log_lines);
  IF channel IS NOT NULL THEN
    SELECT row_to_json(j) INTO shown FROM (
      SELECT execution_id, seq, action_id, version, name, status, attempt, losses, event_type,
             priority, retry_of, submitted_at, published_at, started_at, ended_at, error, result,
             stats, run_id, step, NULL AS progress
      FROM dpe.jobs WHERE execution_id = id) j;
    PERFORM pg_notify(
      channel, CASE WHEN octet_length(shown) < 8000 THEN shown ELSE id::text END);
  END IF;
END
$$;
