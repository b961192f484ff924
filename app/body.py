"""What requests carry: events, kept byte for byte, and JSON objects."""

import zlib
from codecs import BOM_UTF8
from collections.abc import Callable
from typing import Any

import orjson
from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from worker.content import decoded
from worker.errors import Invalid, TooLarge, Unsupported

GZIP = 16 + zlib.MAX_WBITS  # zlib's way to say it
MAX_OBJECT_BYTES = 1_000_000  # of a body that is no event: a login, a key, a table


def event() -> str | None:
    """The posted event as it stands, checked to be JSON; None where there is no body.

    The type of the content is not asked for: curl sends JSON as a form unless told otherwise.
    Raises Invalid naming line and column.
    """
    return event_of(_sent())


def event_of(body: bytes) -> str | None:
    """The event that these bytes are, as `event` has it: whichever way they came."""
    text = _text(body)
    if text is not None:
        # Whether it is JSON: to look for long numbers as well takes four times as long.
        _parse(text, orjson.loads)
    return text


def json_object(max_bytes: int = MAX_OBJECT_BYTES) -> dict[str, Any]:
    """The body as a JSON object; raises Invalid."""
    request.max_content_length = max_bytes
    text = _text(_sent())
    value = None if text is None else _parse(text)
    if not isinstance(value, dict):
        raise Invalid("the body must be a JSON object")
    return value


def string(fields: dict[str, Any], name: str, default: str | None = None) -> str:
    """One text of a JSON object; raises Invalid naming the field."""
    value = fields.get(name, default)
    if not isinstance(value, str) or not value:
        raise Invalid(f'"{name}" must be a text, and not empty')
    return value


def received() -> bytes:
    """The body's bytes, the same at each call; raises Invalid where it did not arrive whole."""
    body = request.get_data()
    # Werkzeug cuts a body without Content-Length at the limit and says nothing (3.1).
    if len(body) == request.max_content_length and request.environ["wsgi.input"].read(1):
        raise RequestEntityTooLarge
    if not _is_whole(body):
        raise broken_off()
    return body


def broken_off() -> Invalid:
    """What is said of a body that did not arrive whole."""
    return Invalid(
        "the body did not arrive whole: its connection broke, or its chunks are malformed",
        "a body that is empty or a number is sent with a Content-Length",
    )


def _is_whole(body: bytes) -> bool:
    """Whether a body has come to its end; the server hands on what came before an error (2.8).

    In chunks, it has where it shows its own end: JSON does, but for numbers.
    """
    if request.content_length is not None:
        return len(body) == request.content_length
    in_chunks = "Transfer-Encoding" in request.headers
    return not in_chunks or not (body.rstrip()[-1:] or b"0").isdigit()


def _sent() -> bytes:
    """The body as it was before gzip, of a charset that JSON may have."""
    body = received()
    charset = request.mimetype_params.get("charset", "utf-8")
    if charset.lower().replace("_", "-") not in {"utf-8", "utf8", "us-ascii", "ascii"}:
        raise Invalid(f"the body's charset is {charset}: JSON is sent as UTF-8 (RFC 8259)")
    return _unpacked(body)


def _text(body: bytes) -> str | None:
    try:
        # A mark at the beginning is what Windows' editors write; RFC 8259 allows to ignore it.
        text = body.removeprefix(BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"the body is not UTF-8: byte {error.start + 1} of {len(body)}") from None
    return None if not text or text.isspace() else text


def _unpacked(body: bytes) -> bytes:
    """The body as it was before gzip; never more bytes than a body may have as it is."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding not in {"gzip", "x-gzip"}:
        raise Unsupported(f"the body's Content-Encoding is {encoding}: send it as it is, or gzip")
    most = request.max_content_length
    unpacking = zlib.decompressobj(GZIP)
    try:
        found = unpacking.decompress(body, 0 if most is None else most + 1)
    except zlib.error as error:
        raise Invalid(
            f"the body is no gzip, though its Content-Encoding says so: {error}"
        ) from None
    if most is not None and len(found) > most:
        raise TooLarge(f"the body unpacks to more than the {most} bytes allowed")
    if not unpacking.eof:
        raise Invalid("the body's gzip breaks off before its end")
    if unpacking.unused_data:
        raise Invalid(f"{len(unpacking.unused_data)} bytes follow the end of the body's gzip")
    return found


def _parse(text: str, read: Callable[[str], Any] = decoded) -> Any:
    try:
        return read(text)
    except orjson.JSONDecodeError as error:
        raise Invalid(
            f"the body is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
