"""`from forepaas.core.settings import PARAMS, CONFIG`: filled before `main.py` is imported."""

from typing import Any

PARAMS: dict[str, Any] = {}
CONFIG: dict[str, Any] = {}


def __getattr__(name: str) -> Any:
    if name == "ML_CONFIG":
        raise ImportError("ML_CONFIG: the platform's machine learning is not part of open-dpe")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
