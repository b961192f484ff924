"""What a child tells of its jobs: Celery's events, as they come out of the broker."""

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis import Redis

from app.embedded import Valkey
from tests.stack import until
from worker.events import GATHER_S, JobEvents, beat


class Heard:
    """Events, in their order."""

    def __init__(self, url: str) -> None:
        self._pubsub = Redis.from_url(url).pubsub(ignore_subscribe_messages=True)
        self._pubsub.psubscribe("/*.celeryev/*")
        self._events: list[dict[str, Any]] = []

    def of(self, id: UUID) -> list[dict[str, Any]]:
        while (message := self._pubsub.get_message()) is not None:
            self._events += json.loads(b64decode(json.loads(message["data"])["body"]))
        return [event for event in self._events if event.get("uuid") == str(id)]

    def kinds(self, id: UUID) -> list[str]:
        return [event["type"] for event in self.of(id)]


@pytest.fixture
def heard(valkey: Valkey) -> Iterator[Heard]:
    heard = Heard(valkey.url)
    yield heard
    heard._pubsub.close()


@pytest.fixture(scope="module")
def child() -> JobEvents:
    return JobEvents("child1@here")


@pytest.mark.parametrize(
    ("status", "kind"),
    [("SUCCESS", "task-succeeded"), ("FAILED", "task-failed"), ("RETRY", "task-retried")],
)
def test_a_short_job_is_one_event(child: JobEvents, heard: Heard, status: str, kind: str) -> None:
    id, began = uuid4(), time.time()
    child.begin(id, "Short")
    child.end(status, "why")
    [event] = until(lambda: heard.of(id))
    time.sleep(3 * GATHER_S)
    assert heard.kinds(id) == [kind]
    assert event["name"] == "Short"
    assert (event["root_id"], event["hostname"]) == (str(id), "child1@here")
    assert (event["args"], event["kwargs"], event["retries"]) == ("()", {}, 0)
    assert began <= event["received"] <= event["started"] <= event["timestamp"] <= time.time()
    if status == "SUCCESS":
        assert 0 <= event["runtime"] < 1
    else:
        assert event["exception"] == "JobFailed('why')"


def test_a_long_job_is_told_of_while_it_runs(child: JobEvents, heard: Heard) -> None:
    id = uuid4()
    child.begin(id, "Long")
    received, started = until(lambda: heard.of(id), 1)
    assert (received["type"], started["type"]) == ("task-received", "task-started")
    assert received["name"] == "Long"
    assert "started" not in received
    child.end("SUCCESS")
    *_, ended = until(lambda: heard.of(id)[2:])
    assert ended["type"] == "task-succeeded"
    assert "received" not in ended  # or it would be counted twice
    assert ended["runtime"] >= ended["timestamp"] - started["timestamp"] - 0.001


def test_a_job_that_waits_for_packages_starts_when_they_are_there(
    child: JobEvents, heard: Heard
) -> None:
    id = uuid4()
    child.begin(id, "Builds")
    child.building()
    until(lambda: heard.kinds(id) == ["task-received", "task-building"])
    time.sleep(3 * GATHER_S)
    assert len(heard.of(id)) == 2  # it has not started
    child.built()
    child.end("SUCCESS")
    until(lambda: heard.kinds(id)[2:] == ["task-started", "task-succeeded"])


def test_an_end_that_is_told_late_is_that_of_its_own_job(child: JobEvents, heard: Heard) -> None:
    first, second = uuid4(), uuid4()
    child.begin(first, "First")
    end = child.ending()
    child.begin(second, "Second")
    time.sleep(GATHER_S)
    end("SUCCESS")
    child.end("FAILED")
    [told] = until(lambda: heard.of(first))
    assert (told["type"], told["name"]) == ("task-succeeded", "First")
    assert told["timestamp"] - told["started"] < GATHER_S  # when it ended, not when it was told
    assert until(lambda: heard.of(second))[-1]["type"] == "task-failed"


def test_a_job_that_another_has_is_not_told_of(child: JobEvents, heard: Heard) -> None:
    lost, next_one = uuid4(), uuid4()
    child.begin(lost, "Lost")
    child.end(None)
    child.begin(next_one, "Next")
    child.end("SUCCESS")
    until(lambda: heard.of(next_one))
    time.sleep(3 * GATHER_S)
    assert heard.of(lost) == []


def test_children_that_celery_hears_nothing_of_have_heartbeats(heard: Heard) -> None:
    beat({"child1@here": True, "child2@here": False})

    def beats() -> list[tuple[str, str, int]]:
        heard.of(uuid4())
        return [(event["type"], event["hostname"], event["active"]) for event in heard._events]

    kind = "worker-heartbeat"
    until(lambda: beats() == [(kind, "child1@here", 1), (kind, "child2@here", 0)])
