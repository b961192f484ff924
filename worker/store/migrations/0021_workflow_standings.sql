-- How a step ended is kept, not its name alone: what was decided without a job must stay so.

ALTER TABLE dpe.jobs DROP COLUMN decided;
ALTER TABLE dpe.jobs ADD COLUMN standings json;
COMMENT ON COLUMN dpe.jobs.standings IS
  'of a run: {step: {status, skipped, error}} for the steps that have ended, or will never start';
