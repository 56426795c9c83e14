"""Specifications from protobuf, what pinning fills in, and training sets as the API shows them."""

import json
from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format

from inkling.features.v1 import attribute_group_pb2 as groups_pb2
from inkling.features.v1 import dataset_pb2 as datasets_pb2
from services.features.datasets.build import MANIFEST
from services.features.datasets.spec import (
    Achievement,
    AllKeys,
    Converted,
    DatasetSpec,
    EventGoal,
    Features,
    Goal,
    InsightGoal,
    Instants,
    Keys,
    Latest,
    ListedKeys,
    Moments,
    Percentiles,
    ReturnGoal,
    Sampling,
    SegmentKeys,
    SinceCreation,
    SumGoal,
    SuppliedRows,
)
from services.features.datasets.store import State, StoredDataset
from services.features.definitions import AtomicProperty, Attribute, Criteria, EventSelector, Problem
from services.features.proto import timestamp
from services.features.proto_reader import attribute_from_proto, duration_us, instant_us

STATES = {state: datasets_pb2.DatasetState.Value(f"DATASET_STATE_{state.name}") for state in State}
_CONVERTED = {Converted.LEAVE_OUT: datasets_pb2.CONVERTED_LEAVE_OUT, Converted.KEEP: datasets_pb2.CONVERTED_KEEP}


def spec_from_proto(message: datasets_pb2.DatasetSpec) -> tuple[DatasetSpec, list[Problem]]:
    """The specification, with what could not be read."""
    problems: list[Problem] = []
    moments = _moments(message.moments, problems)
    features = message.features
    problems += [
        Problem(f"features.{field}", "is not known of other moments than now", "leave it out")
        for field in ("segments", "everything")
        if getattr(features, field)
    ]
    spec = DatasetSpec(
        moments=moments,
        features=Features(
            features.feature_service,
            tuple(features.attribute_groups),
            tuple(features.attributes),
            tuple(features.properties),
            tuple(features.rollups),
        ),
        keys=_keys(message.keys, problems) if message.HasField("keys") else AllKeys(),
        goal=_goal(message.goal, moments, problems) if message.HasField("goal") else None,
        sampling=_sampling(message.sampling),
        attribute_key=message.attribute_key,
        creation_property=message.creation_property,
        up_to_position=message.up_to_position,
        as_of_us=instant_us(message.as_of_time) if message.HasField("as_of_time") else None,
        partitions=message.partition_count,
    )
    return spec, problems


def pinned_message(
    message: datasets_pb2.DatasetSpec, spec: DatasetSpec, definitions_sha256: str
) -> datasets_pb2.DatasetSpec:
    """The message with all that the pinned specification says of what was left open."""
    pinned = datasets_pb2.DatasetSpec()
    pinned.CopyFrom(message)
    pinned.attribute_key = spec.attribute_key
    pinned.features.Clear()
    pinned.features.attribute_groups.extend(spec.features.groups)
    pinned.features.attributes.extend(spec.features.attributes)
    pinned.features.properties.extend(spec.features.properties)
    pinned.features.rollups.extend(spec.features.rollups)
    pinned.up_to_position = spec.up_to_position
    if spec.as_of_us is not None:
        pinned.as_of_time.CopyFrom(timestamp(spec.as_of_us))
    pinned.partition_count = spec.partitions
    pinned.definitions_sha256 = definitions_sha256
    if isinstance(spec.keys, SegmentKeys):
        pinned.keys.segment.input = spec.keys.input_id
    if spec.goal is not None:
        pinned.goal.converted = _CONVERTED[spec.goal.converted]
    return pinned


def to_document(message: datasets_pb2.DatasetSpec) -> dict[str, Any]:
    """A specification as a JSON object, with the names of the proto."""
    document: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return document


def to_text(message: datasets_pb2.DatasetSpec) -> str:
    """The same as text."""
    return json.dumps(to_document(message), ensure_ascii=False)


def from_text(text: str) -> datasets_pb2.DatasetSpec:
    """The specification of such a text."""
    return json_format.Parse(text, datasets_pb2.DatasetSpec())


def dataset_message(stored: StoredDataset) -> datasets_pb2.Dataset:
    """A training set as the API shows it."""
    message = datasets_pb2.Dataset(
        name=stored.name,
        spec=from_text(stored.spec),
        state=STATES[stored.state],
        failure=stored.failure,
        create_time=timestamp(stored.create_time_us),
        update_time=timestamp(stored.update_time_us),
        operation=stored.operation,
    )
    if not stored.manifest:
        return message
    manifest = json.loads(stored.manifest)
    message.row_count = manifest["row_count"]
    labels = manifest["goal"]
    if labels:
        message.label_counts.true_count = labels["true"]
        message.label_counts.false_count = labels["false"]
        message.label_counts.unknown_count = labels["unknown"]
    for reason, count in manifest["left_out"].items():
        message.left_out_counts[reason] = count
    for file in (*manifest["files"], manifest_file(stored)):
        message.files.append(file_message(file))
    return message


def manifest_file(stored: StoredDataset) -> dict[str, Any]:
    """The manifest as one of the files that it does not name."""
    own: dict[str, Any] = json.loads(stored.manifest)["manifest_file"]
    return {"name": MANIFEST, "rows": 0, **own}


def file_message(file: dict[str, Any]) -> datasets_pb2.DatasetFile:
    """A file as the API shows it."""
    return datasets_pb2.DatasetFile(
        name=file["name"], row_count=file["rows"], size_bytes=file["bytes"], sha256=file["sha256"]
    )


def _keys(message: datasets_pb2.DatasetKeys, problems: list[Problem]) -> Keys:
    match message.WhichOneof("kind"):
        case "list":
            return ListedKeys(tuple(message.list.values))
        case "segment":
            return SegmentKeys(message.segment.segment, message.segment.input)
        case _:
            problems.append(Problem("keys", "says nothing", "give a list or a segment, or leave it out for all"))
            return AllKeys()


def _moments(message: datasets_pb2.DatasetMoments, problems: list[Problem]) -> Moments:
    match message.WhichOneof("kind"):
        case "since_creation":
            return SinceCreation(tuple(duration_us(span) for span in message.since_creation.spans))
        case "time_to_convert":
            return Percentiles(tuple(message.time_to_convert.percents))
        case "instants":
            return Instants(tuple(instant_us(each) for each in message.instants.times))
        case "rows":
            return SuppliedRows(message.rows.input)
        case "latest":
            return Latest()
        case _:
            hint = "give since_creation, time_to_convert, latest, instants or rows"
            problems.append(Problem("moments", "are missing", hint))
            return Latest()


def _goal(message: datasets_pb2.DatasetGoal, moments: Moments, problems: list[Problem]) -> Goal | None:
    achievement = _achievement(message, problems)
    if achievement is None:
        problems.append(Problem("goal", "is missing what is to be reached", "give event, sum, back or insight"))
        return None
    converted = Converted.KEEP if isinstance(moments, SuppliedRows) else Converted.LEAVE_OUT
    for given, value in _CONVERTED.items():
        if message.converted == value:
            converted = given
    window_us = duration_us(message.label_window) if message.HasField("label_window") else None
    return Goal(achievement, converted, window_us)


def _achievement(message: datasets_pb2.DatasetGoal, problems: list[Problem]) -> Achievement | None:
    match message.WhichOneof("achievement"):
        case "event":
            read = _read(message.event.events, _criteria_of(message.event), None, "goal.event", problems)
            return EventGoal(*_selected(read), times=message.event.times or 1)
        case "sum":
            place = message.sum.property if message.sum.HasField("property") else None
            read = _read(message.sum.events, _criteria_of(message.sum), place, "goal.sum", problems)
            if read.property is None:
                problems.append(Problem("goal.sum.property", "is missing", "say which number is summed"))
            return SumGoal(read.property or AtomicProperty("missing"), message.sum.at_least, *_selected(read))
        case "back":
            read = _read(message.back.events, _criteria_of(message.back), None, "goal.back", problems)
            return ReturnGoal(duration_us(message.back.after), *_selected(read))
        case "insight":
            return InsightGoal(message.insight.insight)
        case _:
            return None


def _criteria_of(
    message: datasets_pb2.EventGoal | datasets_pb2.SumGoal | datasets_pb2.ReturnGoal,
) -> groups_pb2.Criteria | None:
    return message.criteria if message.HasField("criteria") else None


def _read(
    events: Sequence[groups_pb2.EventSelector],
    criteria: groups_pb2.Criteria | None,
    place: groups_pb2.Property | None,
    path: str,
    problems: list[Problem],
) -> Attribute:
    """What a goal looks at is what an attribute looks at."""
    return attribute_from_proto(groups_pb2.Attribute(events=events, criteria=criteria, property=place), path, problems)


def _selected(read: Attribute) -> tuple[tuple[EventSelector, ...], Criteria | None]:
    return read.events, read.criteria


def _sampling(message: datasets_pb2.DatasetSampling) -> Sampling:
    def fraction(name: str) -> float:
        return getattr(message, name) if message.HasField(name) else 1.0  # type: ignore[arg-type]

    return Sampling(
        seed=message.seed,
        fraction=fraction("fraction"),
        max_rows=message.max_rows or None,
        fraction_true=fraction("fraction_true"),
        fraction_false=fraction("fraction_false"),
        fraction_unknown=fraction("fraction_unknown"),
    )
