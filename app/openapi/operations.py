"""What each route takes and answers; the rest of its description is read off the application.

A route that is not here fails `tests/app/test_openapi.py`, which says what to add.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from app.openapi.schemas import STATUSES
from app.openapi.words import (
    ANYTHING,
    FREE,
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

Parameter = dict[str, Any]
SETTINGS = array(record(name=TEXT, value=ANYTHING, level=TEXT))
ROWS = [{"event_id": 1, "event_name": "Ada"}]
EXECUTION_ID = "3f9c2a17-6d0e-4f7e-9d0c-6a1f0f0a9c11"


def query(name: str, schema: Schema, meaning: str) -> Parameter:
    """A parameter of the address."""
    return {"name": name, "in": "query", "schema": schema, "description": meaning}


def whole(least: int, most: int) -> Schema:
    """A whole number within bounds."""
    return {"type": "integer", "minimum": least, "maximum": most}


WAIT = query("wait", {"type": "number", "minimum": 0, "maximum": 30},
             "seconds to hold the answer until the job has ended")  # fmt: skip
PRIORITY = query("priority", {"enum": list(PRIORITIES)}, "else the action's own")
VERSION = whole(1, 2**31 - 1)
EVENT_TYPE = query("event_type", {"enum": ["api", "manual"]}, "whether a person made this start")
DUE = (
    query("delay", TEXT, 'begin after so long at the earliest: seconds, or "1h 10m"'),
    query("not_before", TIME, "begin at this time at the earliest"),
    query("expires", TEXT, "not begun so long after it is due, it ends as TIMEOUT"),
)
IDEMPOTENCY_KEY: Parameter = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "the caller's own name for this call; again within 24 hours, it gets the answer"
    " of the first",
}
AFTER_LINES = query("after", {"type": "string", "pattern": r"^[0-9]{1,10}\.[0-9]{1,10}$"},
                    "what X-Next-After had")  # fmt: skip
VALIDATE = query("validate", {"enum": ["none", "strict"]},
                 "strict: 422 where rows don't fit the table that the action feeds")  # fmt: skip
DRY_RUN = query("dry_run", YES_OR_NO, "say what would happen, and store nothing")
DATA_LOSS = query("allow_data_loss", YES_OR_NO, "do it though data is lost")


@dataclass(frozen=True)
class Operation:
    """`answers` by status: a schema, or None for one without JSON; `example` is of the body."""

    answers: dict[int, Schema]
    body: Schema | None = None
    example: Any = None
    body_optional: bool = False
    form: bool = False  # the body may come as a form as well
    multipart: bool = False  # the body is a form with a file
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[int, ...] = ()
    other_types: tuple[str, ...] = ()  # of the answer, beside or instead of JSON
    json: bool = True
    headers: dict[str, str] = field(default_factory=dict)  # of the answer: what they say


LOCATION = {"Location": "where to look at it", "Retry-After": "seconds"}
STARTED = {202: ref("Accepted"), 200: ref("Job")}
START = Operation(
    STARTED,
    ANYTHING,
    body_optional=True,
    parameters=(WAIT, PRIORITY, IDEMPOTENCY_KEY),
    errors=(409, 422, 429),
    headers=LOCATION,
)
LOG = Operation(
    {200: array(ref("LogLine"))},
    parameters=(AFTER_LINES,),
    errors=(409,),
    other_types=("text/plain",),
    headers={"X-Next-After": "where to go on"},
)
PUSHED = {"files": {"main.py": "ZGVmIGN1c3RvbWZ1bmMoZXZlbnQpOiBwYXNzCg=="}}
STAGES = {
    "display_name": "Nightly",
    "stages": [{"stageName": "Load", "actions": [{"action_conf": "5eaf0db7f6f51d5255974217"}]}],
}
DESCRIBED = {
    "dataset": "data_prim",
    "name": "event_archive",
    "attributes": [
        {"name": "event_id", "type": "Number"},
        {"name": "event_name", "type": "String"},
    ],
    "primary_key": ["event_id"],
}

OPERATIONS: dict[str, Operation] = {
    "starts.start": replace(
        START,
        answers={202: ref("Accepted"), 200: either(ref("Job"), ref("DryRun"))},
        example=ROWS,
        parameters=(*START.parameters, *DUE, VALIDATE, DRY_RUN),
    ),
    "jobs.list_jobs": Operation(
        {200: array(ref("Job"))},
        parameters=(
            query("order", {"enum": ["asc", "desc"]}, "oldest (default) or newest first"),
            query("limit", whole(1, 1000), "of a page; default 100"),
            query("after", TEXT, "an execution id, or what a Link header had"),
            query("action", TEXT, "of this action or workflow, by id or name; `id` is the same"),
            query("status", array({"enum": list(STATUSES)}), "in one of these"),
            query("since", TIME, "accepted at this time or later"),
            query("until", TIME, "accepted before this time"),
            query("retry_of", UUID, "retries of this execution"),
            query("run_id", UUID, "steps of this run"),
        ),
        errors=(404, 409),
        headers={"Link": 'the next page, rel="next"'},
    ),
    "jobs.one": Operation({200: ref("Job"), 202: ref("Job")}, parameters=(WAIT,), errors=(409,)),
    "jobs.logs": LOG,
    "jobs.logs_of_action": LOG,
    "jobs.retry": Operation(STARTED, parameters=(WAIT,), errors=(409, 429), headers=LOCATION),
    "replay.start": Operation(
        {202: ref("Replay"), 200: ref("Replay")},
        record(
            "",
            status=either(TEXT, array({"enum": list(STATUSES)})),
            since=maybe(TIME),
            until=maybe(TIME),
            version=maybe(WHOLE),
            limit=whole(1, 10_000),
            rate=NUMBER,
            dry_run=YES_OR_NO,
        ),
        {"status": ["FAILED"], "since": "2026-01-31T00:00:00Z", "dry_run": True},
        errors=(409,),
    ),
    "jobs.stop": Operation({200: ref("Job")}, errors=(409,)),
    "jobs.stop_all": Operation({200: ref("Stopped")}),
    "actions.list_actions": Operation({200: array(ref("Action"))}),
    "actions.one": Operation({200: ref("Action")}),
    "actions.push_new": Operation(
        {201: ref("Action")}, ref("Files"), PUSHED, headers={"Location": "the action"}
    ),
    "actions.push": Operation({200: ref("Action")}, ref("Files"), PUSHED),
    "actions.pull": Operation(
        {200: ref("Files")}, parameters=(query("version", VERSION, "default: what starts run"),)
    ),
    "actions.versions": Operation({200: array(ref("Version"))}),
    "actions.roll_back": Operation(
        {200: ref("Action")},
        parameters=(query("version", VERSION, "default: the one before the current"),),
        errors=(409,),
    ),
    "actions.delete": Operation({200: ref("Deleted")}),
    "workflows.list_workflows": Operation({200: array(ref("Workflow"))}),
    "workflows.one": Operation({200: ref("Workflow")}),
    "workflows.push_new": Operation(
        {201: ref("Workflow")}, FREE, STAGES, errors=(404,), headers={"Location": "the workflow"}
    ),
    "workflows.push": Operation({200: ref("Workflow")}, FREE, STAGES),
    "workflows.delete": Operation({200: ref("Deleted")}),
    "workflows.start": replace(START, example={"day": "2026-01-31"}),
    "workflows.stop_all": Operation({200: ref("Stopped")}),
    "workflows.logs": LOG,
    "triggers.list_triggers": Operation({200: array(ref("Trigger"))}),
    "triggers.put": Operation(
        {200: ref("Trigger")},
        ref("TriggerDefinition"),
        {"action": "5eaf0db7f6f51d5255974217", "cron": "30 2 * * *", "timezone": "Europe/Paris"},
        errors=(404,),
    ),
    "triggers.one": Operation({200: ref("ShownTrigger")}),
    "triggers.upcoming": Operation(
        {200: ref("Upcoming")}, parameters=(query("count", whole(1, 100), "ticks; default 5"),)
    ),
    "triggers.pause": Operation({200: ref("Trigger")}),
    "triggers.resume": Operation({200: ref("Trigger")}),
    "triggers.delete": Operation({200: record(name=TEXT, deleted=YES_OR_NO)}),
    "configuration.export": Operation(
        {200: ANYTHING}, other_types=("application/gzip",), json=False
    ),
    "configuration.import_": Operation(
        {200: ref("Imported")},
        record(archive={"type": "string", "contentMediaType": "application/gzip"}),
        {"archive": "what an export answered"},
        multipart=True,
        parameters=(query("dry_run", YES_OR_NO, "tell what would change"), DATA_LOSS),
        errors=(404, 409),
    ),
    "tables.build": Operation(
        {201: ref("Changes")},
        ref("Table"),
        DESCRIBED,
        parameters=(DATA_LOSS, query("if_plan", TEXT, "do it only if the plan is this one")),
        errors=(409,),
    ),
    "tables.plan": Operation({200: ref("Plan")}, ref("Table"), DESCRIBED, errors=(409,)),
    "tables.list_tables": Operation(
        {200: array(ref("ListedTable"))},
        parameters=(
            query("dataset", TEXT, "of this dataset"),
            query("all", YES_OR_NO, "also what was not built here"),
        ),
    ),
    "tables.show": Operation({200: ref("StandingTable")}),
    "tables.diff": Operation({200: ref("Plan")}, errors=(409,)),
    "tables.drop": Operation({200: ref("Changes")}, parameters=(DATA_LOSS,), errors=(409,)),
    "table_rows.head": Operation(
        {200: array(FREE)},
        parameters=(query("limit", whole(1, 1000), "rows; default 20"),),
        errors=(409, 413),
    ),
    "table_rows.export": Operation(
        {200: ANYTHING},
        parameters=(
            query("format", {"enum": ["csv", "parquet"]}, "default csv"),
            query("limit", whole(1, 2**63 - 1), "so many rows"),
        ),
        errors=(409,),
        other_types=("text/csv", "application/vnd.apache.parquet"),
        json=False,
    ),
    "quarantine.list_rows": Operation(
        {200: array(ref("QuarantinedRow"))},
        parameters=(
            query("limit", whole(1, 1000), "rows; default 100"),
            query("after", whole(1, 2**63 - 1), "the id of the last one seen"),
        ),
    ),
    "quarantine.replay": Operation(
        {200: record(replayed=WHOLE, left=WHOLE, errors=array(record(id=WHOLE, reason=TEXT)))},
        record("", ids=maybe(array(whole(1, 2**63 - 1))), rows=maybe(array(FREE))),
        {"ids": [17]},
        body_optional=True,
    ),
    "quarantine.drop": Operation(
        {200: record(dropped=WHOLE)},
        parameters=(query("id", array(whole(1, 2**63 - 1)), "only these"),),
    ),
    "job_settings.of_environment": Operation({200: SETTINGS}),
    "job_settings.set_defaults": Operation(
        {200: SETTINGS}, FREE, {"timeout": "30m", "retry": {"max_attempts": 3}}
    ),
    "job_settings.of_action": Operation({200: SETTINGS}),
    "job_settings.of_workflow": Operation(
        {
            200: record(
                settings=SETTINGS, steps=array(record(step=TEXT, runs=TEXT, settings=SETTINGS))
            )
        }
    ),
    "datasets.list_datasets": Operation({200: array(ref("Dataset"))}),
    "datasets.set_dialect": Operation(
        {200: ref("Dataset")},
        record(dialect={"enum": ["postgres", "trino"]}),
        {"dialect": "trino"},
    ),
    "health.health": Operation({200: record(status=TEXT)}),
    "health.ready": Operation({200: ref("Ready"), 503: ref("Ready")}),
    "openapi.openapi": Operation({200: record("openapi", openapi=TEXT, info=FREE, paths=FREE)}),
}  # fmt: skip
