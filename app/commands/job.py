"""`dpe job …`: what became of the starts."""

import json
from typing import Any
from urllib.parse import quote

import click

from app import terminal
from app.client import Client
from app.commands.follow import log_lines
from app.commands.start import show_started
from app.terminal import json_option

SHOWN_DIGITS = 7  # of an execution id; every command takes the short form as well


@click.group()
def job() -> None:
    """List, show, stop and retry jobs, and read their logs.

    A job goes by its execution id, or by the first 7 characters of it.
    """


@job.command(name="list")
@click.option("--action", metavar="ID", help="Only those of this action.")
@click.option("--status", metavar="STATUS", multiple=True, help="Only in this status; repeatable.")
@click.option("--since", metavar="TIME", help="Accepted at this time or later (ISO 8601, UTC).")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="How many at most.",
)
@click.option("--oldest-first", is_flag=True, help="From the first job on; else the newest ones.")
@json_option
def list_(
    *,
    action: str | None,
    status: tuple[str, ...],
    since: str | None,
    limit: int,
    oldest_first: bool,
    as_json: bool,
) -> None:
    """List jobs, the newest first.

    \b
    Examples:
      dpe job list --status FAILED --status TIMEOUT --since 2026-01-31T08:00:00Z
      dpe job list --action 5eaf0db7f6f51d5255974217 --limit 5 --json
    """
    jobs = (
        Client.from_environ()
        .get(
            "/dpe/v3/jobs",
            action=action,
            status=[name.upper() for name in status],
            since=since,
            limit=limit,
            order="asc" if oldest_first else "desc",
        )
        .data
    )
    if as_json:
        terminal.print_json(jobs)
        return
    terminal.print_table(
        ["JOB", "NAME", "VERSION", "STATUS", "ACCEPTED", "TOOK", "ATTEMPT"],
        [
            (
                j["execution_id"][:SHOWN_DIGITS],
                j["name"],
                j["version"],
                j["status"],
                terminal.utc_time(j["submitted_at"]),
                terminal.lasted(j["duration"]),
                j["attempt"],
            )
            for j in jobs
        ],
        empty="no such jobs: dpe start action ID",
    )


@job.command()
@click.argument("execution_id", metavar="JOB")
@json_option
def show(execution_id: str, as_json: bool) -> None:
    """Show one job: status, times, result, what it wrote, and its error.

    \b
    Example:
      dpe job show 3f9c2a1
    """
    found = Client.from_environ().get(f"/dpe/v3/jobs/{execution_id}").data
    if as_json:
        terminal.print_json(found)
    else:
        terminal.print_job(found)


@job.command()
@click.argument("execution_id", metavar="JOB")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@json_option
def logs(execution_id: str, follow: bool, as_json: bool) -> None:
    """Print a job's log; with --follow, the lines as they come.

    With --json it is an array of lines, with --json --follow one object a line.

    \b
    Example:
      dpe job logs 3f9c2a1 --follow
    """
    lines = log_lines(Client.from_environ(), execution_id, follow=follow)
    if as_json and not follow:
        terminal.print_json(list(lines))
        return
    for line in lines:
        click.echo(json.dumps(line, ensure_ascii=False) if as_json else terminal.log_line(line))


@job.command()
@click.argument("execution_id", metavar="JOB")
@json_option
def stop(execution_id: str, as_json: bool) -> None:
    """Stop one job, queued or running; what it wrote is rolled back.

    \b
    Example:
      dpe job stop 3f9c2a1
    """
    answer = Client.from_environ().call("DELETE", f"/dpe/v3/jobs/{execution_id}/stop").data
    if as_json:
        terminal.print_json(answer)
    else:
        click.echo(f"stopped {execution_id}")


@job.command()
@click.argument("execution_ids", metavar="JOB...", nargs=-1, required=True)
@click.option("--wait", is_flag=True, help="Wait for the end; exit code 1 unless SUCCESS.")
@json_option
def retry(execution_ids: tuple[str, ...], wait: bool, as_json: bool) -> None:
    """Run the events of ended jobs again, as new jobs, with the action's newest version.

    \b
    Example:
      dpe job retry 3f9c2a1 --wait
    """
    client = Client.from_environ()
    for execution_id in execution_ids:
        answer = client.call("POST", f"/dpe/v3/jobs/{execution_id}/retry").data
        show_started(client, answer, wait=wait, as_json=as_json)


@job.command()
@click.option("--action", required=True, metavar="ID", help="Of this action, by its id or name.")
@click.option(
    "--status",
    metavar="STATUS",
    multiple=True,
    help="Ended so; repeatable.  Default: FAILED and TIMEOUT.",
)
@click.option("--since", metavar="TIME", help="Accepted at this time or later (ISO 8601, UTC).")
@click.option("--until", metavar="TIME", help="Accepted before this time.")
@click.option("--version", type=click.IntRange(1), help="Run by this version; default: the newest.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=1_000,
    show_default=True,
    help="How many at most, the oldest first.",
)
@click.option("--rate", type=float, default=50, show_default=True, help="So many begin a second.")
@click.option("--dry-run", is_flag=True, help="Show what would be started; start nothing.")
@json_option
def replay(*, action: str, status: tuple[str, ...], as_json: bool, **words: Any) -> None:
    """Start the archived events of ended jobs again, those that a filter names.

    Safe to repeat: a job that was retried since is passed over, its newest retry stands for it.

    \b
    Example:
      dpe job replay --action 5eaf0db7f6f51d5255974217 --since 2026-01-31T08:00:00Z --dry-run
    """
    asked = {name: value for name, value in words.items() if value is not None}
    if status:
        asked["status"] = [name.upper() for name in status]
    path = f"/dpe/v3/actions/{quote(action, safe='')}/replay"
    answer = Client.from_environ().call("POST", path, asked).data
    if as_json:
        terminal.print_json(answer)
        return
    for one in answer["jobs"]:
        click.echo(f"{one['replay_of']}  {one['execution_id'] or 'would be started again'}")
    what = "would be started" if answer["dry_run"] else "were started"
    terminal.note(f"{answer['count']} jobs {what}, the last at {answer['last_due_at'] or '-'}")
