"""What stands in Postgres: one module a noun, one function a statement, `conn` first."""
