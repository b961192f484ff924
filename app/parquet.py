"""Rows as a Parquet file, written piece by piece as they come: no more is held than a row group."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from worker.store import table_rows
from worker.store.catalogue import Standing
from worker.store.table_rows import Field

GROUP_BYTES = 8_000_000  # of a row group, in memory
BATCH_BYTES = 2_000_000  # of what is fetched at once, as far as the rows before tell
MOST_ROWS = 50_000
FASTER = 8  # times as many rows as before, at most: the next ones may be larger

_TYPES: dict[str, pa.DataType] = {
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "binary": pa.large_binary(),
    "string": pa.large_string(),
    "date": pa.date32(),
    "time": pa.timestamp("us"),
    "instant": pa.timestamp("us", tz="UTC"),
}
_NUMBERS = {"date": pa.int32(), "time": pa.int64(), "instant": pa.int64()}  # as they are fetched


class _Sink:
    """What the writer takes for a file: keeps what is written until it is sent."""

    closed = False

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> int:
        self._waiting.append(bytes(data))
        self._size += len(self._waiting[-1])
        return len(self._waiting[-1])

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Nothing to be done."""

    def close(self) -> None:
        self.closed = True

    def taken(self) -> bytes:
        data = b"".join(self._waiting)
        self._waiting.clear()
        return data


def parquet(conn: psycopg.Connection, table: Standing, limit: int | None) -> Iterator[bytes]:
    """The file's bytes in order.  `conn` must show the same rows to all statements."""
    columns = table_rows.fields(conn, table)
    schema = pa.schema([pa.field(column.name, _type(column)) for column in columns])
    sink = _Sink()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        group: list[pa.Table] = []
        for batch in _batches(conn, table, columns, schema, limit):
            group.append(batch)
            if sum(part.nbytes for part in group) >= GROUP_BYTES:
                writer.write_table(pa.concat_tables(group))
                group.clear()
                yield sink.taken()
        if group:
            writer.write_table(pa.concat_tables(group))
    yield sink.taken()


def _batches(
    conn: psycopg.Connection,
    table: Standing,
    columns: list[Field],
    schema: pa.Schema,
    limit: int | None,
) -> Iterator[pa.Table]:
    count = 1
    with table_rows.batches(conn, table, columns, limit) as cursor:
        while rows := cursor.fetchmany(count):
            values = zip(*rows, strict=True)
            arrays = [
                _array(column, list(found)) for column, found in zip(columns, values, strict=True)
            ]
            batch = pa.Table.from_arrays(arrays, schema=schema)
            yield batch
            fitting = BATCH_BYTES * len(rows) // max(batch.nbytes, 1)
            count = max(1, min(fitting, FASTER * len(rows), MOST_ROWS))


def _type(column: Field) -> pa.DataType:
    if column.kind != "decimal":
        return _TYPES[column.kind]
    make = pa.decimal128 if column.precision <= 38 else pa.decimal256  # noqa: PLR2004
    return make(column.precision, column.scale)


def _array(column: Field, values: list[Any]) -> pa.Array:
    if column.kind in _NUMBERS:
        return pa.array(values, _NUMBERS[column.kind]).cast(_TYPES[column.kind])
    return pa.array(values, _type(column))
