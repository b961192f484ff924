"""API keys, sessions and roles, as they stand in Postgres."""

import re
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from worker.errors import Invalid
from worker.store import access


def test_a_key_is_long_and_its_secret_is_kept_as_a_digest(conn: psycopg.Connection) -> None:
    key = access.create_key(conn, "website")
    assert re.fullmatch("[0-9a-f]{48}", key.apikey)
    assert re.fullmatch("[0-9a-f]{64}", key.secretkey)
    assert key.role == "DPE Editor"
    assert abs(key.expires_at - datetime.now(UTC) - timedelta(days=730)) < timedelta(minutes=1)
    stored = conn.execute("SELECT row_to_json(k)::text FROM dpe.keys k").fetchone()
    assert key.secretkey not in stored[0]


@pytest.mark.parametrize(
    ("name", "role", "lifetime_s", "words"),
    [
        (" ", "DPE Editor", 1.0, "name"),
        ("x" * 201, "DPE Editor", 1.0, "name"),
        ("a", "DPE King", 1.0, "DPE Admin, DPE Editor, DPE Starter, DPE Viewer"),
        ("a", "DPE Editor", 0.0, "lifetime"),
        ("a", "DPE Editor", float("nan"), "lifetime"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(
    conn: psycopg.Connection, name: str, role: str, lifetime_s: float, words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        access.create_key(conn, name, role, lifetime_s)
    assert access.list_keys(conn) == []


def test_a_session_opens_with_the_secret_only(conn: psycopg.Connection) -> None:
    key, other = access.create_key(conn, "a"), access.create_key(conn, "b")
    assert access.open_session(conn, key.apikey, other.secretkey, 60) is None
    assert access.open_session(conn, "0" * 48, key.secretkey, 60) is None
    assert access.open_session(conn, key.apikey, "", 60) is None
    opened = access.open_session(conn, key.apikey, key.secretkey, 60)
    assert opened is not None
    found = access.find_session(conn, opened.secret)
    assert found is not None
    assert (found.name, found.role, found.apikey) == ("a", "DPE Editor", key.apikey)
    rows = conn.execute("SELECT id FROM dpe.sessions").fetchall()
    assert opened.secret not in str(rows)


def test_a_revoked_key_ends_its_sessions_at_once(conn: psycopg.Connection) -> None:
    key, other = access.create_key(conn, "a"), access.create_key(conn, "b")
    session = access.open_session(conn, key.apikey, key.secretkey, 60)
    stays = access.open_session(conn, other.apikey, other.secretkey, 60)
    revoked = access.revoke_key(conn, key.apikey)
    assert revoked is not None
    assert revoked.revoked_at is not None
    assert access.find_session(conn, session.secret) is None
    assert access.open_session(conn, key.apikey, key.secretkey, 60) is None
    assert access.find_session(conn, stays.secret) is not None
    assert access.revoke_key(conn, key.apikey) == revoked  # when it was first
    assert access.revoke_key(conn, "0" * 48) is None


def test_what_is_expired_opens_nothing(conn: psycopg.Connection) -> None:
    key = access.create_key(conn, "a", lifetime_s=3600)
    session = access.open_session(conn, key.apikey, key.secretkey, 10 * 3600)
    assert session.expires_at == key.expires_at
    conn.execute("UPDATE dpe.sessions SET expires_at = now()")
    assert access.find_session(conn, session.secret) is None
    fresh = access.open_session(conn, key.apikey, key.secretkey, 60)
    conn.execute("UPDATE dpe.keys SET expires_at = now()")
    assert access.find_session(conn, fresh.secret) is None
    assert access.open_session(conn, key.apikey, key.secretkey, 60) is None


def test_a_closed_session_is_over(conn: psycopg.Connection) -> None:
    key = access.create_key(conn, "a")
    session = access.open_session(conn, key.apikey, key.secretkey, 60)
    assert access.close_session(conn, session.secret)
    assert access.find_session(conn, session.secret) is None
    assert not access.close_session(conn, session.secret)


def test_a_session_is_found_by_indexes_among_many(conn: psycopg.Connection) -> None:
    key = access.create_key(conn, "a")
    conn.execute(
        "INSERT INTO dpe.keys (apikey, secret, name, role)"
        " SELECT 'k' || n, 's', 'n', 'DPE Viewer' FROM generate_series(1, 2000) n"
    )
    conn.execute(
        "INSERT INTO dpe.sessions (id, key_id, expires_at)"
        " SELECT 's' || id, id, now() + interval '1 hour' FROM dpe.keys"
    )
    conn.execute("ANALYZE dpe.keys, dpe.sessions")
    session = access.open_session(conn, key.apikey, key.secretkey, 60)
    before = scans(conn)
    assert access.find_session(conn, session.secret) is not None
    after = scans(conn)
    for name, (whole, by_index) in after.items():
        assert whole == before[name][0]
        assert by_index > before[name][1]


def scans(conn: psycopg.Connection) -> dict[str, tuple[int, int]]:
    """How often each table was read whole, and how often by an index."""
    conn.execute("SELECT pg_stat_force_next_flush()")
    rows = conn.execute(
        "SELECT relname, seq_scan, idx_scan FROM pg_stat_user_tables"
        " WHERE relname IN ('keys', 'sessions')"
    ).fetchall()
    return {name: (all, by) for name, all, by in rows}


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("DPE Admin", ["dpe:action:start", "iam:key:write", "dwh:table:build"], []),
        ("DPE Editor", ["dpe:action:write", "dpe:job:stop", "dwh:table:build"], ["iam:key:write"]),
        (
            "DPE Starter",
            ["dpe:action:start", "dpe:job:read"],
            ["dpe:action:read", "dpe:job:stop", "dpe:job:retry", "dwh:table:read"],
        ),
        (
            "DPE Viewer",
            ["dpe:action:read", "dpe:job:read", "dwh:table:read"],
            ["dpe:action:start", "dpe:action:write", "dpe:job:stop", "iam:key:read"],
        ),
        ("a role of another version", [], ["dpe:job:read"]),
    ],
)
def test_roles(role: str, may: list[str], may_not: list[str]) -> None:
    at = datetime.now(UTC)
    session = access.Session("s", 1, "k", "n", role, at, at)
    assert [p for p in may if not session.may(p)] == []
    assert [p for p in may_not if session.may(p)] == []
