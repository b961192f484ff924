"""What the routes take and answer that are about who may do what."""

from app.openapi.operations import LOCATION, ROWS, Operation, query, whole
from app.openapi.schemas import BOUNDS
from app.openapi.words import ANYTHING, NUMBER, TEXT, WHOLE, YES_OR_NO, array, record, ref
from worker.store.webhooks import FORMS

ACCESS: dict[str, Operation] = {
    "login.login": Operation(
        {200: ref("Session")},
        ref("Login"),
        {"auth_mode": "apikey", "apikey": "0" * 48, "secretkey": "0" * 64},
        form=True,
        errors=(401, 429),
    ),
    "login.check_session": Operation({200: ref("Session")}),
    "login.logout": Operation({200: record(success=YES_OR_NO, status=WHOLE, duration=NUMBER)}),
    "keys.create": Operation(
        {201: ref("NewKey")},
        record(
            "name", name={"type": "string", "minLength": 1}, role=TEXT, lifetime_s=NUMBER, **BOUNDS
        ),
        {"name": "website", "role": "DPE Starter"},
    ),
    "keys.list_keys": Operation({200: array(ref("Key"))}),
    "keys.revoke": Operation({200: ref("Key")}),
    "webhooks.receive": Operation(
        {202: ref("Accepted")},
        ANYTHING,
        ROWS,
        body_optional=True,
        errors=(401, 409, 422, 429),
        headers=LOCATION,
    ),
    "webhooks.put": Operation(
        {200: ref("NewWebhook")},
        record("", form={"enum": list(FORMS)}, secret=TEXT),
        {"form": "standard"},
    ),
    "webhooks.one": Operation({200: ref("Webhook")}),
    "webhooks.delete": Operation({200: record(id=TEXT, deleted=YES_OR_NO)}),
    "audit.list_audit": Operation(
        {200: array(ref("AuditEntry"))},
        parameters=(
            query("limit", whole(1, 1000), "entries; default 100"),
            query("starts", YES_OR_NO, "the starts, instead of the changes"),
        ),
    ),
    "secrets.put": Operation(
        {200: ref("Secret")}, record(value={"type": "string", "minLength": 6}), {"value": "s3cret"}
    ),
    "secrets.list_secrets": Operation({200: array(ref("Secret"))}),
    "secrets.delete": Operation({200: record(name=TEXT, deleted=YES_OR_NO)}),
}  # fmt: skip
