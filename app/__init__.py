"""HTTP: everything that answers a request, and the command `dpe`.

`create_app` imports Flask only when it is called: the commands live in this package too, and
their start must be quick.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from worker.settings import Settings


def create_app(settings: "Settings") -> "Flask":
    """The WSGI application.  It opens a pool of connections: call it after the fork (F20)."""
    from app.web import build  # noqa: PLC0415

    return build(settings)
