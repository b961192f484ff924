"""`dpe migrate`: the database's tables, and where they lack the logins and databases."""

import click

from app import terminal
from app.terminal import json_option


@click.command()
@click.option(
    "--admin",
    metavar="URL",
    help="A superuser's address (DPE_ADMIN_URL): first make the logins and databases that lack.",
)
@json_option
def migrate(admin: str | None, as_json: bool) -> None:
    """Bring the database's tables up to date.

    `dpe up` does it by itself; elsewhere run it before a new version's api and worker.

    \b
    Examples:
      DPE_DATABASE_URL=postgresql://… dpe migrate
      DPE_DATABASE_URL=… DPE_DATASETS_URL=… dpe migrate --admin postgresql://postgres@…
    """
    from app.client import client_settings  # noqa: PLC0415 -- help must come quickly
    from worker.store import logins  # noqa: PLC0415
    from worker.store.database import connect  # noqa: PLC0415
    from worker.store.migrate import migrate as bring_up_to_date  # noqa: PLC0415

    settings = client_settings()
    made: list[str] = []
    admin = admin or settings.admin_url
    if admin is not None:
        wanted = [logins.Login.of("DPE_DATABASE_URL", settings.database())]
        if settings.datasets_url is not None:
            wanted.append(logins.Login.of("DPE_DATASETS_URL", settings.datasets_url))
        with connect(admin, "dpe-migrate") as conn:
            made = logins.make(conn, wanted)
    with connect(settings.database(), "dpe-migrate") as conn:
        applied = bring_up_to_date(conn)
    if as_json:
        terminal.print_json({"made": made, "applied": applied})
        return
    said = [f"made {name}" for name in made] + [f"applied {name}" for name in applied]
    click.echo("\n".join(said) or "nothing to apply")
