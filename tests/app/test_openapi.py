"""`/openapi.json`: every route is in it, and what it says of them is so (see also tests/fuzz)."""

import json
import re

import jsonschema
import pytest
from flask import Flask

from app.openapi.document import ALL, document


def test_every_route_is_described(app: Flask) -> None:
    missing = sorted({rule.endpoint for rule in app.url_map.iter_rules()} - set(ALL))
    assert not missing, f"add them to app/openapi/operations.py: {missing}"
    gone = sorted(set(ALL) - {rule.endpoint for rule in app.url_map.iter_rules()})
    assert not gone, f"take them out of app/openapi/operations.py: {gone}"


def test_the_document_answers_and_names_what_is_needed(app: Flask) -> None:
    answer = app.test_client().get("/openapi.json")
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    start = answer.json["paths"]["/dpe/v3/actions/{id}/start"]["post"]
    assert start["description"] == "Permission `dpe:action:start`."
    assert start["security"] == [{"bearer": []}, {"token": []}]
    assert {"200", "202", "400", "401", "403", "404", "409"} <= set(start["responses"])
    assert answer.json["paths"]["/health"]["get"]["security"] == []


def test_operations_have_names_of_their_own(app: Flask) -> None:
    paths = document(app)["paths"]
    ids = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert len(ids) == len(set(ids))


def test_references_lead_somewhere_and_examples_fit(app: Flask) -> None:
    found = document(app)
    schemas = found["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(found))) == set(schemas)
    for path in found["paths"].values():
        for operation in path.values():
            for kind in operation.get("requestBody", {"content": {}})["content"].values():
                jsonschema.validate(
                    kind["example"], {**kind["schema"], "components": {"schemas": schemas}}
                )


@pytest.mark.parametrize("method", ["get", "post", "put", "delete"])
def test_other_methods_are_405_with_those_there_are(app: Flask, method: str) -> None:
    client = app.test_client()
    known = set(document(app)["paths"]["/dpe/v3/actions/{id}/start"])
    answer = client.open("/dpe/v3/actions/5eaf0db7f6f51d5255974217/start", method=method)
    assert (answer.status_code == 405) == (method not in known)
