"""What a stack writes down: no token, no key, no secret, though calls carry them."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.stack_file import environment
from tests.stack import until
from tests.up import Up, get

ACTION = "5ec4e75ec4e75ec4e75ec4e7"
SECRET = "correct horse battery staple"
MAIN = """
from forepaas.core.settings import PARAMS
def customfunc(event):
    print(PARAMS["password"])
    raise ValueError(PARAMS["password"])
"""
# Made for those who may know: read by their owner alone.
KEPT = {"stack.json", "credentials.json", "secrets.key"}


def raw(port: int, sent: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(sent.encode())
        return connection.recv(65536)


def written(home: Path) -> dict[Path, bytes]:
    """All that the stack has on disk: its logs, Flower's state, the servers' data."""
    found = {}
    for path in home.rglob("*"):
        if path.is_file() and path.name not in KEPT:
            try:
                found[path] = path.read_bytes()
            except OSError:  # Postgres removes files while it works
                continue
    return found


@pytest.mark.slow
def test_tokens_and_secrets_are_in_no_file_and_not_in_flower(tmp_path: Path) -> None:
    up = Up(tmp_path / "home", FLOWER_UNAUTHENTICATED_API="true").wait_until_up()
    try:
        token = up.run("token").stdout.strip()
        left = environment(up.home)
        call_in_all_ways(up, left, token)

        def shown() -> str:
            return json.dumps([get(left["DPE_FLOWER_URL"] + path) for path in FLOWER])

        # Where it came up after the jobs, it has them from the record, a moment later.
        flower = until(lambda: text if "Leaky" in (text := shown()) else None)
    finally:
        assert up.end() == 0
    files = written(up.home)
    names = {path.relative_to(up.home).parts[0] for path in files}
    assert {"log", "postgres", "valkey", "up.log"} <= names, names
    assert any(name.startswith("flower.db") for name in names), names  # .dat, .db: as its dbm likes
    log = (up.home / "log" / "api.log").read_text()
    assert "failed (id" in log  # so something was written
    for word in (token, token.split(".")[0], left["DPE_SECRETKEY"], SECRET):
        assert word not in flower
        assert [path for path, text in files.items() if word.encode() in text] == []


FLOWER = ["/api/tasks", "/tasks", "/workers?json=1", "/metrics"]


def call_in_all_ways(up: Up, left: dict[str, str], token: str) -> None:
    """Calls that pass, that are refused at each place, and that the engine itself fails at."""
    folder = up.home / "action"
    folder.mkdir()
    (folder / "main.py").write_text(MAIN)
    config: Any = {"display_name": "Leaky", "params": {"password": {"$secret": "password"}}}
    (folder / "forepaas.json").write_text(json.dumps(config))
    url = f"http://127.0.0.1:{up.port}/dpe/v3"
    set_ = put(f"{url}/secrets/password?token={token}", {"value": SECRET})
    assert set_ == 200
    assert up.run("action", "push", str(folder), "--id", ACTION).returncode == 0
    assert get(f"{url}/actions/{ACTION}/start?app_id=5&type=cam&token={token}", "POST")[0] == 202
    failed = get(f"{url}/actions/{ACTION}/start?wait=20&token={token}", "POST")
    assert failed[0] == 200
    assert json.loads(failed[1])["error"]["message"] == "***"
    assert [
        get(f"{url}/{path}token={token}", method)[0]
        for method, path in (
            ("GET", "jobs/none?"), ("GET", "jobs?limit=x&"), ("PATCH", "jobs?"),
            ("GET", "jobs?after=\x7f&".replace("\x7f", "%00")), ("GET", "no/such/route?"),
        )
    ] == [404, 400, 405, 400, 404]  # fmt: skip
    assert get(f"{url}/jobs?token={token}x")[0] == 401
    key = {"auth_mode": "apikey", "apikey": left["DPE_APIKEY"], "secretkey": "0" * 64}
    assert put(f"http://127.0.0.1:{up.port}/iam/login?token={token}", key, "POST") == 401
    for line in (f"GET /dpe/v3/jobs?token={token} HTTP/9.9", f"GET /{'x' * 9000}?token={token} H"):
        assert b" 4" in raw(up.port, f"{line}\r\nHost: a\r\n\r\n").splitlines()[0]
    with psycopg.connect(left["DPE_DATABASE_URL"], autocommit=True) as conn:
        conn.execute("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
                     " $$ BEGIN RAISE EXCEPTION 'no'; END $$")  # fmt: skip
        conn.execute("CREATE TRIGGER no BEFORE INSERT ON dpe.secrets EXECUTE FUNCTION no()")
        assert put(f"{url}/secrets/other?token={token}", {"value": SECRET}) == 500
        conn.execute("ALTER TABLE dpe.secrets RENAME TO gone")
        assert get(f"{url}/secrets?token={token}")[0] == 503
        conn.execute("ALTER TABLE dpe.gone RENAME TO secrets")
    os.kill(up.role("worker")["pid"], 9)
    os.kill(up.role("postgres")["pid"], 9)
    get(f"{url}/jobs?token={token}")
    until(up.ready)


def put(url: str, sent: Any, method: str = "PUT") -> int:
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, json.dumps(sent).encode(), method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
