"""The HTTP client behind the commands: logs in with an API key, calls, and explains what failed.

Nothing secret is kept on disk; a token lives as long as its command.  Calls go straight to the
API's address, never through a proxy of the environment: the API is a machine of one's own.
"""

import json
import os
import shutil
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from app.stack_file import environment
from worker.errors import DpeError, SettingError, Unauthenticated
from worker.settings import Settings

if TYPE_CHECKING:
    from http.client import HTTPConnection

TIMEOUT_S = 40.0  # longer than the longest `?wait=`
DOWNLOAD_TIMEOUT_S = 600.0  # until the next bytes: a large table is looked through before
LONGEST_WAIT_S = 30
STATUS_UNAUTHENTICATED = 401
SHOWN = 20  # errors of a list
STATUS_ERRORS = 400
CREDENTIALS = ("DPE_APIKEY", "DPE_SECRETKEY")


class Unreachable(DpeError):
    """Nobody answers at the API's address."""

    status = 503
    title = "The API does not answer"


class Refused(DpeError):
    """The API answered with an error; the text is its own."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, headers (names in lower case), and the decoded JSON."""

    status: int
    headers: dict[str, str]
    data: Any


def client_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings for a client: the environment, and for what it lacks, what `dpe up` left behind.

    The left credentials are used for the stack that left them only: with another `DPE_URL` they
    would be sent to a stranger.
    """
    given = {k: v for k, v in (os.environ if environ is None else environ).items() if v}
    left = environment(Settings.from_environ(given).home)
    if "DPE_URL" in given and given["DPE_URL"].rstrip("/") != left.get("DPE_URL"):
        left = {}
    if any(name in given for name in CREDENTIALS):
        left = {name: value for name, value in left.items() if name not in CREDENTIALS}
    return Settings.from_environ({**left, **given})


class Client:
    """Calls of one command to one API."""

    def __init__(self, url: str, apikey: str | None, secretkey: str | None) -> None:
        self.url = url
        self._parts = urllib.parse.urlsplit(url)
        if self._parts.scheme not in {"http", "https"} or not self._parts.hostname:
            raise SettingError(f"DPE_URL must be like http://127.0.0.1:8080, got {url!r}")
        self._apikey, self._secretkey = apikey, secretkey
        self._token: str | None = None

    @classmethod
    def from_environ(cls) -> "Client":
        """The client that the environment, or what `dpe up` left in DPE_HOME, describes."""
        settings = client_settings()
        return cls(settings.url, settings.apikey, settings.secretkey)

    def token(self) -> str:
        """Log in (once) and return the session's token; raise Unauthenticated without a key."""
        if self._token is None:
            self._token = str(self.login()["token"])
        return self._token

    def login(self) -> dict[str, Any]:
        """Log in with the API key and return the whole session."""
        if not self._apikey or not self._secretkey:
            raise Unauthenticated(
                f"no API key for {self.url}: DPE_APIKEY and DPE_SECRETKEY are not set",
                'is the stack up? run `dpe up`, or `eval "$(dpe env)"`, or `dpe key create`',
            )
        body = {"auth_mode": "apikey", "apikey": self._apikey, "secretkey": self._secretkey}
        return self._checked("POST", "/iam/v4/login", json.dumps(body).encode(), {}).data

    def get(self, path: str, **query: Any) -> Answer:
        """GET with the parameters that are not None."""
        return self.call("GET", path, query=query)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        """One call with a session.  `body` is sent as JSON, bytes as they are, None as nothing.

        Raises Unreachable, or Refused with the API's own words.
        """
        pairs = [
            (name, one)
            for name, value in (query or {}).items()
            for one in (value if isinstance(value, list | tuple) else [value])
            if one is not None
        ]
        target = path + ("?" + urllib.parse.urlencode(pairs) if pairs else "")
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        for last in (False, True):
            headers = {"Authorization": f"Bearer {self.token()}", "Content-Type": content_type}
            try:
                return self._checked(method, target, sent, headers)
            except Refused as error:
                # A token lives an hour, `job logs --follow` may run for longer.
                if last or error.status != STATUS_UNAUTHENTICATED:
                    raise
                self._token = None
        raise AssertionError  # the second turn returned or raised

    def download(self, path: str, sink: BinaryIO, **query: Any) -> None:
        """GET into a file as it comes; raises as `call` does, and where it breaks off."""
        pairs = {name: value for name, value in query.items() if value is not None}
        target = path + ("?" + urllib.parse.urlencode(pairs) if pairs else "")
        headers = {"Authorization": f"Bearer {self.token()}"}
        answer = self._send("GET", target, None, headers, sink)
        if answer.status >= STATUS_ERRORS:
            raise self._refusal(answer, "GET", target)

    def _checked(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str]
    ) -> Answer:
        answer = self._send(method, target, body, headers)
        if answer.status < STATUS_ERRORS:
            return answer
        raise self._refusal(answer, method, target)

    def _refusal(self, answer: Answer, method: str, target: str) -> Refused:
        told = answer.data if isinstance(answer.data, dict) else {}
        words = next(
            (told[k] for k in ("detail", "error", "warning", "message", "title") if told.get(k)),
            f"{self.url} answered {answer.status} to {method} {target.partition('?')[0]}",
        )
        places = [f"\n  {e['pointer']}: {e['detail']}" for e in (told.get("errors") or [])[:SHOWN]]
        return Refused(answer.status, str(words) + "".join(places), str(told.get("hint") or ""))

    def _send(
        self,
        method: str,
        target: str,
        body: bytes | None,
        headers: dict[str, str],
        sink: BinaryIO | None = None,
    ) -> Answer:
        from http.client import HTTPException  # noqa: PLC0415 -- start-up time

        connection = self._connection(TIMEOUT_S if sink is None else DOWNLOAD_TIMEOUT_S)
        try:
            connection.request(
                method,
                self._parts.path.rstrip("/") + target,
                body,
                {"Content-Type": "application/json", "Accept": "application/json", **headers},
            )
            response = connection.getresponse()
            if sink is not None and response.status < STATUS_ERRORS:
                shutil.copyfileobj(response, sink)
            text = response.read()
        except (OSError, HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unreachable(
                f"no answer from {self.url}: {why}", "is the stack up? run `dpe up`"
            ) from error
        finally:
            connection.close()
        try:
            data = json.loads(text) if text else None
        except ValueError:
            data = text.decode(errors="replace")
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, data)

    def _connection(self, timeout_s: float) -> "HTTPConnection":
        from http.client import HTTPConnection, HTTPSConnection  # noqa: PLC0415

        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port, timeout=timeout_s)
