"""A POST that Flask reads and answers, and nothing else, on the product's own server.

By granian's own way for Flask (WSGI), which is the quickest that there is for it.
"""

from flask import Flask, request
from granian.constants import Interfaces

from app.server import server
from worker.settings import Settings


def application() -> Flask:
    """An application of one route."""
    app = Flask("empty")

    @app.post("/start")
    def start() -> tuple[str, int]:
        request.get_data()
        return "null", 202

    return app


if __name__ == "__main__":
    settings = Settings.from_environ()
    application_of = "benchmarks.baseline.empty:application"
    server(settings, application_of, Interfaces.WSGI, settings.api_threads).serve()
