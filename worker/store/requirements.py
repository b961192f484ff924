"""The Python packages that an action asks for: `dependencies.python` of its forepaas.json."""

from typing import Any

from worker.errors import Invalid

WHERE = 'forepaas.json: "dependencies.python"'


def requirements_of(config: dict[str, Any]) -> tuple[str, ...]:
    """The requirements, sorted, as pip and uv take them; raises Invalid.

    `{"pandas<3": null, "httpx": ">=0.27"}`, or a list of them.
    """
    dependencies = config.get("dependencies") or {}
    if not isinstance(dependencies, dict):
        raise Invalid('forepaas.json: "dependencies" must be an object')
    given = dependencies.get("python") or {}
    if isinstance(given, list):
        given = dict.fromkeys(given) if all(isinstance(line, str) for line in given) else None
    if not isinstance(given, dict):
        raise Invalid(f'{WHERE} must be an object like {{"pandas<3": null}}')
    found = []
    for name, version in given.items():
        line = name.strip() + (version.strip() if isinstance(version, str) else "")
        # Whoever pushes may run code, but a word for uv itself is a mistake.
        if (
            not (version is None or isinstance(version, str))
            or not line
            or line.startswith("-")
            or not line.isprintable()
        ):
            raise Invalid(f"{WHERE}: {name!r}: {version!r} is no requirement")
        found.append(line)
    return tuple(sorted(found))
