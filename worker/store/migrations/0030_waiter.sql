-- Who waits for a job's end from its start on is told, instead of asking again and again.
ALTER TABLE dpe.jobs ADD waiter text;
COMMENT ON COLUMN dpe.jobs.waiter IS 'the channel on which its end is told by NOTIFY; null: nobody waits';
