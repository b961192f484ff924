"""Puts jobs that a child has in hand, and does not run, back in line: each by itself."""

import contextlib
import logging
from collections.abc import Iterable, Sequence

import psycopg
from redis import RedisError

from worker import broker
from worker.child import Child
from worker.store import claims
from worker.store.publishing import Message

logger = logging.getLogger("worker.hand_back")


def hand_back(
    this: Child, claimed: Sequence[claims.Claim], unclaimed: Iterable[Message] = ()
) -> None:
    """Withdraw these claims, and publish their jobs and the unclaimed ones again."""
    messages = list(unclaimed)
    if claimed and this.record is not None:
        try:
            messages += claims.withdraw(this.record, claimed)
        except psycopg.Error as error:
            # They stand as claims that nobody works on: the supervisor puts them back.
            logger.warning("jobs that were not begun keep their claims: %s", str(error).strip())
    with contextlib.suppress(RedisError):  # then the watch finds them
        broker.publish(messages)
