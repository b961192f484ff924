"""Everything that can go wrong and that somebody can mend, in one hierarchy.

`status` is the HTTP status that the error becomes, `hint` says what to do next.
"""

from typing import Any


class DpeError(Exception):
    """The root; its text is one line that names the cause and the place."""

    status = 500
    title = "The engine failed"
    hint = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or self.hint


class SettingError(DpeError):
    """A `DPE_*` variable is missing or wrong."""

    title = "A setting is wrong"


class Invalid(DpeError):
    """What was sent can't be taken as it is."""

    status = 400
    title = "The request is not valid"


class Unauthenticated(DpeError):
    """No credentials, or ones that don't hold.

    Old clients take exactly this text as a lost session and log in again.
    """

    status = 401
    title = "Not authenticated"

    def __init__(self, message: str = "Invalid token", hint: str = "") -> None:
        super().__init__(message, hint or "log in again: POST /iam/login, or `dpe token`")


class Forbidden(DpeError):
    """Known, but without the permission."""

    status = 403
    title = "Not permitted"

    def __init__(self, message: str = "No permission for this user", hint: str = "") -> None:
        super().__init__(message, hint)


class NotFound(DpeError):
    """Nothing stands under that name or id."""

    status = 404
    title = "Not found"


class Conflict(DpeError):
    """What is asked contradicts what stands."""

    status = 409
    title = "Conflict"


class KeyReused(DpeError):
    """An Idempotency-Key came with another body than at first."""

    status = 422
    title = "The Idempotency-Key was used before"


class RowsRefused(DpeError):
    """Rows of an event don't fit the table that it feeds; `errors` has each one's place and why."""

    status = 422
    title = "Rows do not fit the table"

    def __init__(
        self, message: str, hint: str, bad_rows: int, errors: list[dict[str, Any]]
    ) -> None:
        super().__init__(message, hint)
        self.bad_rows = bad_rows
        self.errors = errors


class TooLarge(DpeError):
    """A body over the limit."""

    status = 413
    title = "The body is too large"


class Unsupported(DpeError):
    """A body that is encoded in a way not taken here."""

    status = 415
    title = "The body's encoding is not taken"


class TooMany(DpeError):
    """More at once than is allowed; the same call may pass in `retry_after_s` seconds."""

    status = 429
    title = "Too many at once"

    def __init__(self, message: str, hint: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, hint)
        self.retry_after_s = retry_after_s


class Unavailable(DpeError):
    """Postgres does not answer now; the same call may pass in a moment."""

    status = 503
    title = "Not available right now"


class NotMigrated(Unavailable):
    """The database's tables are missing or older than this program."""

    hint = "run `dpe migrate`"


class LoadError(DpeError):
    """An action's code can't be loaded; the cause is chained."""


class ClaimLost(DpeError):
    """The job belongs to another attempt by now, or has ended: nothing of this one may stand."""


class DatasetError(DpeError):
    """A dataset, table, column or value does not fit; raised to handlers."""

    status = 400
