"""From an exception to an answer: RFC 9457's fields and, in the same object, what old clients read.

Here alone is decided which status an error gets.  Nothing of a stack trace leaves the process.
"""

import logging
import math
import re
from typing import Any
from uuid import uuid4

import psycopg
from flask import Flask, Response, request
from psycopg_pool import PoolClosed, PoolTimeout
from redis import RedisError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from app.answers import encode
from worker.errors import (
    DpeError,
    Invalid,
    NotFound,
    NotMigrated,
    RowsRefused,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

NOT_FOUND = 404
SERVER_ERROR = 500
RETRY_AFTER_S = "1"

logger = logging.getLogger("app")


def register(app: Flask) -> None:
    """Make every error of the application an answer."""
    app.register_error_handler(Exception, answer)


def answer(error: Exception) -> Response:
    """The answer to an error of any kind."""
    known = _known(error)
    if known is None:
        known = DpeError("the engine failed; its log says more under this answer's id")
    if isinstance(error, HTTPException) and not isinstance(known, TooLarge):
        return _problem(error.code or SERVER_ERROR, error.name, str(known), headers=_allow(error))
    members: dict[str, Any] = {}
    if known.status == SERVER_ERROR:
        members["id"] = str(uuid4())
        # The path alone: the query may carry a token.
        logger.error("%s %s failed (id %s)", request.method, request.path, members["id"],
                     exc_info=error)  # fmt: skip
    if isinstance(known, Unavailable):
        logger.warning("%s %s: %s", request.method, request.path, known)
    if isinstance(known, RowsRefused):
        members |= {"bad_rows": known.bad_rows, "errors": known.errors}
    if known.hint:
        members["hint"] = known.hint
    return _problem(known.status, known.title, str(known), members, _headers(known), type(known))


def _headers(known: DpeError) -> dict[str, str]:
    match known:
        case Unauthenticated():
            return {"WWW-Authenticate": "Bearer"}
        case Unavailable():
            return {"Retry-After": RETRY_AFTER_S}
        case TooMany():
            return {"Retry-After": str(math.ceil(known.retry_after_s))}
        case Unsupported():
            return {"Accept-Encoding": "gzip"}  # RFC 9110, section 15.5.16
    return {}


def _known(error: Exception) -> DpeError | None:
    """The error in the engine's own terms; None: nobody foresaw it."""
    match error:
        case DpeError():
            return error
        case RequestEntityTooLarge():
            return TooLarge(
                f"the body is larger than the {request.max_content_length} bytes allowed",
                "send fewer rows a call; DPE_MAX_BODY_BYTES is the limit of a start",
            )
        case HTTPException():
            return _of_http(error)
        case RedisError():
            return Unavailable("the broker does not answer", "try again in a moment")
    return _of_postgres(error)


def _of_postgres(error: Exception) -> DpeError | None:
    match error:
        case psycopg.errors.UndefinedTable() | psycopg.errors.UndefinedColumn():
            return NotMigrated("the database's tables are missing or older than this program")
        case psycopg.DataError():
            return Invalid(f"a value can't be stored: {_first_line(error)}")
        case (
            psycopg.OperationalError()
            | psycopg.InterfaceError()
            | psycopg.errors.ReadOnlySqlTransaction()
            | PoolTimeout()
            | PoolClosed()
        ):
            # What libpq says names hosts and users: that is for the log.
            logger.warning("Postgres: %s", _first_line(error))
            return Unavailable("the database does not answer", "try again in a moment")
    return None


def _of_http(error: HTTPException) -> DpeError:
    if error.code == NOT_FOUND:
        return NotFound(f"{request.method} {request.path} not found")
    return DpeError(re.sub(r"\s+", " ", error.description or error.name))


def _problem(
    status: int,
    title: str,
    detail: str,
    members: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    kind: type[DpeError] | None = None,
) -> Response:
    old = "warning" if status == NOT_FOUND else "error"
    type_ = f"urn:open-dpe:{_dashed(kind.__name__)}" if kind else "about:blank"
    body = {
        old: detail,
        "type": type_,
        "title": title,
        "status": status,
        "detail": detail,
        **(members or {}),
    }
    wanted = "application/problem+json" in request.headers.get("Accept", "")
    mimetype = "application/problem+json" if wanted else "application/json"
    return Response(encode(body), status, headers, mimetype=mimetype)


def _allow(error: HTTPException) -> dict[str, str]:
    return {name: value for name, value in error.get_headers() if name == "Allow"}


def _dashed(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
