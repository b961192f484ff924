"""The whole configuration out and in, as one archive."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict

import psycopg
from flask import Blueprint, Response, request

from app import archive, query
from app.answers import json_answer
from app.auth import needs, session
from app.dataset_connections import connection, url_elsewhere
from app.resources import resources
from app.tables import described
from worker.errors import Invalid
from worker.store import configuration

routes = Blueprint("configuration", __name__)

MAX_ARCHIVE_BYTES = 50_000_000


@routes.route("/dpe/v3/configuration/export", methods=["GET", "POST"])
@needs("dpe:configuration:read")
def export() -> Response:
    """Actions, workflows, tables and triggers as a tgz; no secrets."""
    tables = described()
    with resources().pool.connection() as conn:
        packed = archive.pack(configuration.export(conn, tables))
    headers = {"Content-Disposition": 'attachment; filename="configuration.tgz"'}
    return Response(packed, headers=headers, mimetype="application/gzip")


@routes.post("/dpe/v3/configuration/import")
@needs("dpe:configuration:write")
def import_() -> Response:
    """Make what an exported archive holds; with `?dry_run=true` tell what would change."""
    request.max_content_length = MAX_ARCHIVE_BYTES
    sent = request.files.get("archive")
    if sent is None:
        raise Invalid(
            'the form has no file "archive"', "curl -F archive=@configuration.tgz sends one"
        )
    files, dry_run = archive.unpack(sent.read()), query.flag("dry_run")
    with resources().pool.connection() as conn:
        changes = configuration.bring_in(
            conn,
            files,
            _elsewhere,
            dry_run=dry_run,
            allow_data_loss=query.flag("allow_data_loss"),
            key_id=session().key_id,
        )
    return json_answer({"dry_run": dry_run, "changes": [asdict(change) for change in changes]})


def _elsewhere(dataset: str) -> AbstractContextManager[psycopg.Connection | None]:
    return nullcontext() if url_elsewhere(dataset) is None else connection(dataset)
