"""Puts the application together: what a process holds, the routes of each subject, the errors."""

from flask import Flask

from app import (
    actions,
    audit,
    configuration,
    datasets,
    errors,
    handler_secrets,
    health,
    job_settings,
    jobs,
    keys,
    login,
    quarantine,
    replay,
    resources,
    starts,
    table_rows,
    tables,
    triggers,
    webhooks,
    workflows,
)
from app.answers import Orjson
from app.browsers import guard
from app.openapi import document
from worker.settings import Settings


def build(settings: Settings) -> Flask:
    """A Flask application with everything registered; its pool is open when this returns."""
    app = Flask("app", static_folder=None)
    app.json = Orjson(app)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    # Both would answer with a redirect and a page of HTML, and a POST's body would be lost.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    resources.hold(app, settings)
    for subject in (
        starts,
        jobs,
        replay,
        actions,
        workflows,
        triggers,
        webhooks,
        handler_secrets,
        audit,
        configuration,
        tables,
        table_rows,
        quarantine,
        datasets,
        job_settings,
        login,
        keys,
        health,
        document,
    ):
        app.register_blueprint(subject.routes)
    errors.register(app)
    guard(app, settings)
    return app
