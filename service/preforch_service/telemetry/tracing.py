"""OpenTelemetry traces: the request, the recommendation and the engine's part, without texts of users.

In:  a collector's URL; per request its headers, of which only `traceparent` and `tracestate` are read. Out:
     spans over OTLP (HTTP, protobuf), and those two headers for the engine. The SDK's own environment
     variables hold (for the service's name, the sampler, headers for the collector). Import this only where
     traces are wanted.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from preforch_service.telemetry.metrics import DISTRIBUTION

SERVICE = "preforch"


class Tracing:
    """Begins the trace of each request."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, headers: Mapping[str, str], *, request_id: str) -> "Trace":
        """The trace of a request; it goes on the one that the headers name."""
        # Given explicitly: the current context of this task may belong to another request.
        parent = self._propagator.extract(headers, context=Context())
        attributes = {"preforch.request_id": request_id}
        span = self._tracer.start_span("request", parent, kind=SpanKind.SERVER, attributes=attributes)
        return Trace(self._tracer, self._propagator, span)


class Trace:
    """The spans of one request."""

    def __init__(self, tracer: Tracer, propagator: TraceContextTextMapPropagator, request: Span) -> None:
        self._tracer = tracer
        self._propagator = propagator
        self._request = request
        self._inside = set_span_in_context(request, Context())
        self._engine: Span | None = None

    @property
    def trace_id(self) -> str:
        """32 hex digits, for the log."""
        return format_trace_id(self._request.get_span_context().trace_id)

    def recommended(self, started: int, *, source: str, texts: int) -> None:
        """A recommendation that began at `started` (nanoseconds since 1970) is there."""
        attributes: dict[str, str | int] = {"preforch.source": source, "preforch.texts": texts}
        self._tracer.start_span(
            "recommendation", self._inside, attributes=attributes, start_time=started
        ).end()

    def asks_engine(self, path: str) -> Mapping[str, str]:
        """The engine is asked now. Returns the headers that let it go on the trace."""
        attributes = {"http.request.method": "POST", "url.template": path}
        self._engine = self._tracer.start_span(
            f"POST {path}", self._inside, kind=SpanKind.CLIENT, attributes=attributes
        )
        headers: dict[str, str] = {}
        self._propagator.inject(headers, set_span_in_context(self._engine, Context()))
        return headers

    def engine_answered(self, status: int) -> None:
        """The head of the engine's answer is there."""
        assert self._engine is not None
        _conclude(self._engine, status, failed=status >= 400)

    def end(self, *, method: str, route: str, status: int, client_left: bool) -> None:
        """The answer has ended, and with it the engine's."""
        if self._engine is not None:
            if client_left:
                self._engine.set_attribute("error.type", "client_left")
            elif status >= 500:
                self._engine.set_status(StatusCode.ERROR)
            self._engine.end()
        self._request.update_name(f"{'HTTP' if method == '_OTHER' else method} {route}")
        self._request.set_attributes({"http.request.method": method, "http.route": route})
        _conclude(self._request, status, failed=status >= 500)
        self._request.end()


def _conclude(span: Span, status: int, *, failed: bool) -> None:
    span.set_attribute("http.response.status_code", status)
    if failed:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)


@contextmanager
def traced_to(endpoint: str) -> Iterator[Tracing]:
    """Send spans to a collector; what is left is sent at the end."""
    given = OTELResourceDetector().detect()
    named = {"service.name": SERVICE, SERVICE_VERSION: metadata.version(DISTRIBUTION)} | dict(
        given.attributes
    )
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces"))
    )
    try:
        yield Tracing(provider.get_tracer(__package__))
    finally:
        provider.shutdown()
