"""Pages of lists (AIP 158): sizes, and opaque signed tokens."""

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from services.runtime.errors import InvalidArgument, Violation

Json = str | int | float | bool | None
_SIGNATURE_BYTES = 16
_MAX_TOKEN = 4096


def page_size(requested: int, *, default: int = 50, maximum: int = 1000) -> int:
    """The size to use: 0 means `default`, too large is cut, negative raises InvalidArgument."""
    if requested < 0:
        hint = "page_size must not be negative: leave it out for the default"
        raise InvalidArgument(hint, reason="OUT_OF_RANGE", violations=(Violation("page_size", hint),))
    return min(requested, maximum) if requested else default


class PageTokens:
    """Makes and checks tokens. A token belongs to one `scope`: give the project, the method and the filter.

    Tokens are signed so that nobody can make one, and readable so that they need no store; put no secrets in them.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def open(cls, secret: str, data_dir: Path) -> "PageTokens":
        """With the setting `paging_secret`, or, when that is empty, a random secret kept in `data_dir`."""
        return cls(secret.encode() if secret else _kept_secret(data_dir / "paging.key"))

    def sign(self, cursor: Mapping[str, Json], *scope: str) -> str:
        """The token that leads to `cursor`."""
        body = json.dumps(cursor, separators=(",", ":"), sort_keys=True).encode()
        return base64.urlsafe_b64encode(self._signature(body, scope) + body).rstrip(b"=").decode()

    def verify(self, token: str, *scope: str) -> dict[str, Json]:
        """The cursor of a token, {} for the empty one. Raises InvalidArgument for one that is not of this scope."""
        if not token:
            return {}
        try:
            if len(token) > _MAX_TOKEN:
                raise ValueError("too long")
            data = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), b"-_", validate=True)
        except (ValueError, binascii.Error):
            raise _bad_token() from None
        signature, body = data[:_SIGNATURE_BYTES], data[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(body, scope)):
            raise _bad_token()
        cursor: dict[str, Json] = json.loads(body)
        return cursor

    def _signature(self, body: bytes, scope: tuple[str, ...]) -> bytes:
        message = json.dumps(scope).encode() + b"\0" + body
        return hmac.digest(self._secret, message, hashlib.sha256)[:_SIGNATURE_BYTES]


def _bad_token() -> InvalidArgument:
    hint = "page_token is not one of this list: send back next_page_token with the other fields unchanged"
    return InvalidArgument(hint, reason="BAD_TOKEN", violations=(Violation("page_token", hint),))


def _kept_secret(path: Path) -> bytes:
    """The secret in the file, made when there is none; of several processes that make it, all use the first's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    if not path.exists():
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(scratch, path)
        except FileExistsError:
            pass
        finally:
            scratch.unlink()
    return path.read_bytes()
