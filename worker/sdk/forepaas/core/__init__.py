"""`forepaas.core.settings`: the parameters and the context of a run."""
