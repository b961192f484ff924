"""`from forepaas.worker.settings import PARAMS, CONFIG`: the same dicts as `core.settings`."""

from forepaas.core.settings import CONFIG, PARAMS

__all__ = ["CONFIG", "PARAMS"]
