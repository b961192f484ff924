"""Which datasets there are, and which of them an address means."""

import psycopg

from worker.errors import DatasetError
from worker.lakehouse.transaction import running_job, turn
from worker.settings import current_settings

# Datasets seen so far: one that was dropped since is noticed by its missing tables.
_known: list[str] = []


def dataset_at(path: str) -> str:
    """The dataset's name for an address as `connect` takes it; raises DatasetError."""
    parts = [part for part in str(path).split("/") if part]
    if parts and parts[0].startswith("data_store"):
        raise DatasetError(
            f"connect({path!r}): file buckets are not available yet",
            'datasets are: connect("dwh/<dataset>/")',
        )
    if not parts or parts[0] != "dwh" or len(parts) > 3:  # noqa: PLR2004
        raise DatasetError(
            f'connect({path!r}): the address must be "dwh/<dataset>/" or "dwh/<dataset>/<table>"'
        )
    name = parts[1] if len(parts) > 1 else "default_dataset"
    if name == "default_dataset":
        name = current_settings().default_dataset
    found = _resolve(name, _known)
    if found is None:
        with turn:
            _known[:] = datasets(running_job().conn)
        found = _resolve(name, _known)
    if found is None:
        raise DatasetError(
            f"connect({path!r}): there is no dataset {name!r};"
            f" the known ones: {', '.join(_known) or 'none yet'}",
            "a dataset is there once a table of it is built: dpe table build FILE.json",
        )
    return found


def datasets(conn: psycopg.Connection) -> list[str]:
    """Names of the datasets: the schemas that are neither Postgres' nor the engine's."""
    rows = conn.execute(
        """
        SELECT nspname FROM pg_namespace
        WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('information_schema', 'public', 'dpe')
        ORDER BY nspname
        """
    ).fetchall()
    return [name for (name,) in rows]


def _resolve(name: str, known: list[str]) -> str | None:
    if name in known:
        return name
    # db_<project>_<dataset>: the project's name may have underscores, the dataset's as well.
    ends = [d for d in known if name.startswith("db_") and name.endswith(f"_{d}")]
    return max(ends, key=len, default=None)
