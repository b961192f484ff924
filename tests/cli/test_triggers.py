"""`dpe trigger …` as it is typed, beside a stack that runs."""

from tests.cli.shell import Shell


def test_a_trigger_from_its_setting_to_its_removal(shell: Shell, greeter: str) -> None:
    added = shell.ok(
        "trigger", "add", "greet", "--cron", "* * * * *", "--timezone", "Asia/Kolkata",
        "--action", "Greeter", "--data", '[{"who": "all"}]', "--overlap", "skip", "--json",
    )  # fmt: skip
    assert added.data["action"] == greeter
    assert "greet" in shell.ok("trigger", "list").out
    upcoming = shell.ok("trigger", "next", "greet", "--count", "2")
    assert "Asia/Kolkata" in upcoming.out
    assert upcoming.out.count("+05:30") == 2
    assert shell.ok("trigger", "pause", "greet", "--json").data["paused"] is True
    assert "paused" in shell.ok("trigger", "next", "greet").err
    shell.ok("trigger", "resume", "greet")
    shown = shell.ok("trigger", "show", "greet").out
    assert greeter in shown
    assert "skip" in shown
    assert shell.ok("trigger", "rm", "greet").out == "removed greet\n"
    assert shell.ok("trigger", "list", "--json").data == []


def test_what_is_wrong_is_said(shell: Shell, greeter: str) -> None:
    assert "five fields" in shell.fails(
        "trigger", "add", "x", "--cron", "hourly", "--action", greeter
    )
    assert "one of them" in shell.fails("trigger", "add", "x", "--cron", "* * * * *")
    assert "not found" in shell.fails("trigger", "show", "nobody")


def test_what_a_person_starts_is_manual(shell: Shell, greeter: str) -> None:
    job = shell.ok("start", "action", greeter, "--wait", "--json").data
    assert job["event_type"] == "manual"
