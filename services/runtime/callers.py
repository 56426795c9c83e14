"""Who calls, and what they may do: roles, callers, and a policy for every method. `auth` has the keys."""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from services.runtime.errors import InvalidArgument, PermissionDenied, Violation


class Role(StrEnum):
    """What a key is for. No role includes another."""

    INGEST = "ingest"
    READ = "read"
    DEFINE = "define"
    UPLOAD = "upload"
    OPERATE = "operate"
    SERVICE = "service"
    """Another service of the suite: it acts for the project that it names in `x-inkling-project`."""


Policies = Mapping[str, frozenset[Role]]
"""Full method name (`/inkling.ingest.v1.IngestService/Ingest`) to the roles of which one is enough."""

EVERY_ROLE = frozenset(Role)
DEFAULT_PROJECT = "default"
_PROJECT = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Caller:
    """Who is calling: the project that everything they do belongs to, their roles, the id of their key."""

    project: str
    roles: frozenset[Role]
    key_id: str


CALLER: ContextVar[Caller] = ContextVar("caller")


def current_caller() -> Caller:
    """The caller of the RPC that runs now; LookupError outside of one (and in methods that need no credential)."""
    return CALLER.get()


def check_project(project: str) -> str:
    """The project's name, when it is one; raises InvalidArgument."""
    if not _PROJECT.fullmatch(project):
        hint = "a project is a lower-case letter, then up to 62 of a-z, 0-9, - and _"
        raise InvalidArgument(hint, reason="BAD_PROJECT", violations=(Violation("project", hint),))
    return project


def act_for(caller: Caller, project: str | None) -> Caller:
    """The caller with the project of `x-inkling-project`: services must name one, nobody else may.

    Raises PermissionDenied.
    """
    if Role.SERVICE not in caller.roles:
        if project is not None:
            raise PermissionDenied("only services may send x-inkling-project: leave it out", reason="BAD_PROJECT")
        return caller
    if project is None:
        raise PermissionDenied("a service must name the project it acts for in x-inkling-project", reason="BAD_PROJECT")
    return Caller(check_project(project), caller.roles, caller.key_id)


def authorize(caller: Caller, method: str, policies: Policies) -> None:
    """Raises PermissionDenied unless one of the caller's roles is enough for the method. No policy: nobody's is."""
    allowed = policies.get(method)
    if allowed is None:
        raise PermissionDenied("no policy allows this method", reason="NO_POLICY")
    if allowed.isdisjoint(caller.roles):
        needed = " or ".join(sorted(allowed)) or "none"
        raise PermissionDenied(
            f"the key lacks the role for this method: it needs {needed}",
            reason="MISSING_ROLE",
            metadata={"method": method, "roles": ",".join(sorted(allowed))},
        )
