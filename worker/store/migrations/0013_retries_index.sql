-- Has this job been retried?

CREATE INDEX jobs_retries ON dpe.jobs (retry_of, seq) WHERE retry_of IS NOT NULL;
