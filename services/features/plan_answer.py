"""Answers PlanAttributeGroup: finds what is meant, names its mistakes, and shows what would change."""

from inkling.features.v1 import definition_service_pb2 as messages
from inkling.features.v1 import profile_pb2
from services.features import planning
from services.features.catalog import Catalog, merged
from services.features.definitions import AttributeGroup, GroupReference, Problem, parse_group_name
from services.features.importing import parse
from services.features.profiles import value_writer
from services.features.projects import Projects
from services.features.proto import problem_to_proto
from services.features.proto_reader import group_from_proto
from services.features.settings import FeaturesSettings
from services.features.validation import check_group, check_service
from services.runtime.clocks import Clock
from services.runtime.errors import InvalidArgument, Violation

_KINDS = {kind: messages.AttributeChange.Kind.Value(f"KIND_{kind.name}") for kind in planning.ChangeKind}
DEFAULT_SAMPLES, MAX_SAMPLES = 5, 50


class PlanAnswerer:
    """Says what publishing would do."""

    def __init__(self, projects: Projects, settings: FeaturesSettings, clock: Clock) -> None:
        self._projects = projects
        self._settings = settings
        self._clock = clock

    async def answer(
        self, project_name: str, request: messages.PlanAttributeGroupRequest
    ) -> messages.PlanAttributeGroupResponse:
        """The plan; mistakes of the definition are in it, only mistakes of the request are raised."""
        size = request.sample_size
        if not 0 <= size <= MAX_SAMPLES or len(request.key_values) > MAX_SAMPLES:
            field = "key_values" if len(request.key_values) > MAX_SAMPLES else "sample_size"
            text = f"must be at most {MAX_SAMPLES}"
            raise InvalidArgument(f"{field} {text}", reason="OUT_OF_RANGE", violations=(Violation(field, text),))
        project = await self._projects.get(project_name)
        group, problems = _meant(project.catalog, request)
        response = messages.PlanAttributeGroupResponse(problems=[problem_to_proto(problem) for problem in problems])
        if problems or group is None:
            return response
        latest = project.catalog.latest_published(group.group_id)
        before = latest.group if latest else None
        for name, kind in planning.changes(before, group):
            response.changes.add(attribute=name, kind=_KINDS[kind])
        found = await planning.samples(
            project.feed,
            project_name,
            self._clock,
            before,
            group,
            request.key_values,
            size or DEFAULT_SAMPLES,
            self._settings.backfill_bytes,
        )
        for sample in found:
            message = response.samples.add(key_value=sample.key_value)
            message.old_values.extend(_values(sample.before))
            message.new_values.extend(_values(sample.after))
        return response


def _meant(
    catalog: Catalog, request: messages.PlanAttributeGroupRequest
) -> tuple[AttributeGroup | None, list[Problem]]:
    """The group that the request is about, and its mistakes."""
    given = [bool(request.name), request.HasField("attribute_group"), bool(request.signals_json)]
    if sum(given) != 1:
        text = "give exactly one of name, attribute_group and signals_json"
        raise InvalidArgument(text, reason="BAD_NAME", violations=(Violation("name", text, "BAD_NAME"),))
    if request.name:
        return catalog.group(request.name).group, []
    if request.signals_json:
        document = parse(request.signals_json)
        if not isinstance(document.definition, AttributeGroup):
            return None, merged(document.problems, check_service(document.definition))
        return document.definition, merged(document.problems, check_group(document.definition))
    name = request.attribute_group.name
    reference = parse_group_name(name)
    problems: list[Problem] = []
    if reference is None:
        problems.append(Problem("name", f"{name[:200]!r} is not attributeGroups/{{group}} or …/versions/{{version}}"))
        reference = GroupReference("unnamed")
    latest = catalog.latest_published(reference.group_id)
    version = reference.version or (latest.group.version + 1 if latest else 1)
    group, found = group_from_proto(request.attribute_group, reference.group_id, version)
    return group, merged([*problems, *found], check_group(group))


def _values(pairs: planning.Answers) -> list[profile_pb2.AttributeValue]:
    """Answers as messages, by way of the one writer of them."""
    data = b"".join(value_writer(attribute).write(*answer) for attribute, answer in pairs)
    return list(profile_pb2.Profile.FromString(data).values)
