-- Secrets that handlers are given with their parameters.

CREATE TABLE dpe.secrets (
  name       text PRIMARY KEY,
  value      text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN dpe.secrets.value IS 'encrypted; the key is not in this database';
