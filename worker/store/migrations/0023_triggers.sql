-- Triggers: what starts an action or a workflow by the clock, and what became of each tick.

CREATE TABLE dpe.triggers (
  name           text PRIMARY KEY,
  kind           text NOT NULL CONSTRAINT triggers_kind_is_known CHECK (kind IN ('action', 'workflow')),
  target_id      text NOT NULL,
  cron           text NOT NULL,
  timezone       text NOT NULL,
  event          text,
  catch_up       text NOT NULL CONSTRAINT triggers_catch_up_is_known CHECK (catch_up IN ('none', 'last', 'all')),
  catch_up_limit integer NOT NULL CONSTRAINT triggers_catch_up_is_bounded CHECK (catch_up_limit BETWEEN 1 AND 1000),
  overlap        text NOT NULL CONSTRAINT triggers_overlap_is_known CHECK (overlap IN ('allow', 'skip')),
  key_id         bigint,
  paused_at      timestamptz,
  next_at        timestamptz,
  created_at     timestamptz NOT NULL DEFAULT now(),
  updated_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN dpe.triggers.event IS 'JSON; null: each run is told the trigger''s name and its tick';
COMMENT ON COLUMN dpe.triggers.key_id IS 'the API key that set it, under which its runs are started';
COMMENT ON COLUMN dpe.triggers.next_at IS 'the first tick that nobody has decided on; null: none will come';

CREATE INDEX triggers_due ON dpe.triggers (next_at) WHERE paused_at IS NULL;

CREATE TABLE dpe.trigger_ticks (
  trigger      text NOT NULL REFERENCES dpe.triggers (name) ON DELETE CASCADE,
  tick         timestamptz NOT NULL,
  outcome      text NOT NULL CONSTRAINT trigger_ticks_outcome_is_known CHECK
                 (outcome IN ('started', 'skipped', 'missed', 'failed')),
  execution_id uuid,
  error        text,
  decided_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (trigger, tick)
);
COMMENT ON TABLE dpe.trigger_ticks IS 'the key is why a tick starts one run: both are one commit';
COMMENT ON COLUMN dpe.trigger_ticks.outcome IS 'skipped: the run before still went on; missed: too late, see catch_up';
