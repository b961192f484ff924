"""What Postgres keeps encrypted, like the secrets of webhooks; the key is not in Postgres.

Fernet (AES-128-CBC with HMAC-SHA256).  The key is `DPE_SECRETS_KEY`, or else the file `secrets.key`
in `DPE_HOME`, which `dpe up` makes.  Of several keys, with commas between, the first one encrypts
and all decrypt: so a key is replaced without a moment in which nothing can be read.
"""

import base64
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from worker.errors import DpeError, SettingError
from worker.settings import Settings

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

FILE = "secrets.key"
HOW_TO_MAKE = "make one: openssl rand -base64 32 | tr '+/' '-_'; it is the same for all processes"


class Unreadable(DpeError):
    """What is kept was encrypted with a key that is not at hand."""


def make_key(home: Path) -> None:
    """Make the file with a key, unless it is there; its owner alone may read it."""
    path = home / FILE
    if path.exists():
        return
    draft = path.with_name(f"{FILE}.new")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        file.write(base64.urlsafe_b64encode(os.urandom(32)))
    draft.replace(path)


def seal(settings: Settings, what: str, secret: str) -> str:
    """Encrypt a secret; `what` says whose it is, and it opens as nothing else.

    Raises SettingError where there is no key.
    """
    return _keys(settings).encrypt(orjson.dumps([what, secret])).decode()


def unseal(settings: Settings, what: str, sealed: str) -> str:
    """The secret; raises SettingError without a key, Unreadable with another one."""
    from cryptography.fernet import InvalidToken  # noqa: PLC0415 -- most processes never need it

    try:
        whose, secret = orjson.loads(_keys(settings).decrypt(sealed))
    except InvalidToken:
        whose, secret = None, ""
    if whose != what:
        raise Unreadable(
            f"{what} can't be decrypted with this DPE_SECRETS_KEY",
            "add the key that it was encrypted with, after a comma; or set it again",
        )
    return secret


def _keys(settings: Settings) -> "MultiFernet":
    text = settings.secrets_key
    if text is None:
        try:
            text = (settings.home / FILE).read_text()
        except FileNotFoundError:
            raise SettingError("DPE_SECRETS_KEY is not set", HOW_TO_MAKE) from None
    return _read(text.strip())


@cache
def _read(text: str) -> "MultiFernet":
    from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415

    try:
        return MultiFernet([Fernet(key.strip()) for key in text.split(",")])
    except ValueError:
        # The text itself is not shown: it may be nearly right.
        raise SettingError(
            "DPE_SECRETS_KEY must be 32 bytes in URL-safe base64", HOW_TO_MAKE
        ) from None
