"""What shapes of JSON are put together from (JSON Schema 2020-12, the dialect of OpenAPI 3.1)."""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
YES_OR_NO: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time"}
UUID: Schema = {"type": "string", "format": "uuid"}
ANYTHING: Schema = {}
HEX_ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{24}$"}
FREE: Schema = {"type": "object"}


def ref(name: str) -> Schema:
    """A shape of `schemas` by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def either(*schemas: Schema) -> Schema:
    """One of several shapes."""
    return {"anyOf": list(schemas)}


def maybe(schema: Schema) -> Schema:
    """A shape, or null."""
    return either(schema, {"type": "null"})


def array(of: Schema) -> Schema:
    """A list of a shape."""
    return {"type": "array", "items": of}


def record(required: str | None = None, /, **fields: Schema) -> Schema:
    """An object with these fields, all of them there unless `required` names those that are."""
    names = list(fields) if required is None else required.split()
    return {"type": "object", "properties": fields, "required": names}
