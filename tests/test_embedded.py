"""The embedded servers: whatever ends them, they start again on the same data and address."""

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.retry import Retry

from app.embedded import Postgres, ServerFailed, Valkey, unprivileged
from tests.stack import until

NO_RETRY = Retry(NoBackoff(), 0)


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A server of the test's own."""
    server = Postgres(tmp_path / "home")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "home")
    server.start()
    yield server
    server.stop()


def write(server: Postgres, number: int) -> None:
    with psycopg.connect(server.url) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
        conn.execute("INSERT INTO kept VALUES (%s)", [number])


def written(server: Postgres) -> list[int]:
    with psycopg.connect(server.url) as conn:
        return [number for (number,) in conn.execute("SELECT number FROM kept ORDER BY number")]


def set_and_get(server: Valkey, **value: str) -> dict[str, str]:
    with Redis.from_url(server.url, decode_responses=True) as client:
        for name, text in value.items():
            client.set(name, text)
        return {name: client.get(name) for name in client.keys()}  # noqa: SIM118 -- a command


def private(path: Path) -> bool:
    return not path.stat().st_mode & 0o077


def test_postgres_is_18_durable_and_only_on_a_private_socket(own_postgres: Postgres) -> None:
    with psycopg.connect(own_postgres.url) as conn:
        row = conn.execute(
            "SELECT current_setting('server_version_num')::int / 10000, current_setting('fsync'),"
            " current_setting('listen_addresses'), current_setting('server_encoding'),"
            " (SELECT datlocprovider::text FROM pg_database WHERE datname = current_database())"
        ).fetchone()
    assert row == (18, "on", "", "UTF8", "b")
    assert private(Path(own_postgres.address).parent)
    assert private(own_postgres.home / "postgres.password")


def test_postgres_wants_its_password(own_postgres: Postgres) -> None:
    wrong = own_postgres.url.replace("dpe:", "dpe:x", 1)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_valkey_wants_its_password_and_does_not_show_it(own_valkey: Valkey) -> None:
    host, port = own_valkey.address.split(":")
    assert host == "127.0.0.1"
    with Redis(host, int(port), retry=NO_RETRY) as client, pytest.raises(AuthenticationError):
        client.ping()
    password = own_valkey.url.partition("redis://:")[2].partition("@")[0]
    assert password not in " ".join(psutil.Process(own_valkey.pid).cmdline())
    assert private(own_valkey.data)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_postgres_starts_again_on_its_data_and_address(own_postgres: Postgres, end: str) -> None:
    address = own_postgres.url
    write(own_postgres, 1)
    getattr(own_postgres, end)()
    assert own_postgres.pid is None
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(address)
    own_postgres.start()
    assert own_postgres.url == address
    assert written(own_postgres) == [1]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_valkey_starts_again_on_its_data_and_address(own_valkey: Valkey, end: str) -> None:
    address = own_valkey.url
    set_and_get(own_valkey, kept="yes")
    until((own_valkey.data / "appendonlydir").exists)
    getattr(own_valkey, end)()
    assert own_valkey.pid is None
    again = Valkey(own_valkey.home)
    again.start()
    try:
        assert again.url == address
        assert set_and_get(again) == {"kept": "yes"}
    finally:
        again.stop()


def test_valkey_takes_another_port_where_its_own_is_taken(own_valkey: Valkey) -> None:
    taken = own_valkey.address
    own_valkey.stop()
    again = Valkey(own_valkey.home)
    with socket.create_server(("127.0.0.1", int(taken.partition(":")[2]))):
        again.start()
    try:
        assert again.address != taken
        assert set_and_get(again) == {}
    finally:
        again.stop()


def test_a_pid_that_is_somebody_elses_by_now_does_not_stop_postgres(own_postgres: Postgres) -> None:
    """As after a reboot, where the numbers are given out anew."""
    write(own_postgres, 1)
    own_postgres.kill()
    until(lambda: not own_postgres._leftovers())
    account = unprivileged.account()
    stranger = subprocess.Popen(["sleep", "60"], **(account.popen if account else {}))
    pid_file = own_postgres.data / "postmaster.pid"
    _, *others = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(stranger.pid), *others, ""]))
    try:
        own_postgres.start()
        assert written(own_postgres) == [1]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_pid_file_cut_short_does_not_stop_postgres(own_postgres: Postgres) -> None:
    write(own_postgres, 1)
    for left in ("", "12"):
        own_postgres.kill()
        until(lambda: not own_postgres._leftovers())
        (own_postgres.data / "postmaster.pid").write_text(left)
        own_postgres.start()
        assert written(own_postgres) == [1]


def test_a_server_left_by_an_earlier_start_is_ended_first(own_postgres: Postgres) -> None:
    write(own_postgres, 1)
    again = Postgres(own_postgres.home)
    again.start()
    try:
        assert own_postgres.pid is None
        assert written(again) == [1]
    finally:
        again.stop()


def test_a_session_that_goes_on_without_its_server_is_ended_first(own_postgres: Postgres) -> None:
    """A backend in a loop does not notice that the server is gone, and holds the shared memory."""
    write(own_postgres, 1)

    def loop_for_ever() -> None:
        with (
            contextlib.suppress(psycopg.OperationalError),
            psycopg.connect(own_postgres.url) as conn,
        ):
            conn.execute("DO $$ BEGIN LOOP END LOOP; END $$")

    thread = threading.Thread(target=loop_for_ever, daemon=True)
    thread.start()
    with psycopg.connect(own_postgres.url, autocommit=True) as conn:
        query = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO%'"
        ((busy,),) = until(lambda: conn.execute(query).fetchall())
    own_postgres.kill()
    session = psutil.Process(busy)
    try:
        own_postgres.start()
        assert written(own_postgres) == [1]
        until(lambda: session not in own_postgres._leftovers())
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            session.kill()
        thread.join(5)


@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["open", "closed"])
def test_nothing_is_left_of_a_process_that_is_killed(mode: int) -> None:
    """The kernel tells the servers (Linux); elsewhere the next start ends them."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(mode)
        start_and_be_killed(Path(folder))


def start_and_be_killed(home: Path) -> None:
    code = (
        "import sys, time, pathlib; from app.embedded import Postgres, Valkey\n"
        "home = pathlib.Path(sys.argv[1]); servers = [Postgres(home), Valkey(home)]\n"
        "for server in servers: server.start()\n"
        "print(*(server.pid for server in servers), flush=True); time.sleep(60)\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    pids = [int(word) for word in starter.stdout.readline().split()]
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    servers = [Postgres(home), Valkey(home)]
    if sys.platform != "linux":
        for server in servers:
            server.start()
            server.stop()
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert not any(server._leftovers() for server in servers)


def test_a_server_that_does_not_start_says_why(own_postgres: Postgres) -> None:
    own_postgres.stop()
    with (own_postgres.data / "postgresql.conf").open("a") as conf:
        conf.write("shared_buffers = 'plenty'\n")
    with pytest.raises(ServerFailed, match=r"exit code 1.*shared_buffers.*plenty") as caught:
        own_postgres.start()
    assert str(own_postgres.log) in caught.value.hint
