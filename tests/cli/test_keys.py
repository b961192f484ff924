"""API keys, and the first one of an installation."""

import json
import os
import urllib.request
from pathlib import Path

import psycopg

from tests.cli.shell import Shell


def test_a_key_lives_until_it_is_revoked(shell: Shell) -> None:
    made = shell.ok("key", "create", "--name", "till", "--json").data
    assert (len(made["apikey"]), len(made["secretkey"])) == (48, 64)
    own = {"DPE_APIKEY": made["apikey"], "DPE_SECRETKEY": made["secretkey"]}
    token = shell.ok("token", **own).out.strip()
    url = shell.ok("env", "--json").data["DPE_URL"]
    with urllib.request.urlopen(f"{url}/dpe/v3/jobs?token={token}") as answer:
        assert answer.status == 200

    listed = {key["apikey"]: key for key in shell.ok("key", "list", "--json").data}
    assert listed[made["apikey"]]["role"] == "DPE Editor"
    assert made["secretkey"] not in json.dumps(listed)
    assert "till" in shell.ok("key", "list").out

    shell.ok("key", "revoke", made["apikey"])
    assert shell.fails("token", **own)
    assert shell.fails("key", "revoke", "0" * 48)
    assert "role" in shell.fails("key", "create", "--name", "x", "--role", "No such role").lower()


def test_the_first_key_needs_only_the_database(conn: psycopg.Connection, tmp_path: Path) -> None:
    database = {"DPE_DATABASE_URL": os.environ["DPE_DATABASE_URL"]}
    shell = Shell(tmp_path, database)
    made = shell.ok("key", "create", "--name", "first", "--json").data
    assert (len(made["apikey"]), len(made["secretkey"])) == (48, 64)
    told = shell.fails("key", "create", "--name", "second")
    assert "--in-database" in told
    shell.ok("key", "create", "--name", "rescue", "--in-database", "--role", "DPE Editor")
    names = conn.execute("SELECT name FROM dpe.keys ORDER BY id").fetchall()
    assert names == [("first",), ("rescue",)]
