"""Generated requests against a running stack: Schemathesis, by the document of the stack itself.

Each answer is held against `/openapi.json`: its status, its type, its headers, its shape; a 5xx,
a route that forgets to ask for a token, or another's method taken, is a failure.
"""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.up import Up

ACTION = "5eaf0db7f6f51d5255974217"
WORKFLOW = "5eaf0db7f6f51d5255974218"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
    "unsupported_method",
)
# The singular names are the same views; a logout would end the session that all requests use.
LEFT_OUT = r"/(action|job|workflow)(/|$)|/logout$|^/iam/(login|checkSession)$"


@dataclass(frozen=True)
class Fuzzed:
    """What came of a run."""

    requests: int
    failed: bool
    said: str


def prepare(up: Up) -> str:
    """Something to ask for: a key, a table, an action, a workflow and a job; the job's id."""
    # Of its own: the keys that a round has seen in answers, it may have revoked.
    words = ("key", "create", "--name", "fuzz", "--role", "DPE Admin", "--in-database", "--json")
    key = json.loads(up.run(*words).stdout)
    up.environ |= {"DPE_APIKEY": key["apikey"], "DPE_SECRETKEY": key["secretkey"]}
    for words in (
        ("table", "build", "examples/tables/event_archive.json", "--allow-data-loss"),
        ("action", "push", "examples/event_archive", "--id", ACTION),
    ):
        done = up.run(*words)
        assert done.returncode == 0, done.stderr
    started = up.run("start", "action", ACTION, "--data", "[]", "--wait", "--json")
    return json.loads(started.stdout)["execution_id"]


def fuzz(up: Up, folder: Path, examples: int, seed: int) -> Fuzzed:
    """`examples` requests of each kind a route; those that name what is there, and any others."""
    job = prepare(up)
    names = {
        "path.id": ACTION,
        "path.execution_id": job,
        "path.dataset": "data_prim",
        "path.name": "event_archive",
    }
    known = folder / "known.toml"
    lines = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in names.items()]
    known.write_text("[parameters]\n" + "\n".join(lines) + "\n")
    unknown = folder / "unknown.toml"
    unknown.write_text("")
    # What is deleted is not there any more for those that come after.
    parts = [
        _run(up, known, examples, seed, "--exclude-method", "DELETE"),
        _run(up, unknown, examples, seed + 1),
    ]
    return Fuzzed(
        sum(part.requests for part in parts),
        any(part.failed for part in parts),
        "\n".join(part.said for part in parts),
    )


def _run(up: Up, config: Path, examples: int, seed: int, *words: str) -> Fuzzed:
    token = up.run("token").stdout.strip()
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config)]
    command += ["run", f"http://127.0.0.1:{up.port}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {token}", "--seed", str(seed)]
    command += ["--phases", "examples,fuzzing", "--max-examples", str(examples)]
    command += ["--checks", ",".join(CHECKS), "--exclude-path-regex", LEFT_OUT]
    command += ["--generation-database", "none", "--warnings", "off", "--no-color", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=config.parent)
    count = re.search(r"(\d+) generated", done.stdout)
    return Fuzzed(int(count[1]) if count else 0, done.returncode != 0, done.stdout + done.stderr)
