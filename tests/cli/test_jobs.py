"""Starting an action, and what becomes of the job."""

import json
import subprocess
from pathlib import Path

from tests.cli.shell import DPE, Shell
from tests.stack import until


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
