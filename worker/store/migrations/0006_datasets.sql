-- What is set for a dataset; one that has no row here has the defaults.

CREATE TABLE dpe.datasets (
  name    text PRIMARY KEY,
  dialect text NOT NULL DEFAULT 'postgres'
    CONSTRAINT datasets_dialect_is_known CHECK (dialect IN ('postgres', 'trino'))
);
COMMENT ON COLUMN dpe.datasets.dialect IS 'what SQL its connectors'' query() takes';
