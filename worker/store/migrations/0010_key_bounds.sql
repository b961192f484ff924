-- What a key may do within its role's permissions: how often, on what, and from where.

ALTER TABLE dpe.keys
  ADD COLUMN starts_per_s double precision CONSTRAINT keys_rate_is_positive CHECK (starts_per_s > 0),
  ADD COLUMN only_ids     text[],
  ADD COLUMN networks     cidr[];
COMMENT ON COLUMN dpe.keys.starts_per_s IS 'null: as DPE_MAX_STARTS_PER_S says';
COMMENT ON COLUMN dpe.keys.only_ids IS 'actions and workflows that it may start and stop; null: all';
COMMENT ON COLUMN dpe.keys.networks IS 'addresses that its calls may come from; null: any';
