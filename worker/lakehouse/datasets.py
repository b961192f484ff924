"""Which datasets there are, which of them an address means, and what SQL they speak."""

import time

import psycopg

from worker.errors import DatasetError
from worker.lakehouse.other_servers import datasets_elsewhere, main_connection
from worker.lakehouse.transaction import running_job, turn
from worker.settings import current_settings
from worker.store import datasets as store

# Datasets seen so far: one that was dropped since is noticed by its missing tables.
_known: list[str] = []

DIALECT_KEPT_S = 1.0  # so long after a change a process may go on with the one before
_dialects: dict[str, tuple[str, float]] = {}  # with the time when it was read


def dataset_at(path: str) -> str:
    """The dataset's name for an address as `connect` takes it; raises DatasetError."""
    parts = [part for part in str(path).split("/") if part]
    if not parts or parts[0] != "dwh" or len(parts) > 3:  # noqa: PLR2004
        raise DatasetError(
            f'connect({path!r}): the address must be "dwh/<dataset>/" or "dwh/<dataset>/<table>",'
            ' or "data_store/<bucket>" for files'
        )
    name = parts[1] if len(parts) > 1 else "default_dataset"
    if name == "default_dataset":
        name = current_settings().default_dataset
    found = _resolve(name, _known)
    if found is None:
        with turn:
            _known[:] = sorted({*datasets(main_connection()), *datasets_elsewhere()})
        found = _resolve(name, _known)
    if found is None:
        raise DatasetError(
            f"connect({path!r}): there is no dataset {name!r};"
            f" the known ones: {', '.join(_known) or 'none yet'}",
            "a dataset is there once a table of it is built: dpe table build FILE.json",
        )
    return found


def known_datasets() -> tuple[str, ...]:
    """Names of the datasets, as far as they have been looked at."""
    if not _known:
        with turn:
            _known[:] = sorted({*datasets(main_connection()), *datasets_elsewhere()})
    return tuple(_known)


def dialect(dataset: str) -> str:
    """What SQL the dataset speaks: `postgres` or `trino`."""
    kept, read_at = _dialects.get(dataset, ("", 0.0))
    now = time.monotonic()
    if not kept or now - read_at > DIALECT_KEPT_S:
        with turn:
            kept = store.dialect(running_job().conn, dataset)
        _dialects[dataset] = kept, now
    return kept


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
