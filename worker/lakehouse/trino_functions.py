"""Trino's functions and casts in Postgres' words, where sqlglot has none or other ones.

What counts is that the same statement gives the same values: where Postgres knows a function of
that name which gives others (GREATEST with NULL, EXTRACT's type, AT TIME ZONE), it is said anew.
Source: https://trino.io/docs/current/functions.html
"""

import re
from typing import Any

from sqlglot import exp
from sqlglot.dialects.postgres import Postgres

from worker.lakehouse.trino_times import TIMES, Refused, Words, is_date, template, wrapped


def _try_cast(generator: Any, node: exp.TryCast) -> str:
    value, type = generator.sql(node, "this"), generator.sql(node, "to")
    # Text that is no such value gives NULL; a value of another type is cast as it would be.
    cast = (
        "CASE WHEN PG_INPUT_IS_VALID(CAST({0} AS TEXT), '{1}') THEN CAST(CAST({0} AS TEXT) AS {1})"
        " WHEN CAST(PG_TYPEOF({0}) AS TEXT) NOT IN"
        " ('unknown', 'text', 'character varying', 'character') THEN CAST({0} AS {1}) END"
    )
    if node.find(exp.Column):
        return cast.format(value, type)
    # A constant would be cast when the statement is planned, whatever CASE says.
    return f"(SELECT {cast.format('c.v', type)} FROM (SELECT {value} AS v OFFSET 0) AS c)"  # noqa: S608 -- SQL from SQL


def _try(generator: Any, node: exp.Try) -> str:
    if type(node.this) is exp.Cast:
        return _try_cast(generator, exp.TryCast(this=node.this.this, to=node.this.to))
    raise Refused("TRY of anything but a CAST")


def _none_if_any_is_null(generator: Any, node: exp.Greatest | exp.Least) -> str:
    values = [wrapped(generator, value) for value in [node.this, *node.expressions]]
    missing = " OR ".join(f"{value} IS NULL" for value in values)
    name = "GREATEST" if isinstance(node, exp.Greatest) else "LEAST"
    return f"CASE WHEN {missing} THEN NULL ELSE {name}({', '.join(values)}) END"


def _substring(generator: Any, node: exp.Substring) -> str:
    start, length = node.args.get("start"), node.args.get("length")
    if isinstance(start, exp.Neg):
        count = generator.sql(start.this)
        text = f"RIGHT({generator.sql(node, 'this')}, {count})"
        return text if length is None else f"LEFT({text}, {generator.sql(length)})"
    return f"SUBSTR({generator.format_args(node.this, start, length)})"


def _bracket(generator: Any, node: exp.Bracket) -> str:
    array, (index,) = node.this, node.expressions
    if not isinstance(array, exp.Column | exp.Paren):
        array = exp.Paren(this=array)  # a function's array has an element in parentheses only
    if isinstance(index, exp.Neg):  # from the end
        text = generator.sql(array)
        return f"{text}[CARDINALITY({text}) + 1 + {generator.sql(index)}]"
    node = node.copy()
    node.set("this", array.copy())
    return generator.bracket_sql(node)


def _regexp_replace(generator: Any, node: exp.RegexpReplace) -> str:
    new = node.args.get("replacement")
    if isinstance(new, exp.Literal) and new.is_string:  # groups are $1 there and \1 here
        text = re.sub(r"\$(\d)", r"\\\1", new.this.replace("\\", "\\\\"))
        new = exp.Literal.string(text)
    elif new is None:
        new = exp.Literal.string("")
    return f"REGEXP_REPLACE({generator.format_args(node.this, node.expression, new)}, 'g')"


def _regexp_extract(generator: Any, node: exp.RegexpExtract) -> str:
    group = generator.sql(node, "group") or "0"
    args = generator.format_args(node.this, node.expression)
    return f"REGEXP_SUBSTR({args}, 1, 1, '', {group})"


def _json_path(name: str) -> Words:
    """By its path, as JSON or as text: of JSON, or of a text that holds some, as is usual there."""

    def words(generator: Any, node: exp.Expr) -> str:
        path = node.args.get("expression")
        if not isinstance(path, exp.JSONPath):
            raise Refused("a JSON path that is not written out")
        steps = []
        for part in path.expressions:
            if isinstance(part, exp.JSONPathRoot):
                continue
            if not isinstance(part, exp.JSONPathKey | exp.JSONPathSubscript):
                raise Refused(f"a JSON path with {part.sql()!r} in it")
            steps.append(generator.sql(exp.Literal.string(str(part.this))))
        value = f"CAST({generator.sql(node, 'this')} AS JSON)"
        return f"{name}({', '.join([value, *steps])})"

    return words


def _sequence(generator: Any, node: exp.GenerateSeries) -> str:
    start, end, step = (node.args.get(name) for name in ("start", "end", "step"))
    texts = [generator.sql(part) for part in (start, end, step) if part is not None]
    if is_date(start):
        texts[:2] = [f"CAST({text} AS TIMESTAMP)" for text in texts[:2]]
        days = texts if step else [*texts, "INTERVAL '1 DAY'"]
        return f"ARRAY(SELECT CAST(GENERATE_SERIES({', '.join(days)}) AS DATE))"
    return f"ARRAY(SELECT GENERATE_SERIES({', '.join(texts)}))"


def _anonymous(generator: Any, node: exp.Anonymous) -> str:
    words = ANONYMOUS.get(node.name.lower())
    if words is None:
        return generator.anonymous_sql(node)
    return words.format(*(wrapped(generator, part) for part in node.expressions))


def _single(name: str) -> Words:
    def words(generator: Any, node: exp.Expr) -> str:
        if node.args.get("expressions"):  # the n largest there, and sqlglot's GREATEST
            raise Refused(f"{name}() of two arguments")
        return f"{name.upper()}({generator.sql(node, 'this')})"

    return words


def _by(order: str) -> Words:
    return template(
        f"(ARRAY_AGG({{this}} ORDER BY {{expression}} {order})"
        " FILTER (WHERE {expression} IS NOT NULL))[1]"
    )


def _sha2(generator: Any, node: exp.SHA2Digest) -> str:
    return f"SHA{node.text('length') or '256'}({generator.sql(node, 'this')})"


def _random(generator: Any, node: exp.Rand) -> str:
    most = generator.sql(node, "this")
    return f"CAST(FLOOR(RANDOM() * ({most})) AS BIGINT)" if most else "RANDOM()"


def _log(generator: Any, node: exp.Log) -> str:
    base, value = generator.sql(node, "this"), generator.sql(node, "expression")
    return f"CAST(LOG(CAST({base} AS DECIMAL), CAST({value} AS DECIMAL)) AS DOUBLE PRECISION)"


# Functions that sqlglot does not know as such.
ANONYMOUS = {
    "json_array_length": "JSON_ARRAY_LENGTH(CAST({0} AS JSON))",
    "e": "CAST(EXP(1) AS DOUBLE PRECISION)",
    "infinity": "CAST('Infinity' AS DOUBLE PRECISION)",
    "nan": "CAST('NaN' AS DOUBLE PRECISION)",
    "codepoint": "ASCII({0})",
    "at_timezone": "(CAST({0} AS TIMESTAMPTZ) AT TIME ZONE {1})",
    "with_timezone": "(CAST({0} AS TIMESTAMP) AT TIME ZONE {1})",
    "arrays_overlap": "({0} && {1})",
}

_REFUSED = {
    exp.Map: "a map",
    exp.StrToMap: "a map",
    exp.Struct: "a row as a value",
    exp.Transform: "transform()",
    exp.Reduce: "reduce()",
    exp.SHA: "sha1()",
    exp.Typeof: "typeof()",
    exp.Version: "FOR VERSION or TIMESTAMP AS OF",
}


def _refuse(what: str) -> Words:
    def words(generator: Any, node: Any) -> str:
        raise Refused(what)

    return words


class PostgresWords(Postgres):
    """Postgres as sqlglot writes it, for statements that were Trino's."""

    class Generator(Postgres.Generator):
        """With the words of this module."""

        TRANSFORMS = {  # noqa: RUF012 -- sqlglot's own way
            **Postgres.Generator.TRANSFORMS,
            **TIMES,
            **{kind: _refuse(what) for kind, what in _REFUSED.items()},
            exp.TryCast: _try_cast,
            exp.Try: _try,
            exp.ApproxDistinct: template("COUNT(DISTINCT {this})"),
            exp.ApproxQuantile: template(
                "PERCENTILE_DISC({quantile}) WITHIN GROUP (ORDER BY {this})"
            ),
            exp.ArgMax: _by("DESC"),
            exp.ArgMin: _by("ASC"),
            exp.Max: _single("max"),
            exp.Min: _single("min"),
            exp.CountIf: template("COUNT(*) FILTER (WHERE {this})"),
            exp.Greatest: _none_if_any_is_null,
            exp.Least: _none_if_any_is_null,
            exp.Substring: _substring,
            exp.Bracket: _bracket,
            exp.Split: template("STRING_TO_ARRAY({this}, {expression})"),
            exp.RegexpExtract: _regexp_extract,
            exp.RegexpReplace: _regexp_replace,
            exp.JSONExtract: _json_path("JSON_EXTRACT_PATH"),
            exp.JSONExtractScalar: _json_path("JSON_EXTRACT_PATH_TEXT"),
            exp.JSONFormat: template("CAST({this} AS TEXT)"),
            exp.ArraySize: template("CARDINALITY({this})"),
            exp.ArrayDistinct: template("ARRAY(SELECT DISTINCT UNNEST({this}))"),
            exp.ArraySort: template("ARRAY(SELECT v FROM UNNEST({this}) AS v ORDER BY v)"),
            exp.ArrayMax: template("(SELECT MAX(v) FROM UNNEST({this}) AS v)"),
            exp.ArrayMin: template("(SELECT MIN(v) FROM UNNEST({this}) AS v)"),
            exp.ArraySlice: template("({this})[{start}:{start} + {end} - 1]"),
            exp.GenerateSeries: _sequence,
            exp.Rand: _random,
            exp.Log: _log,
            exp.IsNan: template("({this} = 'NaN')"),
            exp.Hex: template("UPPER(ENCODE({this}, 'hex'))"),
            exp.LowerHex: template("ENCODE({this}, 'hex')"),
            exp.MD5Digest: template("DECODE(MD5({this}), 'hex')"),
            exp.SHA2Digest: _sha2,
            exp.Encode: template("CONVERT_TO({this}, 'UTF8')"),
            exp.Decode: template("CONVERT_FROM({this}, 'UTF8')"),
            exp.ToBase64: template("TRANSLATE(ENCODE({this}, 'base64'), CHR(10), '')"),
            exp.FromBase64: template("DECODE({this}, 'base64')"),
            exp.Anonymous: _anonymous,
        }
