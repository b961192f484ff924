-- What the watch looks for in each round, found without a look at all that wait: what is due but
-- not published, and of each priority what was published before some instant.
DROP INDEX dpe.jobs_waiting;
CREATE INDEX jobs_waiting ON dpe.jobs (status, priority, published_at)
  WHERE status IN ('SUBMITTED', 'QUEUED');
