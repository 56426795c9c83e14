"""Webhooks: signed POSTs, to public addresses only, that follow no redirect."""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import os
import secrets
import socket
from pathlib import Path

import httpx

from services.insights.actions.delivery import LaterError, RefusedError
from services.insights.actions.outbox import Outgoing
from services.insights.rules.dates import instant_text

TIMEOUT_SECONDS = 10.0
_TRY_AGAIN = frozenset({408, 425, 429})


class WebhookSecrets:
    """The secret of each project's webhooks, made from one of the installation."""

    def __init__(self, master: bytes) -> None:
        self._master = master

    @classmethod
    def open(cls, master: str, data_dir: Path) -> "WebhookSecrets":
        """With a secret from the settings, or, when that is empty, a random one kept in `data_dir`."""
        if master:
            return cls(master.encode())
        path = data_dir / "webhooks.key"
        data_dir.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return cls(path.read_bytes())
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
        return cls(path.read_bytes())

    def of(self, project: str) -> str:
        """A project's secret, as its owners get it."""
        digest = hmac.new(self._master, f"webhook:{project}".encode(), hashlib.sha256).hexdigest()
        return f"whs_{digest}"


class Webhooks:
    """Calls webhooks."""

    def __init__(self, http: httpx.AsyncClient, keys: WebhookSecrets, *, allow_private: bool = False) -> None:
        """`allow_private` lets webhooks be on private and loopback addresses: where all who make rules are trusted."""
        self._http = http
        self._keys = keys
        self._allow_private = allow_private

    async def call(self, action: Outgoing) -> None:
        """Posts what a rule says of a user. `Inkling-Delivery` is the same for each try of the same action.

        Raises RefusedError when it will never work, LaterError when it may.
        """
        body = json.dumps(
            {
                "id": action.action_id,
                "rule": action.rule_id,
                "version": action.version,
                "user_key": action.user_key,
                "user": action.user,
                "instant": instant_text(action.at_us),
                "count": action.count,
                "sum": action.sum,
            }
        ).encode()
        try:
            url = httpx.URL(action.name)
        except httpx.InvalidURL:
            raise RefusedError("BAD_URL") from None
        headers = {
            "Content-Type": "application/json",
            "Host": url.netloc.decode(),
            "Inkling-Delivery": action.action_id,
            "Inkling-Signature": signature(self._keys.of(action.project), action.create_time_us, body),
        }
        # The address that was looked at is the one that is called: a name may say another one a moment later.
        place = url.copy_with(host=await self._address(url))
        extensions = {"sni_hostname": url.host}
        try:
            response = await self._http.post(place, content=body, headers=headers, extensions=extensions)
        except httpx.HTTPError:
            raise LaterError("WEBHOOK_UNREACHABLE") from None
        if response.status_code in _TRY_AGAIN or response.status_code >= 500:
            raise LaterError(f"WEBHOOK_{response.status_code}")
        if not response.is_success:
            raise RefusedError(f"WEBHOOK_{response.status_code}")

    async def _address(self, url: httpx.URL) -> str:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(url.host, url.port or 443, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise LaterError("WEBHOOK_UNREACHABLE") from None
        addresses = [str(each[4][0]) for each in found]
        public = [text for text in addresses if self._allow_private or ipaddress.ip_address(text).is_global]
        if not public:
            raise RefusedError("WEBHOOK_PRIVATE_ADDRESS")
        return public[0]


def signature(secret: str, at_us: int, body: bytes) -> str:
    """The header that proves who sent a body, and when the action was asked for."""
    seconds = str(at_us // 1_000_000)
    digest = hmac.new(secret.encode(), seconds.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"
