"""What the commands print: tables and colour on a terminal, plain aligned text and JSON elsewhere.

Data goes to stdout, everything else (progress, hints, errors) to stderr, so that a pipe gets the
data alone.  Rich is imported where it is needed only: it is half of what `dpe` takes to start.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

COLOURS = {
    "SUCCESS": "green",
    "FAILED": "red",
    "TIMEOUT": "red",
    "STOPPED": "yellow",
    "BUILDING": "cyan",
    "PROCESSING": "cyan",
}
MINUTE_S = 60


def print_json(data: Any) -> None:
    """Print exactly one JSON document, and nothing else, on stdout."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print rows under their headers; `empty` goes to stderr where there are none."""
    texts = [[_text(cell) for cell in row] for row in rows]
    if not texts:
        click.echo(empty, err=True)
        return
    if sys.stdout.isatty():
        _print_rich(headers, texts)
        return
    widths = [max(map(len, column)) for column in zip(headers, *texts, strict=True)]
    for row in (headers, *texts):
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _print_rich(headers: Sequence[str], rows: list[list[str]]) -> None:
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    Console().print(table)


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Print one `name  value` line a field; fields whose value is None are left out."""
    shown = [(name, _text(value)) for name, value in fields if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        first, *rest = value.splitlines() or [""]
        click.echo(f"{bold(name.ljust(width))}  {coloured(first)}".rstrip())
        for line in rest:
            click.echo(" " * (width + 2) + line)


def note(text: str) -> None:
    """Say something that is not data."""
    click.echo(text, err=True)


def fail(message: str, hint: str = "") -> None:
    """Say what went wrong in one line, and what to do next."""
    line = " ".join(message.split())
    click.echo(f"dpe: {line}" + (f" ({hint})" if hint else ""), err=True)


def print_job(job: dict[str, Any]) -> None:
    """Print one job as fields, its error's traceback last."""
    error = job.get("error") or {}
    print_fields(
        [
            ("execution_id", job["execution_id"]),
            (job["type"], f"{job['name']} ({job['id']}, version {job['version']})"),
            ("step of", job.get("run_id") and f"{job['run_id']}: {job['step']}"),
            ("status", job["status"]),
            ("attempt", job["attempt"] or None),
            ("retry_of", job.get("retry_of")),
            ("accepted", utc_time(job["submitted_at"])),
            ("started", utc_time(job.get("started_at"))),
            ("ended", utc_time(job.get("ended_at"))),
            ("took", lasted(job.get("duration"))),
            ("result", job.get("result")),
            *(("wrote", stats) for stats in job.get("stats") or []),
            ("error", f"{error['type']}: {error['message']}" if error else None),
            ("traceback", error.get("traceback")),
        ]
    )
    if "steps" in job:
        print_steps(job["steps"])


def print_steps(steps: list[dict[str, Any]]) -> None:
    """Print the steps of a run: one line for each execution, or for why there is none."""
    rows: list[tuple[Any, ...]] = []
    for step in steps:
        why = step["skipped"] and f"skipped: {step['skipped']}"
        first = (step["stage"], step["step"])
        for one in step["executions"]:
            rows.append((*first, one["status"], one["execution_id"][:7], one["item"]))
        if not step["executions"]:
            rows.append((*first, why or step["status"] or "waits", "", step["error"]))
    print_table(["STAGE", "STEP", "STATUS", "JOB", ""], rows, empty="no steps")


def log_line(line: dict[str, Any]) -> str:
    """`2026-05-21 11:34:23.512 INFO    words`"""
    at = datetime.fromisoformat(line["at"]).astimezone(UTC)
    stamp = at.strftime("%Y-%m-%d %H:%M:%S.") + f"{at.microsecond // 1000:03d}"
    return f"{stamp} {line['level'].upper():<8} {line['message']}"


def bold(text: str) -> str:
    """The text as a heading where stdout is a terminal."""
    return click.style(text, bold=True) if sys.stdout.isatty() else text


def coloured(status: str) -> str:
    """A status in its colour where stdout is a terminal; any other text as it is."""
    colour = COLOURS.get(status)
    return click.style(status, fg=colour) if colour and sys.stdout.isatty() else status


def utc_time(text: str | None) -> str | None:
    """`2026-05-21T11:34:23.5Z` → `2026-05-21 11:34:23`, in UTC as every time of the engine."""
    if not text:
        return None
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def lasted(seconds: float | None) -> str | None:
    """`0.256 s`, `3 min 2 s`."""
    if seconds is None:
        return None
    if seconds < MINUTE_S:
        return f"{seconds:.3f} s"
    return f"{int(seconds // MINUTE_S)} min {int(seconds % MINUTE_S)} s"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def confirm(question: str) -> None:
    """Ask on a terminal, and stop at a no; a script has made up its mind."""
    if sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)
