"""From a token to permissions: every route says what it needs, and nothing runs before that."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from flask import g, request

from app.recording import is_recorded, recorded
from app.resources import Resources, resources
from worker.errors import Forbidden, Unauthenticated
from worker.store import access
from worker.store.access import Session, within

View = TypeVar("View", bound=Callable[..., Any])

ANY_SESSION = "any session"
NOBODY = "no session"


def needs(permission: str, *, checked_with_the_statement: bool = False) -> Callable[[View], View]:
    """Let a view run for sessions with this permission only (`"dpe:action:start"`).

    `ANY_SESSION` asks for an open session alone.  The session is `g.session` then.  A view whose
    own statement asks whether the session is open (`checked_with_the_statement`) may be given one
    that was read before: what a session may do never changes, and Postgres is asked once and not
    twice.
    """

    def declare(view: View) -> View:
        @wraps(view)
        def gate(*args: Any, **kwargs: Any) -> Any:
            session = _authenticate(checked_with_the_statement)
            if permission != ANY_SESSION and not session.may(permission):
                raise Forbidden(hint=f"the role {session.role} has no {permission}")
            if not session.may_come_from(address()):
                raise Forbidden(hint="its key may not be used from this address")
            g.session = session
            if permission.endswith(":write"):
                # A workflow of its own could have steps of actions that are not.
                check_touch(kwargs.get("id") if permission == "dpe:action:write" else None)
            if is_recorded(permission):
                return recorded(session, address(), permission, lambda: view(*args, **kwargs))
            return view(*args, **kwargs)

        setattr(gate, "needs", permission)  # noqa: B010 -- the test of all routes reads it
        return cast("View", gate)

    return declare


def open_to_all(view: View) -> View:
    """Declare that a view answers without a session."""
    setattr(view, "needs", NOBODY)  # noqa: B010
    return view


def session() -> Session:
    """The session that this request came with."""
    return g.session


def check_touch(id: str | None) -> None:
    """Raise Forbidden where the session's key is bound to other actions and workflows than this.

    None is something else that it would change, like a key or a trigger: through these it could
    start what it may not.
    """
    if not session().may_touch(id):
        what = "this" if id is None else id
        raise Forbidden(hint=f"its key is bound to other actions and workflows than {what}")


def address() -> str:
    """Where the request comes from; of one that a trusted proxy hands on, what that one says."""
    peer = request.remote_addr or ""
    trusted = resources().settings.trusted_proxies
    # The nearest proxy writes last, and what a caller wrote itself stands before: from the end on,
    # the first that is no proxy of ours is the caller.
    for hop in reversed(request.headers.get("X-Forwarded-For", "").split(",")):
        if not trusted or not within(peer, trusted) or not hop.strip():
            break
        peer = hop.strip()
    return peer


def token_secret() -> str:
    """The secret inside this request's token; raises Unauthenticated where there is none."""
    return resources().tokens.unseal(token())


def check_session() -> None:
    """Ask Postgres whether the request's session is open; raises Unauthenticated."""
    read_session(resources(), token())


def token() -> str:
    """The token that this request came with; raises Unauthenticated where there is none."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    given = value.strip() if scheme.lower() == "bearer" else request.args.get("token", "")
    if not given:
        raise Unauthenticated(hint="send ?token= or Authorization: Bearer; POST /iam/login has it")
    return given


def read_session(held: Resources, token: str) -> Session:
    """The open session of a token, as Postgres has it now; raises Unauthenticated."""
    secret = held.tokens.unseal(token)
    with held.pool.connection() as conn:
        found = access.find_session(conn, secret)
    held.sessions.keep(token, found)
    if found is None:
        raise Unauthenticated
    return found


def _authenticate(known_will_do: bool) -> Session:
    given, held = token(), resources()
    known = held.sessions.get(given) if known_will_do else None
    return known or read_session(held, given)
