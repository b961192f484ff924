"""docs/reference/http.md names every route."""

import re
from pathlib import Path

from flask import Flask

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http.md"
SINGULAR = re.compile(r"/(action|job|workflow)(?=/|$)")  # said once for all on the page


def test_every_route_and_method_is_on_the_page(app: Flask) -> None:
    page = PAGE.read_text().replace("{id or name}", "{id}")
    missing = []
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule)
        if SINGULAR.search(path):
            continue
        methods = rule.methods - {"HEAD", "OPTIONS"}
        if not any(f"{method} {path}`" in page for method in methods):
            missing.append(f"{methods} {path}")
    assert missing == []
