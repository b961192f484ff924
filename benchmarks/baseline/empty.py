"""A POST that is read and answered on the product's own server: what that can do at best."""

from typing import Any

from flask import Flask, request

from app.server import Api
from worker.settings import Settings


class Empty(Api):
    """The product's gunicorn, with an application of one route."""

    def load(self) -> Any:
        app = Flask("empty")

        @app.post("/start")
        def start() -> tuple[str, int]:
            request.get_data()
            return "null", 202

        return app


if __name__ == "__main__":
    Empty(Settings.from_environ()).run()
