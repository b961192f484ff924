-- Files that a job has written beside their place, and that go to it once the job is committed.

CREATE TABLE dpe.file_moves (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  execution_id uuid NOT NULL,
  target       text NOT NULL,
  source       text,
  noted_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  failed_at    timestamptz,
  error        text
);
COMMENT ON TABLE dpe.file_moves IS 'written in the job''s transaction; a row that can be seen is a move that is owed';
COMMENT ON COLUMN dpe.file_moves.target IS 'bucket/name in the data store';
COMMENT ON COLUMN dpe.file_moves.source IS 'where the content waits; null: the target is to be deleted';

CREATE INDEX file_moves_target ON dpe.file_moves (target, id);
CREATE INDEX file_moves_job ON dpe.file_moves (execution_id);
