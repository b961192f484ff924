"""A POST that is read and answered on the product's own server: what that can do at best."""

from flask import Flask, request

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
    server(Settings.from_environ(), "benchmarks.baseline.empty:application").serve()
