"""`dpe key …` and `dpe token`: who may call the API."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from app import terminal
from app.client import Client, client_settings
from app.terminal import json_option
from worker.errors import Conflict

if TYPE_CHECKING:
    from worker.store import access

DEFAULT_ROLE = "DPE Editor"


@click.group()
def key() -> None:
    """Create, list and revoke API keys."""


@key.command()
@click.option("--name", required=True, help="What the key is for.")
@click.option(
    "--role",
    default=DEFAULT_ROLE,
    show_default=True,
    help="What it may do: DPE Admin, DPE Editor, DPE Starter (start, and see jobs), DPE Viewer.",
)
@click.option("--rate", type=float, help="Starts a second at most; else DPE_MAX_STARTS_PER_S.")
@click.option(
    "--only",
    "only",
    multiple=True,
    metavar="ID",
    help="An action or workflow that it may start and stop; again for more; else all.",
)
@click.option(
    "--from",
    "networks",
    multiple=True,
    metavar="CIDR",
    help="A network that it may be used from; again for more; else any.",
)
@click.option("--in-database", is_flag=True, help="Write to DPE_DATABASE_URL, not over HTTP.")
@json_option
def create(  # noqa: PLR0913, PLR0917 -- its options
    name: str,
    role: str,
    rate: float | None,
    only: tuple[str, ...],
    networks: tuple[str, ...],
    in_database: bool,
    as_json: bool,
) -> None:
    """Create an API key; its secret is shown this once.

    The first key of an installation, when no key is configured, is written straight to the
    database (DPE_DATABASE_URL); so is any with --in-database, for the day when every secret is
    lost.  Only a DPE Admin may make further keys over HTTP.

    \b
    Example:
      dpe key create --name website --role "DPE Starter" --rate 50 --from 10.0.0.0/8
    """
    settings = client_settings()
    fields: dict[str, Any] = {"name": name, "role": role, "starts_per_s": rate}
    fields |= {"only_ids": list(only) or None, "networks": list(networks) or None}
    if in_database or not (settings.apikey and settings.secretkey):
        made = _create_in_database(settings.database(), fields, first=not in_database)
    else:
        client = Client(settings.url, settings.apikey, settings.secretkey)
        made = client.call("POST", "/iam/v4/keys", fields).data
    if as_json:
        terminal.print_json(made)
        return
    terminal.print_fields((field, made.get(field)) for field in FIELDS)
    terminal.note("the secret is not shown again")


FIELDS = ("name", "role", "apikey", "secretkey", "expires_at")
BOUNDS = ("starts_per_s", "only_ids", "networks")


def _create_in_database(
    database_url: str, fields: dict[str, Any], *, first: bool
) -> dict[str, Any]:
    from worker.store import access  # noqa: PLC0415
    from worker.store.database import connect  # noqa: PLC0415
    from worker.store.migrate import check  # noqa: PLC0415

    with connect(database_url, "dpe-key") as conn:
        check(conn)
        if first and any(_is_good(key) for key in access.list_keys(conn)):
            raise Conflict(
                "this installation has keys already, and none is configured here",
                "set DPE_APIKEY and DPE_SECRETKEY; if every secret is lost: --in-database",
            )
        bounds = access.Bounds(**{name: fields[name] for name in BOUNDS})
        made = access.create_key(conn, fields["name"], fields["role"], bounds=bounds)
    return {field: getattr(made, field) for field in FIELDS}


def _is_good(key: "access.Key") -> bool:
    return key.revoked_at is None and key.expires_at > datetime.now(UTC)


@key.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the API keys, without their secrets.

    \b
    Example:
      dpe key list
    """
    keys = Client.from_environ().get("/iam/v4/keys").data
    if as_json:
        terminal.print_json(keys)
        return
    terminal.print_table(
        ["APIKEY", "NAME", "ROLE", "CREATED", "EXPIRES", "REVOKED"],
        [
            (
                k["apikey"],
                k["name"],
                k["role"],
                *(
                    terminal.utc_time(k.get(f"{what}_at"))
                    for what in ("created", "expires", "revoked")
                ),
            )
            for k in keys
        ],
        empty="no keys yet: dpe key create --name NAME",
    )


@key.command()
@click.argument("apikey")
@json_option
def revoke(apikey: str, as_json: bool) -> None:
    """End an API key and its sessions, at once.

    \b
    Example:
      dpe key revoke 0f3c…48 hex characters
    """
    answer = Client.from_environ().call("DELETE", f"/iam/v4/keys/{apikey}").data
    if as_json:
        terminal.print_json(answer)
    else:
        click.echo(f"revoked {apikey}")


@click.command()
@json_option
def token(as_json: bool) -> None:
    """Log in and print a token, good for an hour.

    \b
    Example:
      curl -X POST "$DPE_URL/dpe/v3/actions/ID/start?token=$(dpe token)" --json '[{"id": 1}]'
    """
    session = Client.from_environ().login()
    if as_json:
        terminal.print_json(session)
    else:
        click.echo(session["token"])
