-- Rows that their table did not take, kept aside with the reason.

CREATE TABLE dpe.quarantine (
  id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  dataset        text NOT NULL,
  table_name     text NOT NULL,
  execution_id   uuid NOT NULL,
  row_number     bigint NOT NULL,
  column_name    text,
  reason         text NOT NULL,
  data           json NOT NULL,
  quarantined_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE dpe.quarantine IS 'written in the transaction of the job that brought the row';
COMMENT ON COLUMN dpe.quarantine.row_number IS 'its place in the data of the insert, from 1';
COMMENT ON COLUMN dpe.quarantine.column_name IS 'null: it is no single column''s fault';
COMMENT ON COLUMN dpe.quarantine.data IS 'json and not jsonb: as it came, and with NULs';
CREATE INDEX quarantine_table ON dpe.quarantine (dataset, table_name, id);
