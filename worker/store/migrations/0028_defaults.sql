-- What holds for the jobs of actions, and runs of workflows, that say nothing of it themselves.

CREATE TABLE dpe.defaults (
  name   text PRIMARY KEY,
  value  json NOT NULL,
  set_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE dpe.defaults IS 'one for all actions and workflows of this installation; what lacks here is built in';

-- Of which a workflow's runs wait in line: as for actions, see 0012.
CREATE INDEX jobs_held_runs ON dpe.jobs (action_id, priority, seq)
  WHERE plan IS NOT NULL AND held AND ended_at IS NULL;
