"""Documents of Signals into the catalog and out of it. Importing the same document again changes nothing."""

from dataclasses import replace

from services.features.catalog import Catalog, merged, refuse
from services.features.definitions import AttributeGroup, FeatureService, GroupState, Origin, parse_service_name
from services.features.signals import Document, JsonSyntaxError, read_document, write_document
from services.features.validation import check_group
from services.runtime.errors import AlreadyExists, InvalidArgument, NotFound, Violation


class Importer:
    """Takes documents."""

    async def take(self, catalog: Catalog, text: str, *, validate_only: bool) -> tuple[str, GroupState | None]:
        """Adds what a document defines; returns its name, and a group's state.

        Raises InvalidArgument with every mistake; AlreadyExists when the name has another content.
        """
        document = parse(text)
        definition = document.definition
        if isinstance(definition, FeatureService):
            await self._take_service(catalog, definition, document, validate_only)
            return definition.name, None
        return definition.name, await self._take_group(catalog, definition, document, validate_only)

    async def _take_group(
        self, catalog: Catalog, group: AttributeGroup, document: Document, validate_only: bool
    ) -> GroupState:
        refuse(merged(document.problems, check_group(group)))
        try:
            present = catalog.group(group.name)
        except NotFound:
            stored = await catalog.create_group(group, (), None, validate_only=validate_only)
            return stored.state
        if not _same(present.group, group):
            raise AlreadyExists(
                f"{group.name} exists already with another content: give the document another version",
                reason="ALREADY_EXISTS",
            )
        return present.state

    async def _take_service(
        self, catalog: Catalog, service: FeatureService, document: Document, validate_only: bool
    ) -> None:
        refuse(merged(document.problems, catalog.check_service(service)))
        try:
            present = catalog.service(service.name)
        except NotFound:
            await catalog.create_service(service, (), None, validate_only=validate_only)
            return
        if not _same(present.service, service):
            raise AlreadyExists(
                f"{service.name} exists already with another content: update it, or delete it first",
                reason="ALREADY_EXISTS",
            )


def parse(text: str) -> Document:
    """Reads a document; raises InvalidArgument with line and column when it is not JSON."""
    try:
        return read_document(text)
    except JsonSyntaxError as error:
        raise InvalidArgument(
            f"the document is not JSON: {error}",
            reason="BAD_JSON",
            violations=(Violation("signals_json", str(error), "BAD_JSON"),),
            metadata={"line": str(error.line), "column": str(error.column)},
        ) from None


def export_document(catalog: Catalog, name: str) -> str:
    """The document of a group's version or of a service; raises NotFound and InvalidArgument."""
    if parse_service_name(name) is not None:
        service = catalog.service(name).service
        return write_document(service, is_published=service.origin.is_published is None)
    stored = catalog.group(name)
    return write_document(stored.group, is_published=stored.state is not GroupState.DRAFT)


def _same(left: AttributeGroup | FeatureService, right: AttributeGroup | FeatureService) -> bool:
    """Whether two definitions say the same, wherever they came from."""
    return replace(left, origin=Origin()) == replace(right, origin=Origin())
