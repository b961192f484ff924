-- Which start call was accepted under which Idempotency-Key, so that a repeated call starts nothing.

CREATE TABLE dpe.idempotency_keys (
  key_id       bigint NOT NULL,
  action_id    text NOT NULL,
  key          text NOT NULL,
  digest       bytea NOT NULL,
  execution_id uuid NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (key_id, action_id, key)
);
COMMENT ON COLUMN dpe.idempotency_keys.key_id IS 'the API key: two callers never meet';
COMMENT ON COLUMN dpe.idempotency_keys.digest IS 'SHA-256 of the body';
CREATE INDEX idempotency_keys_age ON dpe.idempotency_keys (created_at);
