"""From a specification to a job: names become versions, `now` an instant, `all` a position. Then nothing is open."""

import asyncio
import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from services.features.archive import ArchiveListing, read_events
from services.features.catalog import Catalog
from services.features.compile import compile_attribute
from services.features.datasets.goals import InsightLabels
from services.features.datasets.job import ArchiveSource, FeatureColumn, Job
from services.features.datasets.partition import GOAL, MOMENT, SPAN
from services.features.datasets.rolled import RolledColumn
from services.features.datasets.spec import DatasetSpec, Features, InsightGoal, SegmentKeys, SuppliedRows
from services.features.datasets.tables import carried_fields
from services.features.definitions import Attribute, AttributeGroup, ValueType
from services.features.export_parts import ExportedRollup
from services.features.profiles import Chosen, Selection, choose, common_key
from services.features.properties import PropertyDefinition, PropertyType, compile_property
from services.features.rollups import RollupDefinition
from services.features.selections import choose_more
from services.features.signals import write_document
from services.following.feed import Feed, FeedUnavailableError, LogSettings, PositionLostError
from services.kernel.columns import SHARDS
from services.runtime.clocks import Clock
from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, OutOfRange, Unavailable, Violation

PROPERTY_TYPES = {
    PropertyType.BOOLEAN: ValueType.BOOL,
    PropertyType.NUMERIC: ValueType.DOUBLE,
    PropertyType.STRING: ValueType.STRING,
    PropertyType.DATE: ValueType.TIMESTAMP,
    # As JSON text.
    PropertyType.ARRAY: ValueType.STRING,
    PropertyType.RECORD: ValueType.STRING,
}


class Segments(Protocol):
    """Whoever knows the members of segments."""

    async def members(self, project: str, segment: str) -> tuple[str, Sequence[str]]:
        """The attribute key of a segment and its members now; raises NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a specification means by the definitions of now."""

    spec: DatasetSpec
    """Key and features are given by versions."""
    features: tuple[FeatureColumn, ...]
    creation: PropertyDefinition | None
    definitions_sha256: str
    rollups: tuple[RolledColumn, ...] = ()


def resolve(catalog: Catalog, spec: DatasetSpec, insights: InsightLabels | None) -> Resolved:
    """What the names of a valid specification mean. Raises NotFound, InvalidArgument, FailedPrecondition."""
    if spec.goal is not None and isinstance(spec.goal.achievement, InsightGoal) and insights is None:
        raise FailedPrecondition(
            "the goal is an insight, and this server is told of no insights service that could label rows by it",
            reason="NO_INSIGHTS",
            violations=(Violation("goal.insight", "use a goal of events or a sum instead", "NO_INSIGHTS"),),
        )
    wanted = spec.features
    chosen: list[Chosen] = []
    if wanted.feature_service or wanted.groups or wanted.attributes or not (wanted.properties or wanted.rollups):
        chosen = choose(catalog, Selection(wanted.feature_service, wanted.groups, wanted.attributes))
        key = common_key(chosen, spec.attribute_key)
    elif spec.attribute_key:
        key = spec.attribute_key
    else:
        raise _bad("attribute_key", "is needed: the features are properties and roll-ups alone")
    others = sorted({each.group.name for each in chosen if each.group.attribute_key != key})
    if others:
        raise _bad("features", f"are of another attribute key than {key}: {', '.join(others[:5])}")
    properties = _properties(catalog, key, wanted.properties)
    creation = _creation(catalog, key, spec.creation_property)
    groups: list[AttributeGroup] = []
    for each in chosen:
        if each.group not in groups:
            groups.append(each.group)
    if wanted.attributes:
        pinned = Features(attributes=tuple(_feature_id(each) for each in chosen))
    else:
        pinned = Features(groups=tuple(group.name for group in groups))
    rollups = choose_more(catalog, Selection(rollups=wanted.rollups), key).rollups if wanted.rollups else ()
    pinned = replace(
        pinned,
        properties=tuple(each.property_id for each in properties),
        rollups=tuple(each.rollup_id for each in rollups),
    )
    documents = [write_document(group) for group in groups]
    documents += [
        json.dumps(asdict(each), sort_keys=True)
        for each in (*properties, *rollups, *(() if creation is None else (creation,)))
    ]
    digest = hashlib.sha256("\n".join([*documents, *(_feature_id(each) for each in chosen)]).encode()).hexdigest()
    features = tuple(_columns(key, chosen, properties))
    rolled = tuple(_rolled(catalog, rollups, {key, MOMENT, SPAN, GOAL, *(each.column for each in features)}))
    return Resolved(replace(spec, attribute_key=key, features=pinned), features, creation, digest, rolled)


async def pin(
    resolved: Resolved,
    listing: ArchiveListing,
    feed: Feed,
    clock: Clock,
    *,
    blobs_root: Path,
    partition_events: int,
    least_partitions: int,
) -> DatasetSpec:
    """The specification with position, instant and number of parts. Raises OutOfRange, Unavailable."""
    spec = resolved.spec
    position = spec.up_to_position or listing.position
    if position > listing.position:
        raise OutOfRange(
            f"the log ends at position {listing.position}, before {position}",
            reason="OUT_OF_RANGE",
            violations=(Violation("up_to_position", "lies beyond the head of the log", "OUT_OF_RANGE"),),
        )
    as_of_us = spec.as_of_us
    if as_of_us is None:
        settings = await _settings(feed, listing)
        if settings.clock == "log":
            as_of_us = await asyncio.to_thread(newest_us, blobs_root, listing, position)
        else:
            as_of_us = clock.now_us()
    events = records_of(listing, position)
    partitions = spec.partitions or min(SHARDS, max(least_partitions, -(-events // partition_events)))
    return replace(spec, up_to_position=position, as_of_us=as_of_us, partitions=partitions)


def make_job(
    resolved: Resolved,
    spec: DatasetSpec,
    listing: ArchiveListing,
    blobs_root: Path,
    input_path: Path | None,
    insights: InsightLabels | None,
) -> Job:
    """The job of a pinned specification. Raises InvalidArgument when columns of the table have names of ours."""
    assert spec.as_of_us is not None, "pinned"
    features = resolved.features
    if input_path is not None and isinstance(spec.moments, SuppliedRows):
        taken = {
            spec.attribute_key,
            MOMENT,
            GOAL,
            *(each.column for each in features),
            *(each.column for each in resolved.rollups),
        }
        repeated = [field.name for field in carried_fields(input_path) if field.name in taken]
        if repeated:
            raise _bad("moments.rows.input", f"has a column {repeated[0]}, which the training set has itself")
    source = ArchiveSource(blobs_root, listing, spec.attribute_key, spec.up_to_position, spec.as_of_us + 1)
    return Job(
        project=listing.project,
        spec=spec,
        as_of_us=spec.as_of_us,
        source=source,
        features=features,
        rollups=resolved.rollups,
        creation=None if resolved.creation is None else compile_property(resolved.creation),
        complete_since_us=listing.complete_since_us,
        input_path=input_path,
        insights=insights,
    )


def records_of(listing: ArchiveListing, position: int) -> int:
    """About how many records the archive holds up to a position."""
    return sum(file.event_count for file in listing.files if file.first_position <= position)


def newest_us(blobs_root: Path, listing: ArchiveListing, position: int) -> int:
    """The newest event time of the records up to a position: the clock of the log there; 0 when there are none."""
    whole = [file.max_occurred_us for file in listing.files if file.last_position <= position]
    cut = tuple(file for file in listing.files if file.first_position <= position < file.last_position)
    times = [
        int(batch.occurred_at.max())
        for batch in read_events(blobs_root, replace(listing, files=cut), columns=(), up_to_position=position)
    ]
    return max([*whole, *times], default=0)


def input_of(spec: DatasetSpec) -> str:
    """The uploaded table that a specification stands on, or nothing."""
    if isinstance(spec.moments, SuppliedRows):
        return spec.moments.input_id
    return spec.keys.input_id if isinstance(spec.keys, SegmentKeys) else ""


async def _settings(feed: Feed, listing: ArchiveListing) -> LogSettings:
    try:
        async with aclosing(feed.follow(listing.project, listing.position, 1, stop_at_head=True)) as parts:
            async for part in parts:
                if part.settings is not None:
                    return part.settings
    except (FeedUnavailableError, PositionLostError) as error:
        raise Unavailable("the log cannot be read now: try again", reason="NOT_READY") from error
    return LogSettings()


def _properties(catalog: Catalog, key: str, names: Iterable[str]) -> list[PropertyDefinition]:
    found: list[PropertyDefinition] = []
    for name in names:
        if name == "*":
            declared = [stored.definition for stored in catalog.properties.properties(key)]
            found += [each for each in declared if each.visibility == "visible" and each not in found]
        elif (definition := _property(catalog, key, name, "features.properties")) not in found:
            found.append(definition)
    return found


def _property(catalog: Catalog, key: str, name: str, field: str) -> PropertyDefinition:
    stored = catalog.properties.find(key, name)
    if stored is None:
        text = f"there is no property {name[:128]!r} of {key}"
        violation = Violation(field, catalog.properties.hint(key, name) or text, "UNDECLARED_PROPERTY")
        raise NotFound(text, reason="UNDECLARED_PROPERTY", violations=(violation,))
    return stored.definition


def _creation(catalog: Catalog, key: str, name: str) -> PropertyDefinition | None:
    if not name:
        return None
    definition = _property(catalog, key, name, "creation_property")
    if definition.type is not PropertyType.DATE:
        raise _bad("creation_property", f"is a property of type {definition.type}: only a date tells when")
    return definition


def _columns(key: str, chosen: Sequence[Chosen], properties: Sequence[PropertyDefinition]) -> Iterable[FeatureColumn]:
    taken = {key, MOMENT, SPAN, GOAL}

    def free(*names: str) -> str:
        name = next(name for name in names if name not in taken)
        taken.add(name)
        return name

    for each in chosen:
        group, name = each.group, each.attribute.name
        column = free(name, f"{group.group_id}.{name}", f"{group.group_id}/{group.version}:{name}")
        yield FeatureColumn(_feature_id(each), column, each.attribute, compile_attribute(each.attribute))
    for definition in properties:
        assert definition.type is not None, "validated before"
        feature_id = f"properties.{definition.property_id}"
        attribute = Attribute(name=definition.property_id, type=PROPERTY_TYPES[definition.type])
        column = free(definition.property_id, feature_id)
        yield FeatureColumn(feature_id, column, attribute, compile_property(definition))


def _rolled(catalog: Catalog, rollups: Iterable[RollupDefinition], taken: set[str]) -> Iterable[RolledColumn]:
    for each in rollups:
        feature_id = f"rollups.{each.rollup_id}"
        column = feature_id if each.rollup_id in taken else each.rollup_id
        yield RolledColumn(feature_id, column, ExportedRollup.of(catalog, each))


def _feature_id(chosen: Chosen) -> str:
    return f"{chosen.group.group_id}/{chosen.group.version}:{chosen.attribute.name}"


def _bad(field: str, what: str) -> InvalidArgument:
    return InvalidArgument(f"{field} {what}", reason="BAD_DATASET", violations=(Violation(field, what, "BAD_DATASET"),))
