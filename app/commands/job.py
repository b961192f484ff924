"""`dpe job …`: what became of the starts."""

import json

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
@click.argument("execution_id", metavar="JOB")
@click.option("--wait", is_flag=True, help="Wait for the end; exit code 1 unless SUCCESS.")
@json_option
def retry(execution_id: str, wait: bool, as_json: bool) -> None:
    """Run the event of an ended job again, as a new job, with the action's newest version.

    \b
    Example:
      dpe job retry 3f9c2a1 --wait
    """
    client = Client.from_environ()
    answer = client.call("POST", f"/dpe/v3/jobs/{execution_id}/retry").data
    show_started(client, answer, wait=wait, as_json=as_json)
