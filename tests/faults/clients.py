"""Callers of the API as they are in production: they keep their own record, and try again.

A start is sent again with the same Idempotency-Key after a broken connection, a timeout or a 5xx,
until it is answered 2xx.  What was answered goes into the record: one JSON object a line, all that
the checker knows of the callers.
"""

import contextlib
import http.client
import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CALL_TIMEOUT_S = 10.0
GIVE_UP_S = 120.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
RECENT = 200
READ_PAUSE_S = 0.01
OK, UNAUTHORIZED, CONFLICT, SERVER_ERROR = 200, 401, 409, 500
ACCEPTED = {200, 202}
AGAIN = {401, 409, 429}  # no session (any more), the first try is under way, too many
ENDED = {"SUCCESS", "FAILED", "TIMEOUT", "STOPPED"}

# What the jobs do, and how often: (weight, does, action, status that it must end in).
MIX: list[tuple[float, str, str, str]] = [
    (82, "write", "plain", "SUCCESS"),
    (6, "sleep", "plain", "SUCCESS"),
    (4, "fail", "plain", "FAILED"),
    (4, "fail at first", "patient", "SUCCESS"),
    (2, "stop", "plain", "STOPPED"),
    (1, "late", "hasty", "TIMEOUT"),
    (0.2, "kill", "plain", "FAILED"),
]
ACTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "patient": {"retry": {"max_attempts": 3, "backoff": 0.1}},
    "hasty": {"params": {"timeout": 1}},
}


@dataclass
class Start:
    """One start of one client: what it asked for, and what it was answered."""

    event: str
    action: str
    does: str
    rows: int
    sleep: float
    expected: str
    sent_at: float = 0.0  # Unix time of the first try
    answered_at: float = 0.0
    tries: int = 0
    execution_id: str = ""
    stop: str = ""  # the job's status in the answer to a stop
    seen: str = ""  # the final status that was read of it first
    odd: list[str] = field(default_factory=list)


class Caller:
    """One client's HTTP: a kept connection, a token, and nothing of the product's code."""

    def __init__(self, port: int, apikey: str, secretkey: str) -> None:
        self._port = port
        self._login = {"auth_mode": "apikey", "apikey": apikey, "secretkey": secretkey}
        self._conn: http.client.HTTPConnection | None = None
        self._token = ""

    def close(self) -> None:
        """Hang up."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Answer (status, decoded body); raises OSError or HTTPException."""
        if not self._token:
            status, session = self._send("POST", "/iam/v4/login", self._login, {})
            if status != OK:
                return status, session
            self._token = session["token"]
        headers["Authorization"] = f"Bearer {self._token}"
        status, answer = self._send(method, path, body, headers)
        if status == UNAUTHORIZED:
            self._token = ""
        return status, answer

    def _send(
        self, method: str, path: str, body: Any, headers: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        if self._conn is None:
            self._conn = http.client.HTTPConnection("127.0.0.1", self._port, timeout=CALL_TIMEOUT_S)
        try:
            sent = None if body is None else json.dumps(body)
            self._conn.request(method, path, sent, headers)
            answer = self._conn.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        except BaseException:
            self.close()
            raise

    def insist(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> Iterator[tuple[int, Any]]:
        """Try until an answer below 500; yields each try, (0, the error) where there was none."""
        pause, until = FIRST_PAUSE_S, time.monotonic() + GIVE_UP_S
        while time.monotonic() < until:
            try:
                status, answer = self.call(method, path, body, **headers)
            except (OSError, http.client.HTTPException, ValueError) as error:
                status, answer = 0, repr(error)
            yield status, answer
            if is_final(status):
                return
            time.sleep(pause)
            pause = min(LONGEST_PAUSE_S, pause * 2)


class Clients:
    """Threads that start jobs at a steady rate, and one that reads what becomes of them."""

    def __init__(
        self,
        *,
        port: int,
        key: tuple[str, str],
        actions: dict[str, str],
        seed: int,
        rate: float,
        threads: int = 8,
        kind: str = "actions",
    ) -> None:
        self._kind = kind  # "workflows": what `actions` has are workflows
        self._port, self._key, self._actions, self._seed = port, key, actions, seed
        self._pause_s = threads / rate  # `rate`: starts a second, of all together
        self.starts: list[Start] = []
        self.accepted = 0
        self._over, self._reading_over = threading.Event(), threading.Event()
        self._starters = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(threads)
        ]
        self._reader = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        """Begin."""
        for thread in [*self._starters, self._reader]:
            thread.start()

    def end(self) -> None:
        """Start nothing more, and wait for what is under way."""
        self._over.set()
        for thread in self._starters:
            thread.join(GIVE_UP_S + CALL_TIMEOUT_S)

    def write(self, record: Path) -> None:
        """End the reading too, and write the record."""
        self._reading_over.set()
        self._reader.join(2 * CALL_TIMEOUT_S)
        record.write_text("".join(json.dumps(asdict(start)) + "\n" for start in self.starts))

    def _run(self, number: int) -> None:
        rng = random.Random(f"{self._seed} {number}")
        with contextlib.closing(Caller(self._port, *self._key)) as caller:
            self._start(number, rng, caller)

    def _start(self, number: int, rng: random.Random, caller: Caller) -> None:
        count, at = 0, time.monotonic() + rng.random() * self._pause_s
        while not self._over.wait(max(0.0, at - time.monotonic())):
            count += 1
            at = max(at + self._pause_s, time.monotonic() - 1)  # what was missed is made up for
            start = make_start(rng, f"s{self._seed}-c{number}-{count}")
            if self._kind == "workflows" and start.expected == "TIMEOUT":
                start.expected = "FAILED"  # one step timed out: the run is not late itself
            self.starts.append(start)
            self._send(caller, start)
            if start.does == "stop" and start.execution_id:
                time.sleep(rng.random() * 0.5)
                self._stop(caller, start)

    def _send(self, caller: Caller, start: Start) -> None:
        path = f"/dpe/v3/{self._kind}/{self._actions[start.action]}/start"
        body = {name: getattr(start, name) for name in ("event", "does", "rows", "sleep")}
        start.sent_at = time.time()
        for status, answer in caller.insist("POST", path, body, **{"Idempotency-Key": start.event}):
            start.tries += 1
            if status in ACCEPTED:
                start.execution_id = answer["execution_id"]
                start.answered_at = time.time()
                self.accepted += 1
            elif is_final(status):
                start.odd.append(f"the start was answered {status} {answer}")

    def _stop(self, caller: Caller, start: Start) -> None:
        path = f"/dpe/v3/jobs/{start.execution_id}/stop"
        for status, answer in caller.insist("DELETE", path):
            if status == OK:
                start.stop = answer["status"]
            elif status == CONFLICT:  # it has ended already
                return

    def _read(self) -> None:
        """Read jobs again and again; a final status, once seen, must stay."""
        rng = random.Random(self._seed)
        with contextlib.closing(Caller(self._port, *self._key)) as caller:
            while not self._reading_over.wait(READ_PAUSE_S):
                start = rng.choice(self.starts[-RECENT:]) if self.starts else None
                if start is not None and start.execution_id:
                    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                        self._look_at(caller, start)

    @staticmethod
    def _look_at(caller: Caller, start: Start) -> None:
        status, job = caller.call("GET", f"/dpe/v3/jobs/{start.execution_id}")
        if status != OK:
            return
        if start.seen and start.seen != job["status"]:
            start.odd.append(f"it was shown as {start.seen}, and then as {job['status']}")
        elif job["status"] in ENDED:
            start.seen = job["status"]


def is_final(status: int) -> bool:
    """Whether a try's answer is one to go by; what else comes is tried again."""
    return 0 < status < SERVER_ERROR and status not in AGAIN


def make_start(rng: random.Random, event: str) -> Start:
    """One start of the mix, as the dice fall."""
    weights = [weight for weight, *_ in MIX]
    _, does, action, expected = rng.choices(MIX, weights)[0]
    sleep = {
        "sleep": rng.uniform(0.1, 1.0),
        "stop": rng.uniform(0.0, 2.0),
        "late": 30.0,
    }.get(does, 0.0)
    return Start(event, action, does, rng.randint(2, 8), round(sleep, 3), expected)
