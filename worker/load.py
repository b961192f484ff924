"""From an action's version to its callable: compiled once per process, then kept.

An action's modules are the submodules of a package of its own, `action_<id>_<version>`, and its
code sees them under their plain names too (`import rules`), because its `__import__` looks there
first.  So two actions, or two versions, with modules of the same name never meet, and nothing of
an action stands in front of ours or anybody's modules on `sys.path`.
"""

import builtins
import importlib
import importlib.abc
import importlib.machinery
import logging
import os
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import psycopg

from forepaas.core.settings import CONFIG, PARAMS
from worker import secret_params
from worker.errors import LoadError
from worker.logs import NOTICE
from worker.recent_defaults import recent_defaults
from worker.store import actions, job_settings
from worker.store.requirements import requirements_of
from worker.store.retry import Retry
from worker.store.workflow_plan import settings
from worker.store.workflow_steps import Given

KEPT = 256  # versions per process; the least recently used goes first

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": NOTICE,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


@dataclass(frozen=True, slots=True)
class Action:
    """One version of an action, its files laid out, its settings read; not imported yet."""

    source: actions.Source
    package: str
    params: dict[str, Any]
    variables: dict[str, str]
    secrets: frozenset[str]  # names of those that its settings refer to
    log_level: int
    keeps_on_insert_error: bool
    quarantines: bool
    retry: Retry
    max_memory: int | None  # bytes that a job may take; None: no limit
    requirements: tuple[str, ...]

    def handler(self) -> Callable[[Any], Any]:
        """Import `main.py` (the first time) and return the function that takes the event."""
        try:
            main = importlib.import_module(f"{self.package}.main")
        except BaseException:
            # A half-imported module must not pass for a whole one at the next attempt.
            _forget(self.package)
            raise
        handler = getattr(main, self.source.function, None)
        if not callable(handler):
            _forget(self.package)
            functions = [n for n, v in vars(main).items() if isinstance(v, types.FunctionType)]
            raise LoadError(
                f"main.py has no function {self.source.function!r};"
                f" it has: {', '.join(functions) or 'none'}",
                'name it in forepaas.json: "function_name"',
            )
        return handler


_known: OrderedDict[tuple[str, int, str], Action] = OrderedDict()


def load(
    conn: psycopg.Connection,
    action_id: str,
    version: int,
    folder: Path,
    given: Given | None = None,
) -> Action:
    """The action at this version; its files are laid out below `folder` the first time.

    With settings that a step of a workflow gives it, or defaults, it is another one: most handlers
    read their parameters at import.
    """
    defaults = recent_defaults.read(conn)
    around: list[dict[str, Any]] = [defaults, {}] if defaults else []
    if given is not None and (given.under or given.over):
        around = [{**defaults, **given.under}, given.over]
    mark = sha256(orjson.dumps(around)).hexdigest()[:16] if around else ""
    key = action_id, version, mark
    if key in _known:
        _known.move_to_end(key)
        return _with_secrets(conn, _known[key])
    source = actions.source(conn, action_id, version)
    if source is None:
        raise LoadError(f"version {version} of action {action_id} is not in the database")
    if around:
        source = replace(source, config=settings(source.config, *around))
    action = _lay_out(source, folder, mark)
    _known[key] = action
    if len(_known) > KEPT:
        _, oldest = _known.popitem(last=False)
        _forget(oldest.package)
        _secrets.pop(oldest.package, None)
    return _with_secrets(conn, action)


_secrets: dict[str, dict[str, str]] = {}  # what each package was imported with


def _with_secrets(conn: psycopg.Connection, action: Action) -> Action:
    if not action.secrets:
        return action
    found = secret_params.read(conn, action.secrets)
    if _secrets.get(action.package) != found:
        _forget(action.package)  # most handlers read their parameters at import
        _secrets[action.package] = found
    params, variables = _given(secret_params.filled(action.source.config, found))
    return replace(action, params=params, variables=variables)


@contextmanager
def settings_of(action: Action, context: Mapping[str, Any]) -> Iterator[None]:
    """Fill PARAMS, CONFIG and the environment for one run, in place, and take them back after.

    Handlers hold the dicts themselves (`from forepaas.core.settings import PARAMS`), most of them
    read at import: so this stands around the import as well as around the call.
    """
    PARAMS.clear()
    PARAMS.update(action.params)
    CONFIG.clear()
    CONFIG.update(context)
    before = _environ().copy()
    os.environ.update(action.variables)
    try:
        yield
    finally:
        _restore(before)


def _restore(before: dict[bytes, bytes]) -> None:
    # Most runs change nothing: looking costs little, setting forty variables anew does not.
    after = _environ().copy()
    if after == before:
        return
    for name in after.keys() - before.keys():
        del os.environb[name]
    for name, value in before.items():
        if after.get(name) != value:
            os.environb[name] = value


def _environ() -> dict[bytes, bytes]:
    # What `os.environb` wraps: copied through it, variable by variable, two copies took 4 % of the
    # time of a short job.
    return os.environb._data  # type: ignore[attr-defined]


def _lay_out(source: actions.Source, folder: Path, mark: str) -> Action:
    package = f"action_{source.action_id}_{source.version}{mark and '_' + mark}"
    home = folder / package
    for path, content in source.files.items():
        target = home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # Children of one worker share the folder: a file is whole or not there.
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        draft.write_bytes(content)
        draft.replace(target)
    _register(package, home)
    params, variables = _given(source.config)
    settings = {"params": job_settings.own_settings(source.config)}
    environment = source.config.get("environment") or {}
    level = str(environment.get("log_level") or "info").lower()
    return Action(
        source=source,
        package=package,
        params=params,
        variables=variables,
        secrets=frozenset(secret_params.named_in([params, environment.get("variables")])),
        log_level=LEVELS.get(level, logging.INFO),
        keeps_on_insert_error=params.get("on_insert_error") == "continue",
        quarantines=params.get("on_insert_error") == "quarantine",
        retry=Retry.of(settings),
        max_memory=job_settings.memory_of(settings),
        requirements=requirements_of(source.config),
    )


def _given(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """An action's parameters, and its environment variables."""
    params = dict(config.get("params") or {})
    declared = _variables((config.get("environment") or {}).get("variables"))
    return params, {k: v for k, v in params.items() if isinstance(v, str)} | declared


def _variables(declared: Any) -> dict[str, str]:
    """`{"A": "1"}` or `[{"name": "A", "value": "1"}]`: both are met in the wild."""
    if isinstance(declared, list):
        declared = {
            entry.get("name", entry.get("key")): entry.get("value")
            for entry in declared
            if isinstance(entry, dict)
        }
    if not isinstance(declared, dict):
        return {}
    return {str(k): str(v) for k, v in declared.items() if k and v is not None}


def _register(package: str, home: Path) -> None:
    module = types.ModuleType(package)
    module.__path__ = [str(home)]
    module.__package__ = package
    sys.modules[package] = module
    own = {entry.stem if entry.suffix == ".py" else entry.name for entry in home.iterdir()}
    _finder.packages[package] = vars(builtins) | {"__import__": _import_for(package, own)}


def _forget(package: str) -> None:
    for name in [n for n in sys.modules if n == package or n.startswith(package + ".")]:
        if name != package:
            del sys.modules[name]


def _import_for(package: str, own: set[str]) -> Callable[..., types.ModuleType]:
    def local_import(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> types.ModuleType:
        top = name.partition(".")[0]
        if level or top not in own:
            return builtins.__import__(name, globals, locals, fromlist, level)
        if fromlist:
            return builtins.__import__(f"{package}.{name}", globals, locals, fromlist, 0)
        importlib.import_module(f"{package}.{name}")
        return sys.modules[f"{package}.{top}"]

    return local_import


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of actions' packages, and gives each its action's `__import__`."""

    def __init__(self) -> None:
        self.packages: dict[str, dict[str, Any]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        given = self.packages.get(name.partition(".")[0])
        if given is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path, given)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, given: dict[str, Any]) -> None:
        super().__init__(name, path)
        self._given = given

    def exec_module(self, module: types.ModuleType) -> None:
        module.__dict__["__builtins__"] = self._given
        super().exec_module(module)


_finder = _Finder()
sys.meta_path.insert(0, _finder)
