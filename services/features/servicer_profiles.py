"""ProfileService: converts requests, reads, and hands out bytes that are written already."""

import hashlib
from collections.abc import AsyncGenerator, Iterable
from functools import partial
from typing import Any

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from inkling.features.v1 import profile_pb2
from inkling.features.v1 import profile_service_pb2 as messages
from services.features import wire
from services.features.definitions import GroupState
from services.features.parity import ParitySampler, Served
from services.features.profiles import CompiledSelection, ProfileReader, Selection, as_of_field, choose
from services.features.project import Project
from services.features.projection import Projection
from services.features.projects import Projects
from services.features.proto_reader import duration_us
from services.features.segments.service import Segments
from services.features.watch import Cursor, Watcher, WatchRequest
from services.runtime.auth import Role, current_caller
from services.runtime.clocks import Clock
from services.runtime.errors import InvalidArgument, Violation
from services.runtime.paging import PageTokens

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.features.v1.ProfileService"
POLICIES = {
    f"/{SERVICE_NAME}/{method}": frozenset({Role.READ, Role.SERVICE})
    for method in ("GetProfile", "BatchGetProfiles", "WatchProfiles")
}
MAX_BATCH = 1_000
MAX_WATCHED = 10_000
MAX_KEY_VALUE = 256
DEFAULT_WAIT_SECONDS, MAX_WAIT_SECONDS = 5.0, 60.0
DEFAULT_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS = 0.1, 60.0

Context = grpc.aio.ServicerContext[Any, Any]


class ProfileServicer:
    """Answers what is known of a key, now."""

    def __init__(
        self,
        projects: Projects,
        tokens: PageTokens,
        clock: Clock,
        sampler: ParitySampler,
        segments: Segments | None = None,
    ) -> None:
        self._segments = segments
        self._sampler = sampler
        self._projects = projects
        self._tokens = tokens
        self._clock = clock
        self._readers: dict[str, tuple[Project, ProfileReader]] = {}

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the service; responses are bytes already."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "GetProfile": grpc.unary_unary_rpc_method_handler(
                self.GetProfile, request_deserializer=messages.GetProfileRequest.FromString
            ),
            "BatchGetProfiles": grpc.unary_unary_rpc_method_handler(
                self.BatchGetProfiles, request_deserializer=messages.BatchGetProfilesRequest.FromString
            ),
            "WatchProfiles": grpc.unary_stream_rpc_method_handler(
                self.WatchProfiles, request_deserializer=messages.WatchProfilesRequest.FromString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))

    async def GetProfile(self, request: messages.GetProfileRequest, context: Context) -> bytes:
        """Reads one profile."""
        check_key_value(request.key_value, "key_value")
        compiled, position, as_of = await self._open(request)
        profile = compiled.profile(request.key_value, position, as_of)
        if self._sampler.chosen(1):
            await self._offer(request, request.key_value, profile)
        return profile

    async def BatchGetProfiles(self, request: messages.BatchGetProfilesRequest, context: Context) -> bytes:
        """Reads several profiles at one instant: nothing happens between the first and the last."""
        if not 1 <= len(request.key_values) <= MAX_BATCH:
            raise _out_of_range("key_values", f"must be 1 to {MAX_BATCH}, not {len(request.key_values)}")
        _check_key_values(request.key_values)
        compiled, position, as_of = await self._open(request)
        profiles = [compiled.profile(key, position, as_of) for key in request.key_values]
        for i in self._sampler.chosen(len(profiles)):
            await self._offer(request, request.key_values[i], profiles[i])
        return b"".join([wire.delimited(1, profile) for profile in profiles])

    async def _offer(
        self, request: messages.GetProfileRequest | messages.BatchGetProfilesRequest, key_value: str, profile: bytes
    ) -> None:
        """Has a profile that was just served recomputed, later."""
        project, _ = await self._reader(current_caller().project)
        selection = selection_of(request.selection)
        revision = project.catalog.revision
        self._sampler.offer(Served(project.name, selection, request.attribute_key, revision, key_value, profile))

    async def WatchProfiles(
        self, request: messages.WatchProfilesRequest, context: Context
    ) -> AsyncGenerator[bytes, None]:
        """Pushes profiles that change."""
        if len(request.key_values) > MAX_WATCHED:
            raise _out_of_range("key_values", f"must be at most {MAX_WATCHED}: leave them out to watch all")
        _check_key_values(request.key_values)
        interval = _seconds(request, "min_interval", DEFAULT_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS)
        project_name = current_caller().project
        project, reader = await self._reader(project_name)
        key = request.selection.SerializeToString(deterministic=True)
        wanted = frozenset(request.key_values)
        question = hashlib.sha256(
            request.attribute_key.encode() + key + b"".join(sorted(wire.delimited(1, each.encode()) for each in wanted))
        )
        scope = ("WatchProfiles", project_name, question.hexdigest())
        choose(project.catalog, selection_of(request.selection), request.attribute_key)
        projection = project.serving()
        watcher = Watcher(
            WatchRequest(wanted, self._cursor(request.resume_token, scope), interval, request.send_initial),
            lambda: reader.compiled(key, request.attribute_key, projection, lambda: selection_of(request.selection)),
            projection,
            lambda cursor: self._tokens.sign({"p": cursor.position, "t": cursor.as_of_us}, *scope),
        )
        async for message in watcher.messages():
            yield message

    def _cursor(self, token: str, scope: tuple[str, ...]) -> Cursor | None:
        if not token:
            return None
        try:
            content = self._tokens.verify(token, *scope)
            position, as_of_us = content["p"], content["t"]
        except (InvalidArgument, KeyError):
            position = as_of_us = None
        if not isinstance(position, int) or not isinstance(as_of_us, int):
            text = "is not a token of this stream: start without one"
            raise InvalidArgument(
                f"resume_token {text}", reason="BAD_TOKEN", violations=(Violation("resume_token", text, "BAD_TOKEN"),)
            ) from None
        return Cursor(position, as_of_us)

    def _new_reader(self, project: Project) -> ProfileReader:
        segments = self._segments
        if segments is None:
            return ProfileReader(project.catalog)
        return ProfileReader(project.catalog, memberships=partial(segments.memberships, project.name))

    async def _reader(self, project_name: str) -> tuple[Project, ProfileReader]:
        found = self._readers.get(project_name)
        if found is None:
            project = await self._projects.get(project_name)
            found = self._readers[project_name] = (project, self._new_reader(project))
        return found

    async def _open(
        self, request: messages.GetProfileRequest | messages.BatchGetProfilesRequest
    ) -> tuple[CompiledSelection, int, bytes]:
        """What is to be read, with the position and the field of the instant that it holds for."""
        project, reader = await self._reader(current_caller().project)
        key = request.selection.SerializeToString()
        projection = project.projection
        if request.min_position or projection is None or not project.ready.is_set():
            projection = await self._wait(request, project)
        compiled = reader.compiled(key, request.attribute_key, projection, lambda: selection_of(request.selection))
        if projection is None:
            return compiled, 0, as_of_field(self._clock.now_us() + 1)
        as_of_us = projection.instant(moving=compiled.moving)
        return compiled, projection.position, as_of_field(as_of_us)

    async def _wait(
        self, request: messages.GetProfileRequest | messages.BatchGetProfilesRequest, project: Project
    ) -> Projection | None:
        """The projection, once it can answer; None when nothing chosen can be served yet."""
        timeout = _seconds(request, "wait_timeout", DEFAULT_WAIT_SECONDS, MAX_WAIT_SECONDS)
        if request.min_position < 0:
            raise _out_of_range("min_position", "must not be negative: 0 does not wait")
        selection = selection_of(request.selection)
        chosen = choose(project.catalog, selection, request.attribute_key)
        more = selection.names_more and project.catalog.needed
        if not more and not any(each.state is GroupState.SERVING for each in chosen):
            return None
        projection = project.serving()
        await projection.wait_for(request.min_position, timeout)
        if self._segments is not None and request.min_position and (selection.segments or selection.everything):
            segments = await self._segments.of(project.name)
            if segments.all():
                await segments.keeper.wait_for(request.min_position, timeout)
        return projection


def selection_of(message: profile_pb2.Selection) -> Selection:
    """A selection from its message."""
    return Selection(
        message.feature_service,
        tuple(message.attribute_groups),
        tuple(message.attributes),
        tuple(message.properties),
        tuple(message.rollups),
        message.segments,
        message.everything,
    )


def check_key_value(value: str, field: str) -> None:
    """Raises InvalidArgument for a value that no key has."""
    if not 0 < len(value) <= MAX_KEY_VALUE:
        raise _out_of_range(field, f"must have 1 to {MAX_KEY_VALUE} characters")


def _check_key_values(values: Iterable[str]) -> None:
    for i, value in enumerate(values):
        check_key_value(value, f"key_values[{i}]")


def _seconds(request: Any, field: str, default: float, maximum: float) -> float:
    if not request.HasField(field):
        return default
    message: Duration = getattr(request, field)
    seconds = duration_us(message) / 1e6
    if not 0 <= seconds <= maximum:
        raise _out_of_range(field, f"must be from 0 to {maximum:g} seconds")
    return seconds


def _out_of_range(field: str, description: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field} {description}", reason="OUT_OF_RANGE", violations=(Violation(field, description, "OUT_OF_RANGE"),)
    )
