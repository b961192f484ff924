-- The files of a job whose rows are about to be committed elsewhere: owed once they are.

ALTER TABLE dpe.commits_elsewhere ADD COLUMN file_moves json NOT NULL DEFAULT '[]';
COMMENT ON COLUMN dpe.commits_elsewhere.file_moves IS '[[target, source], …] in their order; see dpe.file_moves';
