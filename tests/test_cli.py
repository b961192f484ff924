"""The command `dpe` as its users drive it: a stack of its own, every command a process."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psutil
import psycopg
import pytest

from app.cli import dpe as root
from tests.stack import until

ROOT = Path(__file__).resolve().parent.parent
DPE = str(Path(sys.executable).parent / "dpe")
ACTION = "c11c11c11c11c11c11c11c11"
MAIN = """
import logging
import time
from lib.words import GREETING

logger = logging.getLogger(__name__)

def handle(event):
    for row in event.content or []:
        logger.info("%s %s", GREETING, row["who"])
        if row["who"] == "nobody":
            raise ValueError("nobody is there")
        time.sleep(row.get("seconds", 0))
    return {"greeted": len(event.content or [])}
"""


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@dataclass
class Shell:
    """A shell in which `dpe` is typed; nothing of the tests' own environment is in it."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    def full_environ(self, **environ: str) -> dict[str, str]:
        own = {k: v for k, v in os.environ.items() if not k.startswith("DPE_")}
        return own | {"DPE_HOME": str(self.home)} | self.environ | environ

    def run(self, *words: str | Path, stdin: str = "", **environ: str) -> Ended:
        done = subprocess.run(
            [DPE, *map(str, words)],
            check=False,
            env=self.full_environ(**environ),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: str | Path, stdin: str = "", **environ: str) -> Ended:
        ended = self.run(*words, stdin=stdin, **environ)
        assert ended.code == 0, ended
        return ended

    def fails(self, *words: str | Path, code: int = 1, **environ: str) -> str:
        """Run what must fail: nothing on stdout, one line on stderr, which is returned."""
        ended = self.run(*words, **environ)
        assert (ended.code, ended.out) == (code, ""), ended
        assert ended.err.startswith("dpe: ")
        assert ended.err.count("\n") == 1, ended.err
        return ended.err


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell beside a `dpe up` that runs."""
    shell = Shell(tmp_path_factory.mktemp("home"))
    up, _ = start_stack(shell, "--no-flower", "--workers", "2")
    yield shell
    end_stack(up)


def start_stack(shell: Shell, *words: str) -> tuple[subprocess.Popen[bytes], str]:
    """`dpe up` until /ready says yes; returns it and the API's address."""
    port = free_port()
    log = shell.home / "up.log"
    with log.open("wb") as out:
        up = subprocess.Popen(
            [DPE, "up", "--port", str(port), *words],
            env=shell.full_environ(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert up.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    until(ready, 60)
    return up, url


def end_stack(up: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, as a terminal sends it: to the whole group."""
    os.killpg(up.pid, signal.SIGINT)
    assert up.wait(30) in {0, 130}
    until(lambda: not _of_group(up.pid), 5)


def _of_group(group: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An action of two modules, and what lies around in such folders."""
    folder = tmp_path_factory.mktemp("greeter")
    (folder / "main.py").write_text(MAIN)
    config = {"display_name": "Greeter", "function_name": "handle", "my_own_key": [1, 2]}
    (folder / "forepaas.json").write_text(json.dumps(config))
    (folder / "lib").mkdir()
    (folder / "lib" / "words.py").write_text('GREETING = "good day,"\n')
    (folder / "lib" / "__pycache__").mkdir()
    (folder / "lib" / "__pycache__" / "words.cpython-311.pyc").write_bytes(b"\0")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (folder / ".env").write_text("PASSWORD=secret\n")
    return folder


@pytest.fixture
def greeter(shell: Shell, folder: Path) -> str:
    """The id of the action, pushed."""
    shell.ok("action", "push", folder, "--id", ACTION)
    return ACTION


# Help, errors, start-up


def commands(group: click.Group, path: str = "dpe") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


ALL_COMMANDS = dict(commands(root))
LEAVES = {path: c for path, c in ALL_COMMANDS.items() if not isinstance(c, click.Group)}


@pytest.mark.parametrize("path", LEAVES)
def test_every_command_has_help_with_an_example(path: str) -> None:
    text = LEAVES[path].get_help(click.Context(LEAVES[path], info_name=path))
    assert "Example" in text
    assert path in text.partition("Example")[2]


def test_help_is_printed_and_ends_well(tmp_path: Path) -> None:
    assert "dpe up" in Shell(tmp_path).ok("--help").out
    assert "--follow" in Shell(tmp_path).ok("job", "logs", "--help").out


def test_the_reference_has_every_command_and_option() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text()
    for path, command in ALL_COMMANDS.items():
        if path in LEAVES:
            section = text.partition(f"\n### `{path}")[2].partition("\n### ")[0]
            assert section, f"{path} is not in docs/reference/cli.md"
            for option in command.params:
                if isinstance(option, click.Option):
                    assert option.opts[0] in section, f"{path} {option.opts[0]}"


def test_starting_the_command_loads_nothing_heavy() -> None:
    heavy = {"flask", "celery", "pandas", "psycopg", "redis", "rich", "orjson", "http.client"}
    code = "import sys, app.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_without_a_stack_the_error_says_what_to_run(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    nobody = {"DPE_URL": f"http://127.0.0.1:{free_port()}"}
    assert "run `dpe up`" in shell.fails("job", "list")
    assert "run `dpe up`" in shell.fails("env")
    key = {"DPE_APIKEY": "a" * 48, "DPE_SECRETKEY": "b" * 64}
    told = shell.fails("job", "list", **nobody, **key)
    assert "refused" in told
    assert "run `dpe up`" in told
    assert shell.ok("ps", "--json").data == []


def test_a_wrong_word_is_a_usage_error(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert "see `dpe --help`" in shell.fails("nonsense", code=2)
    assert "see `dpe job list --help`" in shell.fails("job", "list", "--limit", "many", code=2)


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    assert "DPE_PORT" in Shell(tmp_path).fails("job", "list", DPE_PORT="http")
    assert "DPE_URL" in Shell(tmp_path).fails(
        "token", DPE_URL="ftp://x", DPE_APIKEY="a", DPE_SECRETKEY="b"
    )


def test_credentials_left_by_the_stack_are_not_sent_to_another_server(shell: Shell) -> None:
    # Nobody listens there: the command must stop before it calls at all.
    told = shell.fails("token", DPE_URL=f"http://127.0.0.1:{free_port()}")
    assert "DPE_APIKEY and DPE_SECRETKEY are not set" in told


# The stack


def test_env_lines_make_a_shell_know_the_stack(shell: Shell, tmp_path: Path) -> None:
    left = shell.ok("env", "--json").data
    lines = shell.ok("env").out
    assert {"DPE_DATABASE_URL", "DPE_BROKER_URL", "DPE_URL", "DPE_APIKEY", "DPE_SECRETKEY"} <= set(
        left
    )
    # The lines alone are enough: another folder, an empty DPE_HOME.
    script = f"{lines}\nexport DPE_HOME={shlex.quote(str(tmp_path))}\n{shlex.quote(DPE)} token"
    done = subprocess.run(
        ["sh", "-c", script],
        env=shell.full_environ(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.split()) == 1


def test_ps_lists_the_roles_and_the_workers_children(shell: Shell) -> None:
    found = shell.ok("ps", "--json").data
    roles = [process["role"] for process in found]
    assert {"up", "postgres", "valkey", "api", "worker"} <= set(roles), roles
    assert roles.count("worker child") == 2
    assert all(psutil.pid_exists(process["pid"]) for process in found)
    assert all(process["since"].startswith("20") for process in found)
    assert "ROLE" in shell.ok("ps").out


def test_migrate_has_nothing_left_to_do(shell: Shell) -> None:
    assert shell.ok("migrate", "--json").data == {"applied": []}


# Tables


def test_a_described_table_is_built(shell: Shell, tmp_path: Path) -> None:
    file = ROOT / "examples" / "tables" / "event_archive.json"
    assert "built data_prim.event_archive: created" in shell.ok("table", "build", file).out
    assert "nothing had to change" in shell.ok("table", "build", file).out
    built = shell.ok("table", "build", file, "--json").data
    assert (built["dataset"], built["name"]) == ("data_prim", "event_archive")
    assert "event_archive" in [t["name"] for t in shell.ok("table", "list", "--json").data]
    assert shell.ok("table", "list", "--dataset", "elsewhere", "--json").data == []
    assert "order_id Number" in shell.ok("table", "list").out

    broken = tmp_path / "broken.json"
    broken.write_text('{"dataset": ')
    assert "broken.json is not JSON" in shell.fails("table", "build", broken)
    assert "No such file" in shell.fails("table", "build", tmp_path / "missing.json")
    broken.write_text(
        '{"dataset": "data_prim", "name": "x", "attributes": [{"name": "a", "type": "Nr"}]}'
    )
    assert "Nr" in shell.fails("table", "build", broken)


# Actions


def test_push_and_pull_carry_a_folder_both_ways(shell: Shell, folder: Path, tmp_path: Path) -> None:
    pushed = shell.ok("action", "push", folder, "--id", ACTION, "--json").data
    assert (pushed["id"], pushed["name"]) == (ACTION, "Greeter")
    again = shell.ok("action", "push", folder, "--id", ACTION, "--json").data
    assert again["version"] == pushed["version"]

    shell.ok("action", "pull", ACTION, tmp_path / "copy")
    copied = {p.relative_to(tmp_path / "copy").as_posix() for p in (tmp_path / "copy").rglob("*.*")}
    assert copied == {"main.py", "forepaas.json", "lib/words.py"}
    assert (tmp_path / "copy" / "main.py").read_text() == MAIN
    assert "--force" in shell.fails("action", "pull", ACTION, tmp_path / "copy")
    shell.ok("action", "pull", ACTION, tmp_path / "copy", "--force")

    shown = shell.ok("action", "show", ACTION, "--json").data
    assert (shown["_id"], shown["name"]) == (ACTION, "Greeter")
    assert ACTION in shell.ok("action", "list").out
    assert ACTION in [a["id"] for a in shell.ok("action", "list", "--json").data]


def test_push_without_an_id_takes_the_action_of_that_name(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def customfunc(event): ...\n")
    (tmp_path / "forepaas.json").write_text('{"display_name": "By its name"}')
    first = shell.ok("action", "push", tmp_path, "--json").data
    (tmp_path / "main.py").write_text("def customfunc(event): return 1\n")
    second = shell.ok("action", "push", tmp_path, "--json")
    assert second.data["id"] == first["id"]
    assert second.data["version"] == first["version"] + 1
    assert first["id"] in second.err

    shell.ok("action", "delete", first["id"])
    assert first["id"] in shell.fails("action", "show", first["id"])


def test_a_folder_that_is_no_action_is_refused_by_name(shell: Shell, tmp_path: Path) -> None:
    assert "is not a folder" in shell.fails("action", "push", tmp_path / "nothing")
    assert "has no main.py" in shell.fails("action", "push", tmp_path)
    (tmp_path / "main.py").write_text("")
    assert "has no forepaas.json" in shell.fails("action", "push", tmp_path)
    (tmp_path / "forepaas.json").write_text("{")
    assert "forepaas.json" in shell.fails("action", "push", tmp_path)
    (tmp_path / "forepaas.json").write_text("{}")
    assert "24 hex" in shell.fails("action", "push", tmp_path, "--id", "short")


# Starting, and what becomes of it


def test_start_and_wait_tells_the_statuses_and_the_result(shell: Shell, greeter: str) -> None:
    ended = shell.ok("start", "action", greeter, "--data", '[{"who": "Ada"}]', "--wait")
    statuses = [line.split()[-1] for line in ended.err.splitlines()]
    assert statuses[1:] == ["QUEUED", "PROCESSING", "SUCCESS"]
    assert '{"greeted": 1}' in ended.out

    job = shell.ok(
        "start", "action", greeter, "--data", "-", "--wait", "--json", stdin='[{"who": "Bo"}]'
    )
    assert (job.data["status"], job.data["result"], job.err) == ("SUCCESS", {"greeted": 1}, "")


def test_the_event_may_come_from_a_file(shell: Shell, greeter: str, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[{"who": "Cy"}, {"who": "Di"}]')
    answer = shell.ok("start", "action", greeter, "--data", f"@{tmp_path}/rows.json", "--json").data
    logs = shell.ok("job", "logs", answer["execution_id"], "--follow").out
    assert "good day, Cy" in logs
    assert "good day, Di" in logs
    assert "No such file" in shell.fails(
        "start", "action", greeter, "--data", "@/nowhere/rows.json"
    )
    assert "JSON" in shell.fails("start", "action", greeter, "--data", "[1,")


def test_a_job_that_fails_is_exit_code_1(shell: Shell, greeter: str) -> None:
    ended = shell.run("start", "action", greeter, "--data", '[{"who": "nobody"}]', "--wait")
    assert ended.code == 1
    assert "ValueError: nobody is there" in ended.err.splitlines()[-1]
    assert "Traceback" in ended.out  # the handler's own, in the job's record
    ended = shell.run(
        "start", "action", greeter, "--data", '[{"who": "nobody"}]', "--wait", "--json"
    )
    assert (ended.code, ended.data["status"]) == (1, "FAILED")
    assert "0" * 24 in shell.fails("start", "action", "0" * 24)


def test_jobs_are_listed_and_shown(shell: Shell, greeter: str) -> None:
    ids = [
        shell.ok(
            "start", "action", greeter, "--data", f'[{{"who": "{who}"}}]', "--wait", "--json"
        ).data
        for who in ("Ed", "Fay")
    ]
    listed = shell.ok("job", "list", "--action", greeter, "--limit", "2", "--json").data
    assert [job["execution_id"] for job in listed] == [job["execution_id"] for job in ids[::-1]]
    newest = shell.ok("job", "list", "--limit", "1000", "--json").data
    oldest = shell.ok("job", "list", "--limit", "1000", "--oldest-first", "--json").data
    assert oldest == newest[::-1]
    failed = shell.ok("job", "list", "--status", "failed", "--status", "timeout", "--json").data
    assert {job["status"] for job in failed} <= {"FAILED", "TIMEOUT"}
    later = shell.ok("job", "list", "--since", "2999-01-01T00:00:00Z", "--json")
    assert later.data == []

    short = ids[0]["execution_id"][:7]
    assert short in shell.ok("job", "list").out
    assert shell.ok("job", "show", short, "--json").data["execution_id"] == ids[0]["execution_id"]
    assert "SUCCESS" in shell.ok("job", "show", short).out
    assert "ffffffff" in shell.fails("job", "show", "ffffffff-ffff-4fff-bfff-ffffffffffff")


def test_the_log_is_followed_live_until_the_end(shell: Shell, greeter: str) -> None:
    rows = '[{"who": "Gus", "seconds": 3}, {"who": "Hal"}]'
    job = shell.ok("start", "action", greeter, "--data", rows, "--json").data
    with subprocess.Popen(
        [DPE, "job", "logs", job["execution_id"], "--follow"],
        env=shell.full_environ(),
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        first = next(line for line in following.stdout if "good day, Gus" in line)
        status = shell.ok("job", "show", job["execution_id"], "--json").data["status"]
        rest = following.stdout.read()
    assert "INFO" in first
    assert status == "PROCESSING"
    assert following.returncode == 0
    assert "Hal" in rest
    assert "END (custom) action." in rest

    lines = shell.ok("job", "logs", job["execution_id"], "--json").data
    assert [line["message"] for line in lines if "good day" in line["message"]] == [
        "good day, Gus",
        "good day, Hal",
    ]
    streamed = shell.ok("job", "logs", job["execution_id"], "--json", "--follow").out
    assert [json.loads(line) for line in streamed.splitlines()] == lines


def test_a_running_job_is_stopped_and_retried(shell: Shell, greeter: str) -> None:
    rows = '[{"who": "Ida", "seconds": 60}]'
    job = shell.ok("start", "action", greeter, "--data", rows, "--json").data["execution_id"]
    until(lambda: shell.ok("job", "show", job, "--json").data["status"] == "PROCESSING")
    shell.ok("job", "stop", job)
    assert shell.ok("job", "show", job, "--json").data["status"] == "STOPPED"
    assert "STOPPED" in shell.ok("job", "list", "--status", "STOPPED").out

    again = shell.ok("job", "retry", job, "--json").data
    shown = shell.ok("job", "show", again["execution_id"], "--json").data
    assert shown["retry_of"] == job
    shell.ok("job", "stop", again["execution_id"])


# Keys


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


# The demo


@pytest.mark.slow
def test_the_demo_shows_five_rows_and_finds_them_again(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    for count, key in ((5, "secretkey"), (10, "from a run before")):
        up, url = start_stack(shell, "--demo", "--no-flower", "--workers", "1")
        try:
            text = until(lambda: _demo_told(shell.home / "up.log"), 30)
        finally:
            end_stack(up)
        assert f"now has {count} rows" in text
        assert key in text
        assert "90071992547409931" in text
        assert "SUCCESS" in text
        assert f"{url}/dpe/v3/actions/" in text.partition("Now you")[2]


def _demo_told(log: Path) -> str:
    text = log.read_text()
    assert "broke off" not in text, text
    return text if "Ctrl-C; the data stay" in text else ""
