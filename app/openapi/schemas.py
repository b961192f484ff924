"""The shapes of what is sent and answered."""

from app.openapi.words import (
    ANYTHING,
    FREE,
    HEX_ID,
    NUMBER,
    TEXT,
    TIME,
    UUID,
    WHOLE,
    YES_OR_NO,
    Schema,
    array,
    either,
    maybe,
    record,
    ref,
)
from worker.store.priorities import PRIORITIES

STATUSES = ("SUBMITTED", "QUEUED", "BUILDING", "PROCESSING",
            "SUCCESS", "FAILED", "TIMEOUT", "STOPPED")  # fmt: skip
STATUS: Schema = {"enum": list(STATUSES)}

EXECUTION = record(
    id=UUID, status=STATUS, progress={"type": "number", "minimum": 0, "maximum": 100}
)

STEP = record(
    step=TEXT,
    stage=maybe(TEXT),
    type={"enum": ["action", "workflow"]},
    id=TEXT,
    name=maybe(TEXT),
    needs=array(TEXT),
    status=maybe(STATUS),
    skipped=maybe(TEXT),
    error=ANYTHING,
    executions=array(FREE),
)

JOB = record(
    id=TEXT,
    execution_id=UUID,
    type={"enum": ["action", "workflow"]},
    name=TEXT,
    version=WHOLE,
    status=STATUS,
    execution=EXECUTION,
    attempt=WHOLE,
    losses=WHOLE,
    event_type=TEXT,
    priority={"enum": list(PRIORITIES)},
    timestamp=TIME,
    submitted_at=TIME,
    started_at=maybe(TIME),
    ended_at=maybe(TIME),
    duration=maybe(NUMBER),
    error=maybe(FREE),
    result=ANYTHING,
    stats=ANYTHING,
    retry_of=maybe(UUID),
    url=TEXT,
    log_url=TEXT,
)
JOB["properties"]["steps"] = array(STEP)

UNFIT = record(pointer=TEXT, column=maybe(TEXT), detail=TEXT)

PROBLEM = record(
    "type title status detail",
    error=TEXT,
    warning=TEXT,
    type=TEXT,
    title=TEXT,
    status=WHOLE,
    detail=TEXT,
    hint=TEXT,
    id=TEXT,
    bad_rows=WHOLE,
    errors=array(UNFIT),
)
PROBLEM["description"] = (
    "RFC 9457's fields, and `error` (404: `warning`) for clients of the platform; `hint` says what"
    " to do next, `id` is that of a 500 in the API's log."
)

ATTRIBUTE = record(
    "name type",
    name={"type": "string", "minLength": 1, "maxLength": 63},
    type={"enum": ["Number", "String", "Boolean", "Date", "Datetime"]},
    format={"enum": ["integer", "float", "json", None]},
    description=maybe(TEXT),
    column_type=maybe(TEXT),
    renamed_from=maybe(TEXT),
)

SESSION = record(
    uid=TEXT,
    user=TEXT,
    firstname=TEXT,
    lastname=TEXT,
    civility=TEXT,
    login=TEXT,
    password_renew=YES_OR_NO,
    password_expiration=TIME,
    token=TEXT,
    apikey=TEXT,
    role=TEXT,
    permissions=array(TEXT),
    expires_at=TIME,
)

TABLE = record(
    "dataset name attributes",
    dataset=TEXT,
    name=TEXT,
    description=maybe(TEXT),
    attributes={"type": "array", "items": ref("Attribute"), "minItems": 1},
    primary_key=maybe(either(TEXT, array(TEXT))),
    indexes=maybe(array(either(TEXT, array(TEXT)))),
)

TRIGGER: dict[str, Schema] = {
    "name": TEXT,
    "action": TEXT,
    "workflow": TEXT,
    "cron": TEXT,
    "timezone": TEXT,
    "event": ANYTHING,
    "catch_up": {"enum": ["none", "last", "all"]},
    "catch_up_limit": {"type": "integer", "minimum": 1, "maximum": 1000},
    "overlap": {"enum": ["allow", "skip"]},
    "paused": YES_OR_NO,
}
TRIGGER_NEEDED = "name cron timezone catch_up catch_up_limit overlap paused next_at"
TRIGGER_TIMES: dict[str, Schema] = {"next_at": maybe(TIME), "created_at": TIME, "updated_at": TIME}
TICK = record(
    tick=TIME,
    outcome={"enum": ["started", "skipped", "missed", "failed"]},
    execution_id=maybe(UUID),
    error=maybe(TEXT),
    decided_at=TIME,
)

BOUNDS: dict[str, Schema] = {
    "starts_per_s": maybe(NUMBER),
    "only_ids": maybe(array(HEX_ID)),
    "networks": maybe(array(TEXT)),
}

SCHEMAS: dict[str, Schema] = {
    "Problem": PROBLEM,
    "Accepted": record(
        id=TEXT,
        execution_id=UUID,
        status=STATUS,
        timestamp=TIME,
        type={"enum": ["action", "workflow"]},
        name=TEXT,
        version=WHOLE,
        execution=EXECUTION,
        url=TEXT,
    ),
    "Job": JOB,
    "DryRun": record(
        dry_run={"const": True},
        id=HEX_ID,
        name=TEXT,
        version=WHOLE,
        feeds=maybe(TEXT),
        rows=maybe(WHOLE),
        bad_rows=maybe(WHOLE),
        errors=array(UNFIT),
    ),
    "LogLine": record(at=TIME, level=TEXT, logger=TEXT, message=TEXT, attempt=WHOLE),
    "Replay": record(
        id=HEX_ID,
        dry_run=YES_OR_NO,
        count=WHOLE,
        last_due_at=maybe(TIME),
        jobs=array(record(replay_of=UUID, execution_id=maybe(UUID))),
    ),
    "Stopped": record(id=TEXT, stopped=WHOLE),
    "Action": record(
        _id=HEX_ID,
        id=HEX_ID,
        name=TEXT,
        version=WHOLE,
        function_name=TEXT,
        timeout_s=maybe(NUMBER),
        config=FREE,
        files=array(TEXT),
        created_at=TIME,
        updated_at=TIME,
    ),
    "Files": record(
        files={"type": "object", "additionalProperties": {"type": "string", "format": "byte"}}
    ),
    "Version": record(
        version=WHOLE, name=TEXT, digest=TEXT, created_at=TIME, current=YES_OR_NO
    ),
    "Deleted": record(id=HEX_ID, name=TEXT, deleted=YES_OR_NO),
    "Workflow": record(
        _id=HEX_ID,
        id=HEX_ID,
        name=TEXT,
        version=WHOLE,
        stages=ANYTHING,
        definition=FREE,
        created_at=TIME,
        updated_at=TIME,
    ),
    "TriggerDefinition": record("cron", **TRIGGER),
    "Trigger": record(TRIGGER_NEEDED, **TRIGGER, **TRIGGER_TIMES),
    "ShownTrigger": record(TRIGGER_NEEDED, **TRIGGER, **TRIGGER_TIMES, ticks=array(TICK)),
    "Upcoming": record(
        name=TEXT, timezone=TEXT, paused=YES_OR_NO, next=array(record(tick=TIME, local=TIME))
    ),
    "Imported": record(
        dry_run=YES_OR_NO,
        changes=array(record(kind=TEXT, name=TEXT, change=TEXT, details=array(TEXT))),
    ),
    "Attribute": ATTRIBUTE,
    "Table": TABLE,
    "ListedTable": record("dataset name built_at", dataset=TEXT, name=TEXT, built_at=maybe(TIME)),
    "StandingTable": record(
        "dataset name built_at standing",
        dataset=TEXT,
        name=TEXT,
        attributes=array(ref("Attribute")),
        built_at=maybe(TIME),
        standing=maybe(record(kind=TEXT, rows_about=maybe(NUMBER), bytes=WHOLE)),
    ),
    "Plan": record(
        dataset=TEXT,
        name=TEXT,
        plan=TEXT,
        loses_data=YES_OR_NO,
        steps=array(record(step=TEXT, what=TEXT, loses_data=YES_OR_NO)),
    ),
    "AuditEntry": record(
        at=TIME,
        who=maybe(TEXT),
        apikey=maybe(TEXT),
        address=maybe(TEXT),
        permission=TEXT,
        method=maybe(TEXT),
        path=TEXT,
        status=maybe(WHOLE),
        made=maybe(TEXT),
    ),
    "Secret": record(name=TEXT, created_at=TIME, updated_at=TIME),
    "Webhook": record(id=TEXT, form=TEXT, url=TEXT, created_at=TIME),
    "NewWebhook": record(id=TEXT, form=TEXT, url=TEXT, created_at=TIME, secret=TEXT),
    "Changes": record(dataset=TEXT, name=TEXT, changes=array(TEXT)),
    "QuarantinedRow": record(
        id=WHOLE,
        execution_id=UUID,
        row_number=WHOLE,
        column_name=maybe(TEXT),
        reason=TEXT,
        data=ANYTHING,
        quarantined_at=TIME,
    ),
    "Dataset": record(
        "name dialect tables", name=TEXT, dialect=TEXT, tables=maybe(WHOLE), url=TEXT
    ),
    "Login": record(auth_mode={"const": "apikey"}, apikey=TEXT, secretkey=TEXT),
    "Session": SESSION,
    "Key": record(
        apikey=TEXT,
        name=TEXT,
        role=TEXT,
        created_at=TIME,
        expires_at=TIME,
        revoked_at=maybe(TIME),
        **BOUNDS,
    ),
    "NewKey": record(
        apikey=TEXT,
        secretkey=TEXT,
        name=TEXT,
        role=TEXT,
        created_at=TIME,
        expires_at=TIME,
        **BOUNDS,
    ),
    "Ready": record(
        status=TEXT, database=TEXT, broker=TEXT, workers=maybe(WHOLE), stuck=maybe(WHOLE)
    ),
}  # fmt: skip
