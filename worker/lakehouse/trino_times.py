"""Trino's dates and times in Postgres' words, and what all such translations are made of."""

from collections.abc import Callable
from typing import Any

from sqlglot import exp

Words = Callable[[Any, Any], str]

_DAY_S = 86_400
_SECONDS = {"MILLISECOND": 0.001, "SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": _DAY_S,
            "WEEK": 7 * _DAY_S}  # fmt: skip
_MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}
_DATE_UNITS = {"DAY", "WEEK", "MONTH", "QUARTER", "YEAR"}
_PARTS = {"DAY_OF_WEEK": "ISODOW", "DOW": "ISODOW", "DAY_OF_YEAR": "DOY", "DAY_OF_MONTH": "DAY",
          "YEAR_OF_WEEK": "ISOYEAR", "YOW": "ISOYEAR"}  # fmt: skip


class Refused(Exception):
    """What has no counterpart in Postgres; the text names it."""


def template(text: str) -> Words:
    """Words with the node's parts in them, by sqlglot's names: `{this}`, `{expression}`, …."""

    def words(generator: Any, node: exp.Expr) -> str:
        parts = {
            name: generator.sql(node, name)
            for name in node.args
            if isinstance(node.args[name], exp.Expr)
        }
        return text.format(**parts)

    return words


def wrapped(generator: Any, node: exp.Expr) -> str:
    """A part in parentheses, where what stands beside it could take it apart."""
    sql = generator.sql(node)
    whole = isinstance(node, exp.Column | exp.Literal | exp.Func)
    # AND and OR are functions to sqlglot as well.
    return sql if whole and not isinstance(node, exp.Binary) else f"({sql})"


def _part(name: str) -> Words:
    value = f"EXTRACT({name} FROM {{this}})"
    return template(f"CAST({f'FLOOR({value})' if name == 'SECOND' else value} AS BIGINT)")


def _extract(generator: Any, node: exp.Extract) -> str:
    name = node.name.upper()
    value = f"EXTRACT({_PARTS.get(name, name)} FROM {generator.sql(node, 'expression')})"
    return f"CAST({f'FLOOR({value})' if name == 'SECOND' else value} AS BIGINT)"


def _unit(node: exp.Expr) -> str:
    unit = node.args.get("unit")
    return unit.name.upper().removesuffix("S") if unit is not None else "DAY"


def is_date(node: Any) -> bool:
    """Whether it is plain that a value is a DATE: what Trino makes of one is one, too."""
    match node:
        case exp.CurrentDate() | exp.Date() | exp.FromISO8601Date() | exp.LastDay():
            return True
        case exp.Cast():
            return node.is_type(exp.DataType.Type.DATE)
        case exp.Paren():
            return is_date(node.this)
        case exp.Add() | exp.Sub():
            sides = node.this, node.expression
            return any(map(is_date, sides)) and any(
                isinstance(side, exp.Interval) and _unit(side) in _DATE_UNITS for side in sides
            )
        case exp.DateAdd() | exp.DateTrunc() | exp.TimestampTrunc():
            return is_date(node.this)
    return False


def _date_kept(generator: Any, node: exp.Expr) -> str:
    """Postgres makes a timestamp of a date and an interval, and a number of two dates."""
    if isinstance(node, exp.Sub) and is_date(node.this) and is_date(node.expression):
        return f"(({generator.binary(node, '-')}) * INTERVAL '1 DAY')"
    sql = generator.binary(node, "+" if isinstance(node, exp.Add) else "-")
    return f"CAST({sql} AS DATE)" if is_date(node) else sql


def _date_add(generator: Any, node: exp.DateAdd) -> str:
    unit, count = _unit(node), generator.sql(node, "expression")
    if unit == "QUARTER":
        unit, count = "MONTH", f"3 * ({count})"
    value = f"{wrapped(generator, node.this)} + INTERVAL '1 {unit}' * ({count})"
    return f"CAST({value} AS DATE)" if is_date(node) else f"({value})"


def _date_diff(generator: Any, node: exp.DateDiff) -> str:
    """Whole units from `expression` to `this`: what is only begun doesn't count."""
    unit = _unit(node)
    since = f"CAST({generator.sql(node, 'expression')} AS TIMESTAMP)"
    until = f"CAST({generator.sql(node, 'this')} AS TIMESTAMP)"
    if unit in _SECONDS:
        return f"CAST(TRUNC(EXTRACT(EPOCH FROM {until} - {since}) / {_SECONDS[unit]}) AS BIGINT)"
    if unit not in _MONTHS:
        raise Refused(f"date_diff in the unit {unit.lower()!r}")
    age = f"AGE({until}, {since})"
    months = f"EXTRACT(YEAR FROM {age}) * 12 + EXTRACT(MONTH FROM {age})"
    return f"CAST(TRUNC(({months}) / {_MONTHS[unit]}) AS BIGINT)"


def _date_trunc(generator: Any, node: exp.DateTrunc | exp.TimestampTrunc) -> str:
    # A date alone would become a timestamp with time zone.
    value = f"DATE_TRUNC('{_unit(node)}', CAST({generator.sql(node, 'this')} AS TIMESTAMP))"
    return f"CAST({value} AS DATE)" if is_date(node) else value


TIMES: dict[type[exp.Expr], Words] = {
    exp.Year: _part("YEAR"),
    exp.Quarter: _part("QUARTER"),
    exp.Month: _part("MONTH"),
    exp.WeekOfYear: _part("WEEK"),
    exp.Day: _part("DAY"),
    exp.DayOfMonth: _part("DAY"),
    exp.DayOfWeekIso: _part("ISODOW"),
    exp.DayOfYear: _part("DOY"),
    exp.YearOfWeek: _part("ISOYEAR"),
    exp.Hour: _part("HOUR"),
    exp.Minute: _part("MINUTE"),
    exp.Second: _part("SECOND"),
    exp.Extract: _extract,
    exp.Add: _date_kept,
    exp.Sub: _date_kept,
    exp.DateAdd: _date_add,
    exp.DateDiff: _date_diff,
    exp.DateTrunc: _date_trunc,
    exp.TimestampTrunc: _date_trunc,
    exp.StrToTime: lambda self, e: (
        f"CAST(TO_TIMESTAMP({self.sql(e, 'this')}, {self.format_time(e)}) AS TIMESTAMP)"
    ),
    exp.AtTimeZone: template("(CAST({this} AS TIMESTAMPTZ) AT TIME ZONE {zone})"),
}
