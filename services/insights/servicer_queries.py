"""QueryService: converts requests, asks the language, formats what it says."""

from typing import Any

import grpc.aio

from inkling.insights.v1 import evaluation_pb2, query_service_pb2_grpc
from inkling.insights.v1 import query_service_pb2 as messages
from services.insights.catalog import refused
from services.insights.language.completion import complete
from services.insights.language.diagnostics import QueryError
from services.insights.language.format import format_text
from services.insights.messages import diagnostic_message, dialect_of, identifier_of, plan_message
from services.insights.project import Project
from services.insights.projects import Projects
from services.insights.templates import render, templates
from services.runtime.auth import Role, current_caller
from services.runtime.errors import InvalidArgument, Violation

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.insights.v1.QueryService"
_METHODS = (
    *("ValidateQuery", "ExplainQuery", "CompleteQuery", "FormatQuery", "ListSources", "ListTemplates"),
    "RenderTemplate",
)
POLICIES = {f"/{SERVICE_NAME}/{method}": frozenset({Role.READ, Role.DEFINE}) for method in _METHODS}

Context = grpc.aio.ServicerContext[Any, Any]


class QueryServicer(query_service_pb2_grpc.QueryServiceServicer):
    """Helps to write INFER queries."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    async def _project(self) -> Project:
        project = await self._projects.get(current_caller().project)
        await project.catalog.read_sources()
        return project

    async def ValidateQuery(
        self, request: messages.ValidateQueryRequest, context: Context
    ) -> messages.ValidateQueryResponse:
        """Says everything that is wrong with a query."""
        catalog = (await self._project()).catalog
        name = identifier_of(request.query)
        try:
            query = await catalog.check_apart(request.query, dialect_of(request.dialect))
        except QueryError as error:
            errors = [diagnostic_message(each) for each in error.errors]
            return messages.ValidateQueryResponse(errors=errors, identifier=name)
        warnings = [diagnostic_message(each) for each in query.warnings]
        return messages.ValidateQueryResponse(warnings=warnings, identifier=query.name)

    async def ExplainQuery(self, request: messages.ExplainQueryRequest, context: Context) -> evaluation_pb2.QueryPlan:
        """Says how a query would be kept true."""
        project = await self._project()
        query, planned = await project.catalog.checked(request.query, dialect_of(request.dialect), "query")
        insights = project.insights
        engine = None if insights is None else insights.engines.get(project.catalog.key_of(query))
        return plan_message(planned, engine)

    async def CompleteQuery(
        self, request: messages.CompleteQueryRequest, context: Context
    ) -> messages.CompleteQueryResponse:
        """Says what may stand at a place."""
        if not 0 <= request.offset <= len(request.query):
            text = "is a place in the query"
            violations = (Violation("offset", text, "OUT_OF_RANGE"),)
            raise InvalidArgument(f"offset {text}", reason="OUT_OF_RANGE", violations=violations)
        schemas = (await self._project()).catalog.catalogue.schemas
        found = complete(request.query, request.offset, schemas, dialect_of(request.dialect))
        return messages.CompleteQueryResponse(
            start=found.start,
            end=found.end,
            completions=[
                messages.Completion(text=each.text, kind=each.kind.value, detail=each.detail) for each in found.items
            ],
        )

    async def FormatQuery(self, request: messages.FormatQueryRequest, context: Context) -> messages.FormatQueryResponse:
        """Lays a query out afresh."""
        try:
            return messages.FormatQueryResponse(query=format_text(request.query, dialect_of(request.dialect)))
        except QueryError as error:
            raise refused(error.errors, "query") from None

    async def ListSources(self, request: messages.ListSourcesRequest, context: Context) -> messages.ListSourcesResponse:
        """Lists the sources."""
        bindings = (await self._project()).catalog.catalogue.bindings
        return messages.ListSourcesResponse(
            sources=[
                messages.Source(
                    name=name,
                    attribute_key=binding.attribute_key,
                    time_column=binding.schema.time_column,
                    columns=[
                        messages.SourceColumn(name=column, type=kind.name)
                        for column, kind in binding.schema.columns.items()
                    ],
                )
                for name, binding in bindings.items()
            ]
        )

    async def ListTemplates(
        self, request: messages.ListTemplatesRequest, context: Context
    ) -> messages.ListTemplatesResponse:
        """Lists the templates."""
        return messages.ListTemplatesResponse(
            templates=[
                messages.Template(
                    template_id=each.template_id,
                    description=each.description,
                    parameters=[
                        messages.TemplateParameter(
                            name=place.name,
                            description=place.description,
                            type=place.type.value,
                            default_value=place.default,
                            minimum=place.minimum,
                            maximum=place.maximum,
                        )
                        for place in each.parameters
                    ],
                )
                for each in templates()
            ]
        )

    async def RenderTemplate(
        self, request: messages.RenderTemplateRequest, context: Context
    ) -> messages.RenderTemplateResponse:
        """Makes a query of a template."""
        query = render(request.template_id, request.identifier, dict(request.parameters))
        return messages.RenderTemplateResponse(query=query)
