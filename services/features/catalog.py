"""The definitions of one project: what may be created, changed, published and deleted, and what names mean.

All definitions are held in memory, because each read of a profile looks at them; every change is written to the store
first. `revision` rises with each change, so that whoever compiled something from them knows when to do it again.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from services.features.compile import compile_group
from services.features.definitions import (
    AttributeGroup,
    FeatureService,
    GroupReference,
    GroupState,
    Problem,
    parse_group_name,
    parse_service_name,
)
from services.features.property_catalog import PropertyCatalog
from services.features.property_store import PropertyStore
from services.features.store import DefinitionStore, Request, StoredGroup, StoredService
from services.features.validation import check_group, check_service, describe
from services.kernel.aggregations import Aggregation
from services.runtime.clocks import Clock
from services.runtime.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Violation


class Catalog:
    """A project's definitions. Changes are made one after the other."""

    def __init__(self, project: str, store: DefinitionStore, clock: Clock) -> None:
        self.project = project
        self.revision = 0
        self._store = store
        self._clock = clock
        self._groups: dict[tuple[str, int], StoredGroup] = {}
        self._services: dict[str, StoredService] = {}
        self._lock = asyncio.Lock()
        self.properties = PropertyCatalog(project, PropertyStore(store.database), clock, self._rise)
        """The declared properties and roll-ups."""

    @classmethod
    async def load(cls, project: str, store: DefinitionStore, clock: Clock) -> "Catalog":
        """Reads a project's definitions."""
        catalog = cls(project, store, clock)
        catalog._groups = {(s.group.group_id, s.group.version): s for s in await store.groups(project)}
        catalog._services = {s.service.service_id: s for s in await store.services(project)}
        await catalog.properties.load()
        return catalog

    # Looking up.

    @property
    def groups(self) -> list[StoredGroup]:
        """All versions of all groups, by id, then version."""
        return [self._groups[key] for key in sorted(self._groups)]

    @property
    def services(self) -> list[StoredService]:
        """All services, by id."""
        return [self._services[key] for key in sorted(self._services)]

    @property
    def published(self) -> list[StoredGroup]:
        """The versions that are served or being filled."""
        return [stored for stored in self.groups if stored.state is not GroupState.DRAFT]

    @property
    def needed(self) -> list[tuple[str, Aggregation]]:
        """All that must be computed: attribute keys and aggregations."""
        groups = [stored.group for stored in self.published]
        return [
            *((group.attribute_key, each) for group in groups for each in compile_group(group)),
            *self.properties.needed(),
        ]

    def group(self, name: str) -> StoredGroup:
        """The version of a group with this name; raises InvalidArgument or NotFound."""
        reference = parse_group_name(name)
        if reference is None or not reference.version:
            raise _bad_name(name, "attributeGroups/{group}/versions/{version}")
        stored = self._groups.get((reference.group_id, reference.version))
        if stored is None:
            raise NotFound(f"there is no {name}", reason="NOT_FOUND", metadata={"name": name})
        return stored

    def service(self, name: str) -> StoredService:
        """The service with this name; raises InvalidArgument or NotFound."""
        service_id = parse_service_name(name)
        if service_id is None:
            raise _bad_name(name, "featureServices/{feature_service}")
        stored = self._services.get(service_id)
        if stored is None:
            raise NotFound(f"there is no {name}", reason="NOT_FOUND", metadata={"name": name})
        return stored

    def latest_published(self, group_id: str) -> StoredGroup | None:
        """The newest version that is served; while there is none, the newest that is being filled."""
        versions = [stored for stored in self.published if stored.group.group_id == group_id]
        serving = [stored for stored in versions if stored.state is GroupState.SERVING]
        return max(serving or versions, key=lambda stored: stored.group.version, default=None)

    def resolve(self, reference: GroupReference) -> StoredGroup:
        """The published version that a reference means; raises NotFound, or FailedPrecondition for a draft."""
        if reference.version:
            stored = self.group(reference.name)
            if stored.state is GroupState.DRAFT:
                raise FailedPrecondition(f"{reference.name} is not published: publish it", reason="NOT_PUBLISHED")
            return stored
        latest = self.latest_published(reference.group_id)
        if latest is None:
            raise NotFound(
                f"there is no published version of {reference.name}",
                reason="NOT_FOUND",
                metadata={"name": reference.name},
            )
        return latest

    # Groups.

    async def create_group(
        self,
        group: AttributeGroup,
        problems: Iterable[Problem],
        request: Request | None,
        *,
        validate_only: bool = False,
    ) -> StoredGroup:
        """Adds a draft. Version 0 becomes one more than the latest; `problems` are those found on the way here."""
        async with self._lock:
            made = await self._store.repeated(self.project, request)
            if made is not None:
                return self.group(made)
            if group.version == 0:
                versions = [version for group_id, version in self._groups if group_id == group.group_id]
                group = replace(group, version=max(versions, default=0) + 1)
            refuse(merged(problems, check_group(group)))
            if (group.group_id, group.version) in self._groups:
                raise AlreadyExists(f"{group.name} exists already: give another version", reason="ALREADY_EXISTS")
            now_us = self._clock.now_us()
            stored = StoredGroup(group, GroupState.DRAFT, now_us, now_us)
            if not validate_only:
                await self._store.add_group(self.project, stored, request)
                self._keep(stored)
            return stored

    async def update_group(
        self, group: AttributeGroup, problems: Iterable[Problem], etag: str, *, validate_only: bool = False
    ) -> StoredGroup:
        """Changes a draft. A given etag must match."""
        async with self._lock:
            before = self.group(group.name)
            _check_etag(etag, before.etag)
            if before.state is not GroupState.DRAFT:
                raise FailedPrecondition(
                    f"{group.name} is published and cannot change: create a new version", reason="PUBLISHED_IMMUTABLE"
                )
            refuse(merged(problems, check_group(group)))
            stored = replace(
                before,
                group=replace(group, origin=before.group.origin),
                update_time_us=self._tick(before.update_time_us),
            )
            if not validate_only:
                await self._store.replace_group(self.project, stored)
                self._keep(stored)
            return stored

    async def set_state(self, name: str, state: GroupState) -> StoredGroup:
        """Moves a version on in its life. From DRAFT it goes to BACKFILLING only; raises FailedPrecondition."""
        async with self._lock:
            before = self.group(name)
            if state is GroupState.BACKFILLING and before.state is not GroupState.DRAFT:
                raise FailedPrecondition(f"{name} is published already", reason="PUBLISHED_IMMUTABLE")
            now_us = self._tick(before.update_time_us)
            publish_time_us = {
                GroupState.DRAFT: None,
                GroupState.BACKFILLING: now_us,
                GroupState.SERVING: before.publish_time_us,
            }[state]
            stored = replace(before, state=state, update_time_us=now_us, publish_time_us=publish_time_us)
            await self._store.replace_group(self.project, stored)
            self._keep(stored)
            return stored

    async def delete_group(self, name: str) -> StoredGroup:
        """Removes a version, unless a service names it."""
        async with self._lock:
            stored = self.group(name)
            readers = [(each.service.name, each.service.groups) for each in self._services.values()]
            readers += self.properties.readers_of_groups()
            users = [name for name, references in readers if self._needs(references, stored)]
            segments = self._segments_of(stored)
            if users or segments:
                raise FailedPrecondition(
                    f"{name} is read by {', '.join(sorted([*users, *segments])[:5])}: change or delete that first",
                    reason="IN_USE",
                    metadata={"services": ",".join(sorted(users)[:20]), "segments": ",".join(segments[:20])},
                )
            await self._store.delete_group(self.project, stored.group)
            del self._groups[stored.group.group_id, stored.group.version]
            self.revision += 1
            return stored

    def _segments_of(self, stored: StoredGroup) -> list[str]:
        """The segments that would lack an attribute without this version: they read the latest published one."""
        group = stored.group
        mine = [each for each in self.published if each.group.group_id == group.group_id]
        others = [each for each in mine if each is not stored]
        if not any(each is stored for each in mine) or any(o.group.version > group.version for o in others):
            return []
        next_latest = max(others, key=lambda each: each.group.version, default=None)
        left = {each.name for each in next_latest.group.attributes} if next_latest else set()
        read = self.properties.fields_read(group.attribute_key, group.group_id)
        return sorted({segment for segment, field in read if field not in left})

    def _needs(self, references: Iterable[GroupReference], stored: StoredGroup) -> bool:
        """Whether one of the references would lack something without this version."""
        group = stored.group
        for reference in references:
            if reference.group_id != group.group_id:
                continue
            if reference.version == group.version:
                return True
            others = [each for each in self.published if each.group.group_id == group.group_id and each is not stored]
            if reference.version == 0 and stored.state is not GroupState.DRAFT and not others:
                return True
        return False

    # Services.

    async def create_service(
        self,
        service: FeatureService,
        problems: Iterable[Problem],
        request: Request | None,
        *,
        validate_only: bool = False,
    ) -> StoredService:
        """Adds a service. Its groups must be published and of one attribute key."""
        async with self._lock:
            made = await self._store.repeated(self.project, request)
            if made is not None:
                return self.service(made)
            refuse(merged(problems, self.check_service(service)))
            if service.service_id in self._services:
                raise AlreadyExists(f"{service.name} exists already: update it", reason="ALREADY_EXISTS")
            now_us = self._clock.now_us()
            stored = StoredService(service, now_us, now_us)
            if not validate_only:
                await self._store.add_service(self.project, stored, request)
                self._services[service.service_id] = stored
                self.revision += 1
            return stored

    async def update_service(
        self, service: FeatureService, problems: Iterable[Problem], etag: str, *, validate_only: bool = False
    ) -> StoredService:
        """Changes a service. A given etag must match."""
        async with self._lock:
            before = self.service(service.name)
            _check_etag(etag, before.etag)
            refuse(merged(problems, self.check_service(service)))
            service = replace(service, origin=before.service.origin)
            stored = replace(
                before, service=service, update_time_us=max(self._clock.now_us(), before.update_time_us + 1)
            )
            if not validate_only:
                await self._store.replace_service(self.project, stored)
                self._services[service.service_id] = stored
                self.revision += 1
            return stored

    async def delete_service(self, name: str) -> None:
        """Removes a service."""
        async with self._lock:
            stored = self.service(name)
            await self._store.delete_service(self.project, stored.service.service_id)
            del self._services[stored.service.service_id]
            self.revision += 1

    def check_service(self, service: FeatureService) -> list[Problem]:
        """The mistakes of a service, also those that its groups show."""
        problems = check_service(service)
        if problems:
            return problems
        keys: dict[str, str] = {}
        owners: dict[str, str] = {}
        for i, reference in enumerate(service.groups):
            path = f"attribute_groups[{i}]"
            try:
                group = self.resolve(reference).group
            except (NotFound, FailedPrecondition) as error:
                problems.append(Problem(path, error.message, "publish the group first"))
                continue
            keys.setdefault(group.attribute_key, reference.name)
            for attribute in group.attributes:
                owner = owners.setdefault(attribute.name, group.name)
                if owner != group.name:
                    text = f"`{attribute.name}` of {group.name} is also in {owner}"
                    problems.append(Problem(path, text, "names differ within a service"))
        if len(keys) > 1:
            text = " and ".join(f"`{key}` ({name})" for key, name in sorted(keys.items()))
            problems.append(Problem("attribute_groups", f"have several attribute keys: {text}", "read them separately"))
        return problems

    def _rise(self) -> None:
        self.revision += 1

    def _keep(self, stored: StoredGroup) -> None:
        self._groups[stored.group.group_id, stored.group.version] = stored
        self.revision += 1

    def _tick(self, last_us: int) -> int:
        """Now, and later than the last change: so that every change has an etag of its own."""
        return max(self._clock.now_us(), last_us + 1)


def merged(found: Iterable[Problem], checked: Iterable[Problem]) -> list[Problem]:
    """Problems of reading, then those of checking at places that reading did not complain about."""
    first = list(found)
    places = {problem.field for problem in first}
    return first + [problem for problem in checked if problem.field not in places]


def refuse(problems: list[Problem]) -> None:
    """Raises InvalidArgument with all problems, if there are any."""
    if problems:
        count = f"{len(problems)} mistakes" if len(problems) > 1 else "a mistake"
        raise InvalidArgument(
            f"the definition has {count}; the first: {problems[0].field}: {describe(problems[0])}",
            reason="BAD_DEFINITION",
            violations=[Violation(problem.field, describe(problem), "BAD_DEFINITION") for problem in problems],
        )


def _check_etag(given: str, present: str) -> None:
    if given and given != present:
        raise Aborted("somebody else changed it: read it again", reason="ETAG_MISMATCH")


def _bad_name(name: str, form: str) -> InvalidArgument:
    text = f"{name[:200]!r} is not a name of the form {form}"
    return InvalidArgument(text, reason="BAD_NAME", violations=(Violation("name", text, "BAD_NAME"),))
