"""`from forepaas.core.settings import PARAMS, CONFIG`: filled before `main.py` is imported."""

from typing import Any

PARAMS: dict[str, Any] = {}
CONFIG: dict[str, Any] = {}
