-- In which dataset on another server a job is about to commit its rows: where to look after a kill.

CREATE TABLE dpe.commits_elsewhere (
  execution_id uuid PRIMARY KEY,
  dataset      text NOT NULL,
  noted_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE dpe.commits_elsewhere IS 'committed before the rows are; deleted with the job''s SUCCESS';
