"""Who may call, how often, and whether it is still worth while."""

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from types import TracebackType

from services.runtime.auth import KeyStore
from services.runtime.callers import (
    CALLER,
    DEFAULT_PROJECT,
    EVERY_ROLE,
    Caller,
    Policies,
    Role,
    act_for,
    authorize,
    check_project,
)
from services.runtime.calls import Call
from services.runtime.errors import DeadlineExceeded, ResourceExhausted, Unauthenticated

PROJECT_KEY = "x-inkling-project"
_BEARER = "bearer "


class Admission:
    """Surrounds a call with a check before it; nothing after."""

    __slots__ = ()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


class Authentication:
    """Finds the caller by API key or client certificate and holds them to the method's policy. Fails closed."""

    name = "auth"
    active = True

    def __init__(
        self,
        keys: KeyStore,
        policies: Policies,
        *,
        insecure: bool = False,
        service_certificates: Collection[str] = (),
    ) -> None:
        """`insecure` takes callers without a key as project `default` (or the one they name) with every role.

        `service_certificates` are names in client certificates that make the caller one of our services.
        """
        self._keys = keys
        self._policies = policies
        self._insecure = insecure
        self._service_certificates = frozenset(name.encode() for name in service_certificates)

    def __call__(self, call: Call) -> AbstractAsyncContextManager[object]:
        return _Authenticated(self, call)

    async def authenticate(self, call: Call) -> Caller:
        """The caller, after policy. Raises Unauthenticated or PermissionDenied."""
        project = _text(call, PROJECT_KEY)
        header = _text(call, "authorization")
        if header is not None:
            if header[: len(_BEARER)].lower() != _BEARER:
                raise Unauthenticated("authorization must be `Bearer` and an API key", reason="BAD_KEY")
            caller = act_for(await self._keys.verify(header[len(_BEARER) :]), project)
        elif self._service_certificates and self._shows_service_certificate(call):
            caller = act_for(Caller("", frozenset({Role.SERVICE}), "certificate"), project)
        elif self._insecure:
            caller = Caller(check_project(project or DEFAULT_PROJECT), EVERY_ROLE, "insecure")
        else:
            raise Unauthenticated("no API key: send metadata `authorization: Bearer KEY`", reason="NO_KEY")
        authorize(caller, call.method.full_name, self._policies)
        return caller

    def _shows_service_certificate(self, call: Call) -> bool:
        # gRPC only hands on certificates that it has verified against tls_client_ca_file.
        shown = call.context.auth_context() or {}
        names = (*shown.get("x509_common_name", ()), *shown.get("x509_subject_alternative_name", ()))
        return not self._service_certificates.isdisjoint(names)


class _Authenticated(Admission):
    __slots__ = ("_authentication", "_call")

    def __init__(self, authentication: Authentication, call: Call) -> None:
        self._authentication = authentication
        self._call = call

    async def __aenter__(self) -> None:
        if self._call.method.public:
            return
        caller = await self._authentication.authenticate(self._call)
        self._call.caller = caller
        # Each RPC is a task with a context of its own: nothing to reset.
        CALLER.set(caller)


class Quota:
    """A token bucket of calls for each project: `rate` a second, `burst` at once."""

    name = "quota"

    def __init__(self, rate: float, burst: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        """A rate of 0 sets no limit."""
        self.active = rate > 0
        self._rate = rate
        self._burst = float(burst)
        self._monotonic = monotonic
        self._buckets: dict[str, tuple[float, float]] = {}

    def __call__(self, call: Call) -> AbstractAsyncContextManager[object]:
        return _WithinQuota(self, call)

    def take(self, project: str) -> None:
        """Takes one call from the project's bucket. Raises ResourceExhausted with when to try again."""
        now = self._monotonic()
        tokens, since = self._buckets.get(project, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        if tokens < 1:
            self._buckets[project] = (tokens, now)
            wait = timedelta(seconds=(1 - tokens) / self._rate)
            raise ResourceExhausted(
                f"more than {self._rate:g} calls a second for this project",
                reason="RATE_LIMITED",
                retry_after=wait,
                metadata={"quota": "requests_per_second", "limit": f"{self._rate:g}"},
            )
        self._buckets[project] = (tokens - 1, now)


class _WithinQuota(Admission):
    __slots__ = ("_call", "_quota")

    def __init__(self, quota: Quota, call: Call) -> None:
        self._quota = quota
        self._call = call

    async def __aenter__(self) -> None:
        caller = self._call.caller
        if caller is not None:
            self._quota.take(caller.project)


class DeadlineCheck:
    """Refuses work whose caller has stopped waiting; gRPC cancels what is already running."""

    name = "deadline"
    active = True

    def __call__(self, call: Call) -> AbstractAsyncContextManager[object]:
        return _InTime(call)


class _InTime:
    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    async def __aenter__(self) -> None:
        remaining = self._call.context.time_remaining()
        if remaining is not None and remaining <= 0:
            raise DeadlineExceeded("the deadline had passed before the work began")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A handler that meets asyncio.timeout's or a peer's end of time means the same thing.
        if isinstance(error, asyncio.TimeoutError) and self._call.context.time_remaining() == 0:
            raise DeadlineExceeded("the deadline passed during the work") from error


def _text(call: Call, key: str) -> str | None:
    value = call.metadata.get(key)
    return value if value is None or isinstance(value, str) else value.decode("ascii", "replace")
