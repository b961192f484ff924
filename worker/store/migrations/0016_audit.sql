-- Who changed and stopped what.  Who started what stands with the jobs (key_id).

CREATE TABLE dpe.audit (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at         timestamptz NOT NULL DEFAULT now(),
  key_id     bigint NOT NULL,
  who        text NOT NULL,
  address    text NOT NULL,
  permission text NOT NULL,
  method     text NOT NULL,
  path       text NOT NULL,
  status     integer,
  made       text
);
COMMENT ON COLUMN dpe.audit.who IS 'the name of the API key';
COMMENT ON COLUMN dpe.audit.status IS 'what was answered; null: it was begun, and its process died';
COMMENT ON COLUMN dpe.audit.made IS 'the id or name of what was made, where the path does not say it';
