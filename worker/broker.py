"""The Celery application, and handing jobs to the broker.  Loaded by both sides.

A message carries the job's id and nothing of its data: the task id *is* the execution id, and
the `shadow` header is the action's name, which Flower and the worker's log show.
"""

import asyncio
import os
import socket
from base64 import b64encode
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache, lru_cache
from uuid import UUID, uuid4

import orjson
from celery import Celery
from kombu.entity import Queue
from redis import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry as LoopRetry
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


def publish(messages: Iterable[Message], timeout_s: float = 1.0) -> None:
    """Hand jobs to the broker in one round trip; raises redis.RedisError where it is away.

    No retry and short timeouts (F7): a caller that can't publish says so in Postgres, and the watch
    publishes later.  The envelope is kombu's and Celery's own (message protocol 2,
    https://docs.celeryq.dev/en/stable/internals/protocol.html), written here because building it
    through `send_task` takes 1 ms of processor time a message.
    """
    waiting, client = _envelopes(messages), queue_client(timeout_s)
    if len(waiting) == 1:  # a pipeline of one costs twice as much
        [(list_, envelopes)] = waiting.items()
        client.lpush(list_, *envelopes)
    elif waiting:
        # One round trip, whatever happens in it: the first error is raised in the end.
        sending = client.pipeline(transaction=False)
        for list_, envelopes in waiting.items():
            sending.lpush(list_, *envelopes)
        sending.execute()


async def publish_on_loop(
    conn: AbstractConnection, messages: Iterable[Message], timeout_s: float
) -> None:
    """As `publish`, on an event loop and a connection of `loop_connection`; or raises TimeoutError.

    One call at a time.  Redis-py's client, which finds a connection for each call and notes how
    long it took, takes twice the processor time of its connection.
    """
    pushes = [("LPUSH", name, *found) for name, found in _envelopes(messages).items()]
    if not pushes:
        return
    # One timeout for all: redis-py makes a task of each thing that it sends with one of its own.
    async with asyncio.timeout(timeout_s):
        # It may have been closed since, or have an answer that nobody waited for.
        if conn.is_connected and await conn.can_read():
            await conn.disconnect()
        await conn.send_packed_command(conn.pack_commands(pushes), check_health=False)
        for _ in pushes:
            await conn.read_response()


def _envelopes(messages: Iterable[Message]) -> dict[str, list[bytes]]:
    waiting: dict[str, list[bytes]] = {}
    for message in messages:
        waiting.setdefault(LISTS[message.priority], []).append(_envelope(message))
    return waiting


MOST_TAKEN = 16  # messages at once
# Of the most urgent list that has some: one, and where many wait, more, for what a child does
# together costs less (`worker.bundle`).  Where few wait, all children share them.  Those of low
# priority come one by one, so that nothing urgent has to wait for what was taken with them.
_TAKE = """
local taken, left = {}, 0
for place, list in ipairs(KEYS) do
  local waiting = redis.call('LLEN', list)
  if waiting > 0 and #taken == 0 then
    local more = place > tonumber(ARGV[2]) and 0 or math.floor(waiting / 8)
    taken = redis.call('RPOP', list, math.min(1 + more, tonumber(ARGV[1])))
    waiting = waiting - #taken
  end
  left = left + waiting
end
return {taken, left}
"""


def take() -> tuple[list[Message], bool]:
    """Take the next messages off the broker, as Celery would: their jobs, and whether any are left.

    The most urgent ones; nothing where none waits.  Raises redis.RedisError.
    """
    taken, left = _taking()(LISTS, [MOST_TAKEN, 1 + DEFAULT_PRIORITY])
    found = [job for text in taken if (job := _job(text)) is not None]
    return found, left > 0 or len(found) < len(taken)


def wait(timeout_s: float) -> list[Message]:
    """The next message, taken when it comes; none where none comes in time.  Raises as `take`."""
    one = queue_client().brpop(LISTS, timeout_s)
    return [job] if one and (job := _job(one[1])) is not None else []


@cache
def _taking() -> Callable[[list[str], list[int]], tuple[list[bytes], int]]:
    return queue_client().register_script(_TAKE)


def _job(text: bytes | str) -> Message | None:
    """A message's job; None: it is not of our making, and Celery gets it next, and says so."""
    message = orjson.loads(text)
    headers, priority = message["headers"], message["properties"]["priority"]
    if headers["task"] == TASK:
        return taken_job(headers["id"], headers["shadow"], priority)
    queue_client().rpush(LISTS[priority], text)
    return None


def taken_job(id: str, name: str, priority: int) -> Message:
    """The job of a message that was taken, to be published anew."""
    return Message(UUID(id), name, EPOCH, priority)


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
        retry=Retry(NoBackoff(), 0),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
    )


def loop_connection() -> AbstractConnection:
    """One connection for the event loop that runs; made by its first use, and without a timeout."""
    pool = ConnectionPool.from_url(
        current_settings().broker(),
        protocol=2,  # by the third it does not see that an idle connection was closed (redis 8.1)
        retry=LoopRetry(NoBackoff(), 0),
        socket_timeout=None,
    )
    return pool.make_connection()


# No arguments: the id is all that a message says.
_BODY = b64encode(
    orjson.dumps([[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
).decode()
_ORIGIN = f"{os.getpid()}@{socket.gethostname()}"


# Stand for what differs from job to job of one action.
_ID, _AT = uuid4().hex, uuid4().hex


def _envelope(message: Message) -> bytes:
    made = _template(message.name, message.priority)
    id, at = str(message.execution_id), message.published_at.isoformat()
    return made.replace(_ID.encode(), id.encode()).replace(_AT.encode(), at.encode())


@lru_cache(maxsize=1024)
def _template(name: str, priority: int) -> bytes:
    return orjson.dumps(
        {
            "body": _BODY,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": TASK,
                "id": _ID,
                "shadow": name,
                "eta": None,
                "expires": None,
                "group": None,
                "group_index": None,
                "retries": 0,
                "timelimit": [None, None],
                "root_id": _ID,
                "parent_id": None,
                "argsrepr": "()",
                "kwargsrepr": "{}",
                "origin": _ORIGIN,
                "ignore_result": True,
                "replaced_task_nesting": 0,
                "stamped_headers": None,
                "stamps": {},
                "published_at": _AT,
            },
            "properties": {
                "correlation_id": _ID,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
                "priority": priority,
                "body_encoding": "base64",
                "delivery_tag": _ID,
            },
        }
    )
