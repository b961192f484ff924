"""The process that runs jobs in an environment of packages: `python -m worker.inside`.

Its child (`worker.elsewhere`) writes a line of JSON to its stdin, first who it is and then a claim
for each job, and reads a line for each end.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import orjson
import psycopg

from worker import attempt, environments, logs
from worker.child import Child, become
from worker.die_with_parent import die_with_parent
from worker.errors import ClaimLost
from worker.events import JobEvents
from worker.lead import Lead
from worker.slots import Slots
from worker.store import claims


def main() -> None:
    """Run jobs until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a handler prints past the log must not be taken for an answer
    hello = orjson.loads(sys.stdin.buffer.readline())
    die_with_parent(parent=hello["parent"])()
    # Ctrl-C reaches the whole group, the supervisor alone decides; the child asks by SIGUSR1.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, attempt.show_where_and_exit)
    logs.install()
    environments.here = tuple(hello["requirements"])
    this = Child(
        worker_id=UUID(hello["worker_id"]),
        index=0,
        slots=Slots(1),
        folder=Path(hello["folder"]),
        events=cast("JobEvents", None),  # the child tells
        lead=cast("Lead", None),  # and takes
    )
    become(this)
    for line in sys.stdin.buffer:
        this.jobs_taken += 1
        end = _run(this, json.loads(line))
        answer = {"status": end.status, "error": end.error, "worn": this.is_worn()}
        answers.write(orjson.dumps(answer) + b"\n")
        answers.flush()


def _run(this: Child, asked: dict[str, Any]) -> attempt.End:
    part = asked.pop("part")
    asked["execution_id"] = UUID(asked["execution_id"])
    asked["run_id"] = UUID(asked["run_id"]) if asked["run_id"] else None
    try:
        job = claims.Claim(**asked, conn=this.connections()[1])
        claims.running = job
        return attempt.carry_out(this, job, part)
    except (ClaimLost, psycopg.OperationalError) as error:
        attempt.logger.warning("job %s is lost: %s", asked["execution_id"], error)
        this.disconnect()
        return attempt.End(None)
    finally:
        claims.running = this.log = None


if __name__ == "__main__":
    main()
