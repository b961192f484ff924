"""The audit trail: written around each route that changes something, and listed."""

from dataclasses import asdict

from flask import Blueprint, Response

from app import query
from app.answers import json_answer
from app.auth import needs
from app.resources import resources
from worker.store import audit

routes = Blueprint("audit", __name__)

MOST = 1000


@routes.get("/iam/v4/audit")
@needs("iam:audit:read")
def list_audit() -> Response:
    """The newest changes, newest first; with `?starts=true` the newest starts instead."""
    limit = query.count("limit", 100, MOST)
    listed = audit.starts if query.flag("starts") else audit.changes
    with resources().pool.connection() as conn:
        return json_answer([asdict(entry) for entry in listed(conn, limit)])
