"""Which child takes the next job: one that is warm, and nobody waits for one that is busy."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from uuid import UUID

import pytest

from tests.stack import Engine, until
from worker.lead import Lead

CHILDREN = 3
QUICK, LONG = "def handle(event): pass", "import time\ndef handle(event): time.sleep(4)"


@pytest.fixture
def forked() -> Iterator[Callable[[Callable[[], object]], int]]:
    """Do something in a forked process, which ends with whether that was true; its id."""
    pids: list[int] = []

    def fork(what: Callable[[], object]) -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if what() else 1)
        pids.append(pid)
        return pid

    yield fork
    for pid in pids:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_one_leads_until_it_hands_on_or_dies(forked: Callable[..., int]) -> None:
    lead, (leads, said) = Lead(), os.pipe()
    leader = forked(lambda: lead.take() and os.write(said, b"1") and time.sleep(60))
    assert os.read(leads, 1) == b"1"
    assert not lead.take()
    os.kill(leader, signal.SIGKILL)
    assert code(leader) == -signal.SIGKILL
    assert lead.take()
    lead.hand_on()
    assert code(forked(lead.take)) == 0


def test_who_follows_rests_until_called(forked: Callable[..., int]) -> None:
    lead = Lead()
    assert lead.take()

    def follow() -> bool:
        began = time.monotonic()
        lead.follow(30)
        return time.monotonic() - began < 20

    for _ in range(3):
        lead.call()  # more calls than one are one
    lead.follow(30)
    follower = forked(follow)
    time.sleep(0.2)
    assert os.waitpid(follower, os.WNOHANG) == (0, 0)
    lead.hand_on()
    assert code(follower) == 0


def test_short_jobs_that_come_one_by_one_have_one_child(engine: Engine) -> None:
    engine.worker(children=CHILDREN)
    action = engine.push(QUICK)

    def most_of(count: int) -> int:
        """How many of so many jobs one child has run: a third where they take turns."""
        ids: list[UUID] = []
        for _ in range(count):
            ids.append(engine.start(action))
            assert engine.ended(ids[-1]).status == "SUCCESS"
        query = "SELECT pid FROM dpe.jobs WHERE execution_id = ANY(%s)"
        ran = Counter(pid for (pid,) in engine.conn.execute(query, [ids]))
        return ran.most_common(1)[0][1]

    most_of(9)  # all children wait by Celery's own way until then
    # On a busy machine a short job may take long, and then another child leads.
    assert any(most_of(24) >= 16 for _ in range(5))


def test_a_long_job_of_the_leader_holds_up_none(engine: Engine) -> None:
    engine.worker(children=CHILDREN)
    quick, long = engine.push(QUICK), engine.push(LONG)
    for _ in range(9):
        engine.ended(engine.start(quick))
    ids = [engine.start(long) for _ in range(CHILDREN)]
    until(lambda: [engine.job(id).status for id in ids] == ["PROCESSING"] * CHILDREN, 3)
