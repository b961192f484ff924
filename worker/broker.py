"""The Celery application, and handing jobs to the broker.  Loaded by both sides.

A message carries the job's id and nothing of its data: the task id *is* the execution id, and
the `shadow` header is the action's name, which Flower and the worker's log show.
"""

import os
import socket
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from uuid import UUID

import orjson
from celery import Celery
from kombu.entity import Queue
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.settings import current_settings
from worker.store.priorities import DEFAULT_PRIORITY, PRIORITIES
from worker.store.publishing import Message

QUEUE = "dpe"
# The broker's list for each priority, under the names that kombu gives them.
LISTS = [f"{QUEUE}\x06\x16{step}" if step else QUEUE for step in range(len(PRIORITIES))]
TASK = "run"

# A message stamped so says nothing of what was published before it (see `take_overtaken`).
EPOCH = datetime.fromtimestamp(0, UTC)

celery = Celery("dpe", include=["worker.run"])


def _configuration() -> dict[str, object]:
    return {
        "broker_url": current_settings().broker(),
        "task_default_queue": QUEUE,
        # A message that was taken is the child's; to keep it for the broker as well until it is
        # acknowledged, which Celery does at once, would take two round trips more.
        "task_queues": [Queue(QUEUE, no_ack=True)],
        # The job row is the result; nothing of a task is kept in the broker.
        "task_ignore_result": True,
        "result_backend": None,
        # Early ack: a lost message is found again by the watch, within seconds; late ack would
        # bring it back after `visibility_timeout`, as a second copy (F1, F2, F16).
        "task_acks_late": False,
        "worker_prefetch_multiplier": 1,
        "worker_consumer": "worker.consume:QuickConsumer",
        # F21: a worker waits for its broker for as long as it takes.
        "broker_connection_max_retries": None,
        "broker_connection_retry_on_startup": True,
        "broker_channel_error_retry": True,
        "broker_transport_options": {
            "socket_timeout": 10.0,
            "socket_connect_timeout": 1.0,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "retry_on_timeout": False,
            "max_retries": 1,
            # One list of the broker for each priority, asked in this order: exact, since a child
            # takes one message at a time (F9).
            "priority_steps": list(range(len(PRIORITIES))),
        },
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "accept_content": ["json"],
        "enable_utc": True,
    }


celery.add_defaults(_configuration)  # read when Celery needs it first, not at import


MAX_BUNDLE = 16  # jobs that one message carries at the most


def publish(messages: Iterable[Message], timeout_s: float = 1.0, bundle: int = MAX_BUNDLE) -> int:
    """Hand jobs to the broker in one round trip; raises redis.RedisError where it is away.

    Returns how many messages wait then.  No retry and short timeouts (F7): a caller that can't
    publish says so in Postgres, and the watch publishes later.  The envelope is kombu's and
    Celery's own (message protocol 2, https://docs.celeryq.dev/en/stable/internals/protocol.html),
    written here because building it through `send_task` takes 1 ms of processor time a message.
    """
    waiting: dict[int, list[Message]] = {}
    for message in messages:
        waiting.setdefault(message.priority, []).append(message)
    if not waiting:
        return 0
    client = queue_client(timeout_s)
    if len(waiting) == 1:  # a pipeline of one costs twice as much
        [(priority, ones)] = waiting.items()
        lengths = [client.lpush(LISTS[priority], *_envelopes(ones, bundle))]
    else:
        # One round trip, whatever happens in it: the first error is raised in the end.
        sending = client.pipeline(transaction=False)
        for priority, ones in waiting.items():
            sending.lpush(LISTS[priority], *_envelopes(ones, bundle))
        lengths = sending.execute()
    _backlog.update(zip(waiting, lengths, strict=True))
    return sum(lengths)


# How long each list was when something was put into it last: a hint, for this process alone.
_backlog: dict[int, int] = {}


def _envelopes(messages: list[Message], bundle: int) -> list[bytes]:
    """What carries messages of one priority.

    Where workers are behind, one carries several jobs: a message costs a worker about as much as a
    short job.  Where they are not, each job gets its own, so that all workers share them; and those
    of low priority always do, so that nothing has to wait for what comes in one message with them.
    """
    priority = messages[0].priority
    size = min(bundle, 1 + _backlog.get(priority, 0) // MAX_BUNDLE)
    if priority > DEFAULT_PRIORITY:
        size = 1
    return [_envelope(messages[at : at + size]) for at in range(0, len(messages), size)]


def take(timeout_s: float) -> list[Message]:
    """Take the next message off the broker, as Celery would, and return its jobs.

    The most urgent one; nothing where none comes within `timeout_s`.  Raises redis.RedisError.
    """
    client = queue_client()
    taken = client.brpop(LISTS, timeout_s)
    if taken is None:
        return []
    name, text = taken
    message = orjson.loads(text)
    headers = message["headers"]
    if headers["task"] != TASK:  # not of our making: Celery gets it next, and says so
        client.rpush(name, text)
        return []
    others = orjson.loads(b64decode(message["body"]))[0]
    jobs = [(headers["id"], headers["shadow"]), *others]
    return jobs_of(jobs, message["properties"]["priority"])


def jobs_of(jobs: Iterable[Sequence[str]], priority: int) -> list[Message]:
    """The jobs of one message, given as (execution id, action's name), to be published anew."""
    return [Message(UUID(id), name, EPOCH, priority) for id, name in jobs]


def next_published_at() -> tuple[int, list[datetime | None]]:
    """How many messages wait, and by priority when the one that comes next was published."""
    asked = queue_client().pipeline()
    for name in LISTS:
        asked.llen(name)
        asked.lindex(name, -1)
    answers = asked.execute()
    return sum(answers[::2]), [_published_at(head) for head in answers[1::2]]


def _published_at(head: bytes | None) -> datetime | None:
    if head is None:
        return None
    stamp = orjson.loads(head)["headers"].get("published_at")
    # A message of somebody else's making has no stamp: then nothing can be said before it is gone.
    return datetime.fromisoformat(stamp) if stamp else EPOCH


@cache
def queue_client(timeout_s: float = 1.0) -> Redis:
    """This process's own client; call it after the fork, never before (F20).

    `timeout_s` is what connecting, and each answer, may take.
    """
    return Redis.from_url(
        current_settings().broker(),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )


_EMBEDDED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_ORIGIN = f"{os.getpid()}@{socket.gethostname()}"


def _envelope(bundle: Sequence[Message]) -> bytes:
    """One message for jobs published together: its id is the first's, the rest are arguments."""
    first = bundle[0]
    id = str(first.execution_id)
    others = [[str(message.execution_id), message.name] for message in bundle[1:]]
    return orjson.dumps(
        {
            "body": b64encode(orjson.dumps([others, {}, _EMBEDDED])).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": TASK,
                "id": id,
                "shadow": first.name,
                "eta": None,
                "expires": None,
                "group": None,
                "group_index": None,
                "retries": 0,
                "timelimit": [None, None],
                "root_id": id,
                "parent_id": None,
                "argsrepr": "()",
                "kwargsrepr": "{}",
                "origin": _ORIGIN,
                "ignore_result": True,
                "replaced_task_nesting": 0,
                "stamped_headers": None,
                "stamps": {},
                "published_at": first.published_at.isoformat(),
            },
            "properties": {
                "correlation_id": id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
                "priority": first.priority,
                "body_encoding": "base64",
                "delivery_tag": id,
            },
        }
    )
