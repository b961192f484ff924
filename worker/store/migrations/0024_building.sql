-- A claimed job whose action asks for packages is BUILDING until they are installed.

ALTER TABLE dpe.jobs ADD COLUMN building integer;
COMMENT ON COLUMN dpe.jobs.building IS 'the attempt whose environment is being built; while it runs, it shows as BUILDING';
