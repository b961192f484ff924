"""The command `dpe`: the roles, one process each, and the commands for those who use them.

Its start must be quick: here and in `app.commands` nothing heavy is imported but inside the
command that needs it.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress

import click

from app import terminal
from app.commands.action import action
from app.commands.audit import audit
from app.commands.configuration import export, import_
from app.commands.dataset import dataset
from app.commands.environment import environment
from app.commands.healthy import healthy
from app.commands.job import job
from app.commands.key import key, token
from app.commands.migrate import migrate
from app.commands.secret import secret
from app.commands.settings import settings
from app.commands.start import start
from app.commands.table import table
from app.commands.trigger import trigger
from app.commands.workflow import workflow
from app.terminal import json_option
from worker.errors import DpeError
from worker.settings import Settings

INTERRUPTED = 130  # as a shell says it: 128 + SIGINT
USAGE_ERROR = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="open-dpe", message="%(prog)s %(version)s")
@click.option("--traceback", is_flag=True, help="Show where an unexpected error came from.")
def dpe(traceback: bool) -> None:
    """Open event-action engine: an HTTP call starts a Python action on the rows that it carries.

    Everything is set by DPE_* variables.  What they leave out, the client commands take from the
    stack that `dpe up` started under DPE_HOME (./.dpe).

    \b
    Example:
      dpe up                                       the whole stack on this machine
      dpe table build table.json                   a table for the rows
      dpe action push ./archive                    the code that takes them
      dpe start action ID --data @rows.json --wait
    """


for command in (
    dataset,
    table,
    action,
    workflow,
    trigger,
    secret,
    environment,
    audit,
    key,
    token,
    start,
    job,
    export,
    import_,
    migrate,
    settings,
    healthy,
):
    dpe.add_command(command)


@dpe.command()
@click.option(
    "--port", metavar="N", type=click.IntRange(1, 65535), help="Of the API; default DPE_PORT, 8080."
)
@click.option(
    "--workers", metavar="N", type=click.IntRange(1), help="Jobs at a time; default DPE_WORKERS."
)
@click.option("--no-flower", is_flag=True, help="Leave Flower out.")
@click.option("--demo", is_flag=True, help="Then show one start call become rows.")
def up(port: int | None, workers: int | None, no_flower: bool, demo: bool) -> None:
    """Run the whole stack on this machine, until Ctrl-C.

    These are: PostgreSQL, a Redis-protocol broker, the API, a worker, and Flower.

    PostgreSQL and the broker are started under DPE_HOME unless DPE_DATABASE_URL and
    DPE_BROKER_URL name others.  A process that dies is started again.

    \b
    Example:
      dpe up --port 8081 --workers 4
    """
    from app import stack

    given = {"DPE_PORT": port, "DPE_WORKERS": workers}
    environ = _without_own_addresses(os.environ)
    environ |= {name: str(value) for name, value in given.items() if value is not None}
    stack.up(Settings.from_environ(environ), flower=not no_flower, demo=demo)


def _without_own_addresses(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what `eval "$(dpe env)"` put there about the embedded servers.

    In such a shell `dpe up` must start them, not look for them as if they were somebody else's.
    """
    from app.embedded import Postgres, Valkey

    home = Settings.from_environ(environ).home
    own: dict[str, str] = {}
    for name, server in (("DPE_DATABASE_URL", Postgres), ("DPE_BROKER_URL", Valkey)):
        with suppress(FileNotFoundError):  # it has never run here
            own[name] = server(home).url
    if own and environ.get("DPE_URL", "").startswith("http://127.0.0.1:"):
        own["DPE_URL"] = environ["DPE_URL"]
    return {name: value for name, value in environ.items() if own.get(name) != value}


@dpe.command()
def api() -> None:
    """Run the API alone, at DPE_HOST and DPE_PORT.

    \b
    Example:
      DPE_DATABASE_URL=postgresql://… DPE_BROKER_URL=redis://… dpe api
    """
    from app import server

    server.main(Settings.from_environ())


@dpe.command()
@click.option(
    "--workers", metavar="N", type=click.IntRange(1), help="Jobs at a time; default DPE_WORKERS."
)
def worker(workers: int | None) -> None:
    """Run a worker alone; as many as you like, on as many machines.

    \b
    Example:
      DPE_DATABASE_URL=postgresql://… DPE_BROKER_URL=redis://… dpe worker --workers 4
    """
    from worker import supervise

    given = {} if workers is None else {"DPE_WORKERS": str(workers)}
    supervise.main(Settings.from_environ({**os.environ, **given}))


@dpe.command()
def flower() -> None:
    """Run Flower alone, at DPE_FLOWER_HOST and DPE_FLOWER_PORT.

    \b
    Example:
      DPE_DATABASE_URL=postgresql://… DPE_BROKER_URL=redis://… dpe flower
    """
    from app import flower as role

    role.main(Settings.from_environ())


@dpe.command()
@json_option
def env(as_json: bool) -> None:
    """Print `export DPE_…=…` lines of the stack under DPE_HOME.

    \b
    Example:
      eval "$(dpe env)"
    """
    import shlex

    from app.stack_file import environment

    home = Settings.from_environ().home
    left = environment(home)
    if not left:
        raise DpeError(f"no stack has run under {home}", "run `dpe up`, or set DPE_HOME")
    if as_json:
        terminal.print_json(left)
        return
    for name, value in left.items():
        click.echo(f"export {name}={shlex.quote(value)}")


@dpe.command()
@json_option
def ps(as_json: bool) -> None:
    """List the processes of the stack under DPE_HOME.

    Each with its role, its pid and since when it runs; a worker's children as well.  Of a worker,
    whether it makes progress: busy, idle, stuck (jobs wait, and it takes none), silent.

    \b
    Example:
      dpe ps --json
    """
    from app.commands.processes import running

    home = Settings.from_environ().home
    found = running(home)
    if as_json:
        terminal.print_json(found)
        return
    terminal.print_table(
        ["ROLE", "PID", "SINCE", "STATE", "RUNNING", "LAST PROGRESS"],
        [
            (
                p["role"],
                p["pid"],
                terminal.utc_time(p["since"]),
                p.get("state", ""),
                p.get("running", ""),
                terminal.utc_time(p.get("progress_at")),
            )
            for p in found
        ],
        empty=f"nothing runs under {home}: dpe up",
    )


def main() -> None:
    """The entry point: every error ends in one clear line on stderr, and an exit code."""
    sys.exit(_exit_code(sys.argv[1:]))


def _exit_code(words: list[str]) -> int:
    try:
        return dpe.main(words, prog_name="dpe", standalone_mode=False) or 0
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # `dpe job logs … | head` has all it wanted; the interpreter's last flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except click.UsageError as error:
        return _explain_usage(error)
    except Exception as error:
        if words[:1] == ["--traceback"]:
            raise
        _explain(error)
        return 1


def _explain_usage(error: click.UsageError) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
    else:
        path = error.ctx.command_path if error.ctx else "dpe"
        terminal.fail(error.format_message().rstrip("."), f"see `{path} --help`")
    return USAGE_ERROR


def _explain(error: Exception) -> None:
    """One line for whatever else went wrong."""
    if isinstance(error, DpeError):
        terminal.fail(str(error), error.hint)
    elif isinstance(error, click.ClickException):
        terminal.fail(error.format_message())
    elif isinstance(error, OSError) and error.filename is not None:
        terminal.fail(f"{error.filename}: {error.strerror}")
    elif type(error).__module__.partition(".")[0] == "psycopg":
        terminal.fail(f"Postgres: {error}", "is DPE_DATABASE_URL right, and the server up?")
    else:
        terminal.fail(
            f"unexpected {type(error).__name__}: {error}",
            "`dpe --traceback …` shows where; please report it",
        )


if __name__ == "__main__":
    main()
