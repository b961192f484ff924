"""Celery's heartbeat, for children that can't send it themselves.

A child of the solo pool sends none while a handler runs, so its supervisor does: Flower would show
it offline after four seconds.
"""

import os
import time
from base64 import b64encode
from uuid import uuid4

import orjson

from worker.broker import queue_client

HEARTBEAT_INTERVAL_S = 2.0  # Celery's own


def beat_for_busy(hostnames: list[str]) -> None:
    """Send one heartbeat for each child that runs a job, by its Celery host name.

    Raises redis.RedisError.  The envelope is kombu's for a topic exchange over Redis, as in
    `broker.publish`; its channel is `/<database>.<exchange>/<routing key>`.
    """
    if not hostnames:
        return
    client = queue_client()
    database = client.connection_pool.connection_kwargs.get("db") or 0
    sending = client.pipeline(transaction=False)
    for hostname in hostnames:
        sending.publish(f"/{database}.celeryev/worker.heartbeat", _heartbeat(hostname))
    sending.execute()


def _heartbeat(hostname: str) -> bytes:
    event = {
        "type": "worker-heartbeat",
        "hostname": hostname,
        "pid": os.getpid(),
        "utcoffset": time.timezone // 3600,
        "clock": 0,
        "timestamp": time.time(),
        "freq": HEARTBEAT_INTERVAL_S,
        "active": 1,
    }
    return orjson.dumps(
        {
            "body": b64encode(orjson.dumps(event)).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"hostname": hostname},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": "celeryev", "routing_key": "worker.heartbeat"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            },
        }
    )
