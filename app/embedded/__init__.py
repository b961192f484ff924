"""PostgreSQL and Valkey from their wheels, as children of this process, under one folder.

Both are the real servers: `dpe up` runs on them where no others are named, and so do the tests.
Nothing has to be installed, and nobody has to be root; root itself is served too.

`start` makes what is missing.  After `stop`, `kill`, or a crash of the machine a server starts
again, on the same data and at the same address.  One process at a time may start a server on a
folder (`dpe up` holds a lock), and from its main thread (see `app.child`).
"""

from app.embedded.postgres import Postgres
from app.embedded.server import ServerFailed
from app.embedded.valkey import Valkey

__all__ = ["Postgres", "ServerFailed", "Valkey"]
