"""Secrets, webhooks and the trail, from the command line."""

from tests.cli.shell import Shell


def test_a_secret_is_set_listed_and_removed_and_never_shown(shell: Shell) -> None:
    told = shell.ok("secret", "set", "shop.password", stdin="correct horse\n").out
    assert "correct" not in told
    [listed] = shell.ok("secret", "list", "--json").data
    assert set(listed) == {"name", "created_at", "updated_at"}
    assert "shop.password" in shell.ok("secret", "list").out
    assert "not empty" in shell.fails("secret", "set", "nothing.came")
    shell.ok("secret", "rm", "shop.password")
    assert "dpe secret list" in shell.fails("secret", "rm", "shop.password")


def test_a_webhooks_secret_is_printed_once_and_the_trail_has_it_all(
    shell: Shell, greeter: str
) -> None:
    made = shell.ok("action", "webhook", "Greeter", "--form", "github", "--json").data
    url = shell.ok("env", "--json").data["DPE_URL"]
    assert made["url"] == f"{url}/dpe/v3/actions/{greeter}/webhook"
    words = ("action", "webhook", greeter, "--form", "stripe", "--secret-from-stdin")
    assert "whsec_of_the_sender" in shell.ok(*words, stdin="whsec_of_the_sender\n").out
    assert "nothing came on stdin" in shell.fails(*words)
    shell.ok("action", "webhook", greeter, "--remove")
    assert shell.fails("action", "webhook", greeter, "--remove")
    newest = shell.ok("audit", "--limit", "2", "--json").data
    assert [(e["method"], e["status"]) for e in newest] == [("DELETE", 404), ("DELETE", 200)]
    trail = shell.ok("audit").out
    assert f"/actions/{greeter}/webhook" in trail
    assert made["secret"] not in trail
