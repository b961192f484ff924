-- Webhooks: who may start an action without a session, by signing what it sends.

CREATE TABLE dpe.webhooks (
  action_id  text PRIMARY KEY REFERENCES dpe.actions (id),
  form       text NOT NULL CONSTRAINT webhooks_form_is_known CHECK (form IN ('standard', 'github', 'stripe')),
  secret     text NOT NULL,
  key_id     bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN dpe.webhooks.secret IS 'what senders sign with, encrypted; the key is not in this database';
COMMENT ON COLUMN dpe.webhooks.key_id IS 'the API key that made it, under which its jobs are started';
