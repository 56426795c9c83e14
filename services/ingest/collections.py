"""Collections: the declared schemas of kinds of events, and how they may change."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from time import monotonic

from services.ingest.compiled.checks import MAX_NAME, MAX_PROPERTY_NAME
from services.ingest.store import CollectionRow, CollectionStore, RequestRow
from services.kernel.columns import RESERVED_VENDOR
from services.runtime.clocks import Clock
from services.runtime.errors import Aborted, AlreadyExists, InvalidArgument, NotFound, Violation

MAX_FIELDS = 256
_ID = re.compile(r"[a-z][a-z0-9_]{0,63}")
_KEY = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FRESH_SECONDS = 1.0


class FieldType(StrEnum):
    """The type of a field."""

    STRING = "STRING"
    NUMBER = "NUMBER"
    INTEGER = "INTEGER"
    BOOLEAN = "BOOLEAN"
    TIMESTAMP = "TIMESTAMP"
    STRING_LIST = "STRING_LIST"


@dataclass(frozen=True)
class Field:
    """One field of a collection: a property of its events."""

    name: str
    type: FieldType | None
    """None when it was not given, which is refused."""
    required: bool = False
    description: str = ""


@dataclass(frozen=True)
class Declaration:
    """What a client says about a collection."""

    event_name: str
    event_vendor: str = ""
    event_version: str = ""
    fields: tuple[Field, ...] = ()
    key_fields: Mapping[str, str] = field(default_factory=dict)
    """Attribute key to the field that holds its value."""
    occurred_at_field: str = ""
    event_id_field: str = ""
    strict: bool = False
    description: str = ""

    def describes(self, vendor: str, name: str, version: str) -> bool:
        """Whether it is about events of a type: given parts are equal. The suite's own events are nobody's."""
        if vendor == RESERVED_VENDOR:
            return False
        return name == self.event_name and self.event_vendor in ("", vendor) and self.event_version in ("", version)

    def mistakes(self) -> list[Violation]:
        """What is wrong with it by itself."""
        found = []

        def wrong(place: str, text: str) -> None:
            found.append(Violation(f"collection.{place}", text, reason="BAD_DECLARATION"))

        if not self.event_name:
            wrong("event_type.name", "is required: which events does the collection describe?")
        for part in ("vendor", "name", "version"):
            text = str(getattr(self, f"event_{part}"))
            if len(text) > MAX_NAME or "/" in text:
                wrong(f"event_type.{part}", f"has at most {MAX_NAME} characters and no slash")
        if self.event_vendor == RESERVED_VENDOR:
            wrong("event_type.vendor", "is the suite's own: describe events of another vendor")
        if len(self.fields) > MAX_FIELDS:
            wrong("fields", f"there are at most {MAX_FIELDS}")
        names = [each.name for each in self.fields]
        for place, each in enumerate(self.fields):
            if not each.name or len(each.name) > MAX_PROPERTY_NAME or ":" in each.name or _has_control(each.name):
                wrong(f"fields[{place}].name", f"has 1 to {MAX_PROPERTY_NAME} characters, no colon, none of control")
            elif names.index(each.name) != place:
                wrong(f"fields[{place}].name", "is there twice: give each field a name of its own")
            if each.type is None:
                wrong(f"fields[{place}].type", "is required")
        for key in self.key_fields:
            if not _KEY.fullmatch(key):
                wrong("key_fields", f"attribute key {key[:64]!r} does not match [a-z][a-z0-9_]{{0,63}}")
        return found


def _has_control(text: str) -> bool:
    return any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in text)


@dataclass(frozen=True)
class Collection:
    """A declared collection."""

    collection_id: str
    declaration: Declaration
    version: int
    create_time_us: int
    update_time_us: int

    @property
    def etag(self) -> str:
        """Changes with each change."""
        return hashlib.sha256(f"{self.version}\n{_document(self.declaration)}".encode()).hexdigest()[:16]


def incompatible(before: Declaration, after: Declaration) -> list[Violation]:
    """Why one declaration may not follow another: what was true of events must stay true.

    Fields may be added (not required), made optional, and widened from integer to number; nothing else of the schema
    changes. Descriptions, strictness, key, time and id fields may.
    """
    found = []

    def wrong(place: str, text: str) -> None:
        found.append(Violation(f"collection.{place}", text, reason="BAD_DECLARATION"))

    if (before.event_vendor, before.event_name, before.event_version) != (
        after.event_vendor,
        after.event_name,
        after.event_version,
    ):
        wrong("event_type", "cannot change: declare another collection")
    old = {each.name: each for each in before.fields}
    for each in before.fields:
        if each.name not in {other.name for other in after.fields}:
            wrong("fields", f"{each.name} was taken away: keep it, optional if need be")
    for place, each in enumerate(after.fields):
        was = old.get(each.name)
        if was is None:
            if each.required:
                wrong(f"fields[{place}].required", "a new field may not be required: older events lack it")
            continue
        widened = was.type is FieldType.INTEGER and each.type is FieldType.NUMBER
        if each.type is not was.type and not widened:
            wrong(f"fields[{place}].type", f"cannot change from {was.type} to {each.type}: add a field")
        if each.required and not was.required:
            wrong(f"fields[{place}].required", "an optional field may not become required")
    return found


def _document(declaration: Declaration) -> str:
    return json.dumps(asdict(declaration), sort_keys=True, ensure_ascii=False)


def _declaration(document: str) -> Declaration:
    values = json.loads(document)
    values["fields"] = tuple(Field(**{**each, "type": FieldType(each["type"])}) for each in values["fields"])
    return Declaration(**values)


def _collection(row: CollectionRow) -> Collection:
    return Collection(
        row.collection_id, _declaration(row.document), row.version, row.create_time_us, row.update_time_us
    )


class Collections:
    """Declares and reads collections. A change by another replica is seen within a second."""

    def __init__(self, store: CollectionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._cached: dict[str, tuple[float, dict[str, Collection]]] = {}

    async def all(self, project: str) -> Mapping[str, Collection]:
        """The project's collections by id, in order."""
        fresh_until, found = self._cached.get(project, (0.0, {}))
        if fresh_until < monotonic():
            found = {row.collection_id: _collection(row) for row in await self._store.all(project)}
            self._cached[project] = (monotonic() + _FRESH_SECONDS, found)
        return found

    async def strict(self, project: str) -> list[Declaration]:
        """The declarations that events must fit."""
        found = await self.all(project)
        return [each.declaration for each in found.values() if each.declaration.strict] if found else []

    async def get(self, project: str, collection_id: str) -> Collection:
        """One collection; raises NotFound."""
        found = (await self.all(project)).get(collection_id)
        if found is None:
            raise NotFound("there is no such collection", reason="NOT_FOUND")
        return found

    async def create(
        self, project: str, collection_id: str, declaration: Declaration, *, request_id: str, validate_only: bool
    ) -> Collection:
        """Declares a collection. The same request again answers as before. Raises AlreadyExists, InvalidArgument."""
        mistakes = declaration.mistakes()
        if not _ID.fullmatch(collection_id):
            mistakes.append(Violation("collection_id", "must match [a-z][a-z0-9_]{0,63}", reason="BAD_DECLARATION"))
        if len(request_id) > 128:
            mistakes.append(Violation("request_id", "has at most 128 characters", reason="BAD_DECLARATION"))
        _refuse(mistakes)
        document = _document(declaration)
        fingerprint = hashlib.sha256(f"{collection_id}\n{document}".encode()).hexdigest()
        if request_id:
            answer = await self._store.answered(project, request_id, fingerprint)
            if answer is not None:
                values = json.loads(answer)
                return Collection(collection_id, declaration, 1, values["time_us"], values["time_us"])
        if collection_id in {row.collection_id for row in await self._store.all(project)}:
            raise _exists()
        now_us = self._clock.now_us()
        made = Collection(collection_id, declaration, 1, now_us, now_us)
        if not validate_only:
            request = None
            if request_id:
                request = RequestRow(
                    project=project,
                    request_id=request_id,
                    fingerprint=fingerprint,
                    document=json.dumps({"time_us": now_us}),
                )
            try:
                await self._store.add(_row(project, made), request)
            except AlreadyExists:
                raise _exists() from None
            self._cached.pop(project, None)
        return made

    async def update(
        self, project: str, before: Collection, declaration: Declaration, *, etag: str, validate_only: bool
    ) -> Collection:
        """Changes a collection compatibly. `etag` must be that of `before`, or empty.

        Raises InvalidArgument for an incompatible change, Aborted when somebody else changed it meanwhile.
        """
        if etag and etag != before.etag:
            raise _lost()
        _refuse(declaration.mistakes() + incompatible(before.declaration, declaration))
        if declaration == before.declaration:
            return before
        after = replace(
            before, declaration=declaration, version=before.version + 1, update_time_us=self._clock.now_us()
        )
        if not validate_only:
            replaced = await self._store.replace(_row(project, after))
            self._cached.pop(project, None)
            if not replaced:
                raise _lost()
        return after


def _row(project: str, collection: Collection) -> CollectionRow:
    return CollectionRow(
        project=project,
        collection_id=collection.collection_id,
        version=collection.version,
        document=_document(collection.declaration),
        create_time_us=collection.create_time_us,
        update_time_us=collection.update_time_us,
    )


def _refuse(mistakes: list[Violation]) -> None:
    if mistakes:
        raise InvalidArgument("the declaration is wrong", reason="BAD_DECLARATION", violations=mistakes)


def _exists() -> AlreadyExists:
    return AlreadyExists("there is a collection of this name: update it", reason="ALREADY_EXISTS")


def _lost() -> Aborted:
    return Aborted("the collection was changed meanwhile: read it again, then change it", reason="CHANGED")
