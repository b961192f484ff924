"""Webhooks: starts by senders that can't log in and sign what they send instead."""

import time
from hashlib import sha256

from flask import Blueprint, Response, g, request

from app import body, signatures, starts
from app.answers import json_answer
from app.auth import address, needs, open_to_all, session
from app.resources import resources
from worker import sealing
from worker.errors import Invalid, NotFound, Unauthenticated
from worker.store import jobs, webhooks
from worker.store.access import Session
from worker.store.webhooks import FORMS, STANDARD, Webhook

routes = Blueprint("webhooks", __name__)


@routes.post("/dpe/v3/actions/<id>/webhook")
@routes.post("/dpe/v3/action/<id>/webhook")
@open_to_all
def receive(id: str) -> Response:
    """Accept an event that is signed with the webhook's secret, as a start call does."""
    held, caller = resources(), address()
    held.failures.check(caller)
    sent = body.received()
    hook = _find(id)
    try:
        delivery = signatures.check(
            hook.form,
            sealing.unseal(held.settings, _whose(id), hook.secret),
            request.headers,
            sent,
            time.time(),
            held.settings.webhook_tolerance_s,
        )
    except Unauthenticated:
        held.failures.note(caller)
        raise
    # A start is accepted for a session: here it is that of the webhook itself, open this once.
    g.session = _session(hook)
    start = jobs.Start(id, body.event(), "webhook", hook.key_id)
    # Of any length and of the sender's choice; apart from the keys of start calls.
    key = delivery and f"webhook {hook.form} {sha256(delivery.encode()).hexdigest()}"
    found = starts.accept(start, key)
    if found is None:
        raise _none(id)
    return starts.answer(*found, wait_s=0.0)


@routes.put("/dpe/v3/actions/<id>/webhook")
@routes.put("/dpe/v3/action/<id>/webhook")
@needs("dpe:action:write")
def put(id: str) -> Response:
    """Make or replace an action's webhook; its secret is in this answer and nowhere else."""
    fields = body.json_object()
    form = body.string(fields, "form", STANDARD)
    if form not in FORMS:
        raise Invalid(f'"form" must be one of {", ".join(FORMS)}, got {form!r}')
    secret = signatures.new_secret(form)
    if fields.get("secret") is not None:
        secret = body.string(fields, "secret")
        signatures.check_secret(form, secret)
    sealed = sealing.seal(resources().settings, _whose(id), secret)
    with resources().pool.connection() as conn:
        if not webhooks.put(conn, id, form, sealed, session().key_id):
            raise NotFound(f"action {id} not found", "GET /dpe/v3/actions lists those there are")
    return json_answer(_shown(_find(id)) | {"secret": secret})


@routes.get("/dpe/v3/actions/<id>/webhook")
@routes.get("/dpe/v3/action/<id>/webhook")
@needs("dpe:action:read")
def one(id: str) -> Response:
    """An action's webhook, without its secret."""
    return json_answer(_shown(_find(id)))


@routes.delete("/dpe/v3/actions/<id>/webhook")
@routes.delete("/dpe/v3/action/<id>/webhook")
@needs("dpe:action:write")
def delete(id: str) -> Response:
    """Remove an action's webhook: what it signs is refused from now on."""
    with resources().pool.connection() as conn:
        if not webhooks.delete(conn, id):
            raise _none(id)
    return json_answer({"id": id, "deleted": True})


def _find(id: str) -> Webhook:
    with resources().pool.connection() as conn:
        hook = webhooks.get(conn, id) if "\0" not in id else None
    if hook is None:
        raise _none(id)
    return hook


def _none(id: str) -> NotFound:
    return NotFound(f"webhook of action {id} not found", "make one: `dpe action webhook ID`")


def _whose(id: str) -> str:
    return f"the secret of action {id}'s webhook"


def _session(hook: Webhook) -> Session:
    name = f"webhook of {hook.action_id}"
    return Session("", hook.key_id, "", name, "", hook.created_at, hook.created_at)


def _shown(hook: Webhook) -> dict[str, object]:
    path = f"/dpe/v3/actions/{hook.action_id}/webhook"
    return {"id": hook.action_id, "form": hook.form, "url": path, "created_at": hook.created_at}
