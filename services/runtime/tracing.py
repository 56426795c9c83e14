"""Traces, with the `telemetry` extra. Imported only when `otlp_endpoint` is set."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from opentelemetry import context as contexts
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.runtime.calls import Call
from services.runtime.errors import Code

# By the conventions of OpenTelemetry, a server's span is an error only when the server is at fault.
_FAULTS = frozenset(
    {Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS}
)


class CallTracer:
    """Makes the spans of calls."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.propagator = TraceContextTextMapPropagator()

    def span(self, call: Call) -> "CallSpan":
        """The span of one call, to be entered."""
        return CallSpan(self, call)


class CallSpan:
    """A server span: a child of the caller's, and the parent of what the handler does and calls."""

    def __init__(self, tracer: CallTracer, call: Call) -> None:
        self._tracer = tracer
        self._call = call

    async def __aenter__(self) -> None:
        call = self._call
        carrier = {key: value for key, value in call.metadata.items() if isinstance(value, str)}
        parent = self._tracer.propagator.extract(carrier)
        self._span = self._tracer.tracer.start_span(
            call.method.full_name.lstrip("/"),
            context=parent,
            kind=SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": call.method.service_name,
                "rpc.method": call.method.name,
                "inkling.request_id": call.request_id,
            },
        )
        inside = set_span_in_context(self._span)
        self._token = contexts.attach(inside)
        self._tracer.propagator.inject(call.outgoing, context=inside)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        code = self._call.code
        self._span.set_attribute("rpc.response.status_code", code.value)
        if code in _FAULTS:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()
        contexts.detach(self._token)


@contextmanager
def open_tracer(service: str, endpoint: str, exporter: SpanExporter | None = None) -> Iterator[CallTracer]:
    """A tracer that sends its spans to an OTLP collector in batches; what waits is sent at the end."""
    provider = TracerProvider(resource=Resource.create({"service.name": f"inkling-{service}"}))
    insecure = not endpoint.startswith("https://")
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint=endpoint, insecure=insecure)))
    try:
        yield CallTracer(provider.get_tracer("inkling"))
    finally:
        provider.shutdown()
