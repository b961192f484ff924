"""Columns of Arrow as rows of COPY's binary form, without a Python object per value.

A row is the number of its fields (2 bytes), then each field as its length (4 bytes, -1 for NULL)
and its bytes; all numbers are big-endian.
Source: https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
Forms of the types: `src/backend/utils/adt/`, the functions named `…recv`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute  # its functions are made when it is imported: no checker sees them

BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, no extension
END = b"\xff\xff"

TEXTS = {"text", "character varying", "json", "jsonb"}  # sent as their text

_EPOCH_DAYS = 10_957  # from 1970-01-01 to 2000-01-01, where Postgres counts from
_DAY_US = 86_400_000_000
_EPOCH_US = _EPOCH_DAYS * _DAY_US


@dataclass(frozen=True, slots=True)
class Field:
    """A column, encoded: all values of one width, or of many.

    `fixed`: an array of (rows, width) bytes, of which those where `valid` is False count for
    nothing.  `texts`: binary values, and `prefix` bytes that stand before each of them.
    """

    fixed: np.ndarray | None = None
    valid: np.ndarray | None = None  # None: there are no NULLs
    texts: pa.Array | None = None
    prefix: bytes = b""


def field(type: str, column: pa.Array | None) -> Field | None:
    """Encode a column for a type of Postgres.

    None where that can't be done, or can't be done for these values: they go as text then.
    """
    if column is None:
        return None
    if pa.types.is_null(column.type):
        return Field(np.zeros((len(column), 0), "u1"), np.zeros(len(column), bool))
    encode = _ENCODERS.get((type, _kind(column.type)))
    if encode is None:
        return None
    if _kind(column.type) in {"string", "binary"}:
        return encode(column, None)
    valid = None if column.null_count == 0 else column.is_valid().to_numpy(zero_copy_only=False)
    return encode(column, valid)


def rows(fields: Sequence[Field], count: int) -> memoryview:
    """Put encoded columns together to `count` rows."""
    parts: list[pa.Array] = []
    run = [np.frombuffer(len(fields).to_bytes(2), "u1")[None, :]]
    for field in fields:
        for piece in _pieces(field):
            if isinstance(piece, np.ndarray):
                run.append(piece)
                continue
            if run:
                parts.append(_binary(_side_by_side(run, count)))
                run.clear()
            parts.append(piece)
    if not parts:
        return _side_by_side(run, count).data.cast("B")
    if run:
        parts.append(_binary(_side_by_side(run, count)))
    joined = pc.binary_join_element_wise(*parts, _large(b""))
    _, offsets, data = joined.buffers()
    ends = np.frombuffer(offsets, "i8")[joined.offset : joined.offset + count + 1]
    return memoryview(data)[ends[0] : ends[-1]]


def _pieces(field: Field) -> list[np.ndarray | pa.Array]:
    """The bytes of a column in the order of a row: those of one width as a matrix."""
    if field.fixed is not None:
        width = field.fixed.shape[1]
        if field.valid is None:
            return [_lengths(np.array([width])), field.fixed]
        lengths = _lengths(np.where(field.valid, width, -1))
        return [lengths, _binary(field.fixed, field.valid)]
    values: pa.Array = field.texts
    bytes_each = pc.add(pc.binary_length(values), len(field.prefix)).fill_null(-1)
    pieces = [_lengths(bytes_each.to_numpy()), values.fill_null(b"")]
    if field.prefix:
        pieces.insert(1, pc.if_else(values.is_valid(), _large(field.prefix), _large(b"")))
    return pieces


def _side_by_side(run: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Matrices of bytes as one; a matrix of one row stands in all rows.

    A seventh of the time of `np.hstack`, which copies byte by byte.
    """
    widths = [matrix.shape[1] for matrix in run]
    whole = f"V{sum(widths)}"
    forms = [f"u{width}" if width in {1, 2, 4, 8} else f"V{width}" for width in widths]
    record = np.empty(count, [(f"f{at}", form) for at, form in enumerate(forms)])
    record.view(whole)[:] = np.concatenate([matrix[0] for matrix in run]).view(whole)
    for at, (matrix, form) in enumerate(zip(run, forms, strict=True)):
        if len(matrix) > 1:
            record[f"f{at}"] = np.ascontiguousarray(matrix).reshape(-1).view(form)
    return record.view("u1").reshape(count, -1)


def _large(text: bytes) -> pa.Scalar:
    return pa.scalar(text, pa.large_binary())


def _lengths(lengths: np.ndarray) -> np.ndarray:
    return lengths.astype(">i4").view("u1").reshape(len(lengths), 4)


def _binary(matrix: np.ndarray, valid: np.ndarray | None = None) -> pa.Array:
    """A matrix of bytes as Arrow's binary values, one a row; empty ones where not `valid`."""
    widths = np.full(len(matrix), matrix.shape[1]) if valid is None else valid * matrix.shape[1]
    offsets = np.zeros(len(matrix) + 1, "i8")
    np.cumsum(widths, out=offsets[1:])
    data = np.ascontiguousarray(matrix if valid is None else matrix[valid])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_binary(), len(matrix), buffers)


def _fixed(numbers: np.ndarray, valid: np.ndarray | None, form: str) -> Field:
    data = numbers.astype(form)
    return Field(data.view("u1").reshape(len(data), data.dtype.itemsize), valid)


def _numbers(column: pa.Array) -> np.ndarray:
    """A numeric, boolean or temporal column's numbers; what stands for NULL is 0."""
    if column.null_count:
        column = column.fill_null(pa.scalar(0).cast(column.type))
    return column.to_numpy(zero_copy_only=False)


def _integers(bits: int) -> Callable[[pa.Array, np.ndarray | None], Field | None]:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def encode(column: pa.Array, valid: np.ndarray | None) -> Field | None:
        numbers = _numbers(column)
        if numbers.dtype.kind == "f":
            # Frames turn integers into floats as soon as one is missing.
            if not np.all((np.abs(numbers) < 2.0**63) & (np.trunc(numbers) == numbers)):
                return None
            numbers = numbers.astype("i8")
        if len(numbers) and (numbers.min() < low or numbers.max() > high):
            return None
        return _fixed(numbers, valid, f">i{bits // 8}")

    return encode


def _floats(form: str) -> Callable[[pa.Array, np.ndarray | None], Field | None]:
    def encode(column: pa.Array, valid: np.ndarray | None) -> Field | None:
        numbers = _numbers(column)
        if (
            numbers.dtype.kind != "f"
            and len(numbers)
            and np.abs(numbers.astype("f8")).max() > 2**53
        ):
            return None
        if form == ">f4" and numbers.dtype != np.float32:
            return None  # Postgres, too, rounds, and says so where the range is too small
        return _fixed(numbers, valid, form)

    return encode


def _numeric(column: pa.Array, valid: np.ndarray | None) -> Field | None:
    """Digits to the base 10,000: of integers, and of floats with at most four decimals."""
    numbers = _numbers(column)
    scale = np.zeros(len(numbers), "i8")
    places = 0
    if numbers.dtype.kind == "f":
        with np.errstate(over="ignore"):
            units = np.rint(numbers * 1e4)
        # Up to 15 digits a float and its shortest text are the same number.
        if not np.all((np.abs(units) < 1e15) & (units / 1e4 == numbers)):  # noqa: PLR2004
            return None
        if numbers.dtype == np.float32:
            return None
        numbers, places = units.astype("i8"), 1
        for decimals in (1, 2, 3, 4):
            scale += numbers % 10 ** (5 - decimals) != 0
    negative = numbers < 0
    rest = numbers.astype("u8")
    rest = np.where(negative, ~rest + np.uint64(1), rest)
    digits: list[np.ndarray] = []
    biggest = int(rest.max(initial=0))
    while biggest or not digits:
        rest, digit = np.divmod(rest, np.uint64(10_000))
        digits.append(digit)
        biggest //= 10_000
    if len(digits) < 1 + places:
        digits.append(np.zeros_like(rest))
    data = np.empty((len(numbers), 4 + len(digits)), ">i2")
    data[:, 0] = len(digits)
    data[:, 1] = len(digits) - 1 - places  # weight of the first digit; leading zeros are taken off
    data[:, 2] = np.where(negative, 0x4000, 0)
    data[:, 3] = scale
    for at, digit in enumerate(reversed(digits), 4):
        data[:, at] = digit
    return Field(data.view("u1").reshape(len(data), -1), valid)


def _boolean(column: pa.Array, valid: np.ndarray | None) -> Field | None:
    return _fixed(_numbers(column), valid, "u1")


def _microseconds(column: pa.Array) -> np.ndarray:
    unit = column.type.unit
    numbers = column.view(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    if unit == "ns":
        return numbers // 1_000
    return pc.multiply_checked(
        pa.array(numbers), {"s": 10**6, "ms": 10**3, "us": 1}[unit]
    ).to_numpy()


def _timestamp(column: pa.Array, valid: np.ndarray | None) -> Field | None:
    return _fixed(_microseconds(column) - _EPOCH_US, valid, ">i8")


def _day(column: pa.Array, valid: np.ndarray | None) -> Field | None:
    return _fixed(_microseconds(column) // _DAY_US - _EPOCH_DAYS, valid, ">i4")


def _text(prefix: bytes = b"") -> Callable[[pa.Array, np.ndarray | None], Field | None]:
    def encode(column: pa.Array, _valid: np.ndarray | None) -> Field | None:
        return Field(texts=column.cast(pa.large_binary()), prefix=prefix)

    return encode


def _day_text(column: pa.Array, _valid: np.ndarray | None) -> Field | None:
    """Dates as text, all of the form 2020-05-21."""
    try:
        days = column.cast(pa.date32())
    except pa.ArrowInvalid:
        return None
    valid = None if days.null_count == 0 else days.is_valid().to_numpy(zero_copy_only=False)
    numbers = days.view(pa.int32()).fill_null(0).to_numpy(zero_copy_only=False)
    return _fixed(numbers - _EPOCH_DAYS, valid, ">i4")


def _kind(type: pa.DataType) -> str:
    for kind, tests in _KINDS.items():
        if any(test(type) for test in tests):
            return kind
    return "other"


_KINDS: dict[str, list[Callable[[pa.DataType], bool]]] = {
    "string": [pa.types.is_string, pa.types.is_large_string],
    "integer": [pa.types.is_signed_integer, lambda given: given in _UNSIGNED],
    "float": [lambda given: given in {pa.float32(), pa.float64()}],
    "boolean": [pa.types.is_boolean],
    "timestamp": [pa.types.is_timestamp],
    "binary": [pa.types.is_binary, pa.types.is_large_binary],
}
_UNSIGNED = {pa.uint8(), pa.uint16(), pa.uint32()}

_ENCODERS: dict[tuple[str, str], Callable[[pa.Array, np.ndarray | None], Field | None]] = {
    ("boolean", "boolean"): _boolean,
    ("smallint", "integer"): _integers(16),
    ("integer", "integer"): _integers(32),
    ("bigint", "integer"): _integers(64),
    ("smallint", "float"): _integers(16),
    ("integer", "float"): _integers(32),
    ("bigint", "float"): _integers(64),
    ("real", "float"): _floats(">f4"),
    ("double precision", "float"): _floats(">f8"),
    ("double precision", "integer"): _floats(">f8"),
    ("numeric", "integer"): _numeric,
    ("numeric", "float"): _numeric,
    ("timestamp without time zone", "timestamp"): _timestamp,
    ("timestamp with time zone", "timestamp"): _timestamp,
    ("date", "timestamp"): _day,
    ("date", "string"): _day_text,
    ("text", "string"): _text(),
    ("character varying", "string"): _text(),
    ("json", "string"): _text(),
    ("jsonb", "string"): _text(b"\1"),  # the number of the form
    ("bytea", "binary"): _text(),
}
