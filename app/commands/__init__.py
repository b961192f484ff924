"""The commands that talk to the API, one module a noun; each imports what it needs when it runs."""
