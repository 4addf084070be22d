"""Traces reach a collector over real HTTP, go on the client's trace, and are handed on to the engine."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from fakes import FakeUpstream, chunk, make_gateway, running, stream_answer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from preforch_models.bundle import Bundle
from preforch_service.engine.upstream import UpstreamDown
from preforch_service.telemetry.tracing import traced_to

HELLO = {"messages": [{"role": "user", "content": "a text that nobody may see"}]}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=value"}


@dataclass
class Collector:
    """What an OTLP collector was sent."""

    bodies: list[bytes] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)

    @property
    def spans(self) -> dict[str, Span]:
        """Spans by name."""
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        scopes = [
            scope for request in requests for found in request.resource_spans for scope in found.scope_spans
        ]
        return {span.name: span for scope in scopes for span in scope.spans}

    @property
    def service(self) -> str:
        """The service's name."""
        resource = ExportTraceServiceRequest.FromString(self.bodies[0]).resource_spans[0].resource
        return str(next(a.value.string_value for a in resource.attributes if a.key == "service.name"))


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    """A collector on a free port, and its URL."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.paths.add(self.path)
            collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def attributes(span: Span) -> dict[str, str | int]:
    """A span's attributes."""
    return {
        a.key: a.value.string_value if a.value.HasField("string_value") else a.value.int_value
        for a in span.attributes
    }


def traced(
    bundle: Bundle, upstream: FakeUpstream, path: str, body: object, headers: dict[str, str]
) -> tuple[Collector, httpx.Response]:
    """One request, and what the collector got of it."""
    with collecting() as (collector, endpoint):
        with traced_to(endpoint) as tracing:
            gateway = replace(make_gateway(bundle, upstream=upstream), tracing=tracing)
            with running(gateway) as url:
                answer = httpx.post(f"{url}{path}", json=body, headers=headers, timeout=30)
        return collector, answer


def test_a_chat_goes_on_the_trace_of_its_client_and_hands_it_to_the_engine(bundle: Bundle) -> None:
    upstream = FakeUpstream(answer=lambda body: stream_answer(chunk("a"), b"data: [DONE]\n\n"))
    collector, answer = traced(bundle, upstream, "/generate", HELLO | {"stream": True}, TRACED)
    assert collector.paths == {"/v1/traces"}
    assert collector.service == "preforch"
    spans = collector.spans
    request, recommendation, engine = (
        spans[name] for name in ("POST /generate", "recommendation", "POST /v1/chat/completions")
    )
    assert len(spans) == 3
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert request.parent_span_id.hex() == PARENT
    assert recommendation.parent_span_id == engine.parent_span_id == request.span_id
    assert (request.kind, engine.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    starts = [request.start_time_unix_nano, recommendation.start_time_unix_nano, engine.start_time_unix_nano]
    assert starts == sorted(starts)
    assert recommendation.end_time_unix_nano <= engine.start_time_unix_nano
    assert engine.end_time_unix_nano <= request.end_time_unix_nano
    assert attributes(request) == {
        "preforch.request_id": answer.headers["X-Request-Id"],
        "http.request.method": "POST",
        "http.route": "/generate",
        "http.response.status_code": 200,
    }
    assert attributes(recommendation) == {"preforch.source": "orchestrator", "preforch.texts": 1}
    assert upstream.headers == [
        {"traceparent": f"00-{TRACE}-{engine.span_id.hex()}-01", "tracestate": "vendor=value"}
    ]
    assert not any(b"nobody may see" in body for body in collector.bodies)


def test_without_a_trace_of_the_client_one_begins(bundle: Bundle) -> None:
    body = HELLO | {"preference_weights": [1, 1, 1]}
    collector, _ = traced(bundle, FakeUpstream(), "/v1/chat/completions", body, {"traceparent": "nonsense"})
    # Request and engine have the same name here, and nothing was recommended.
    assert set(collector.spans) == {"POST /v1/chat/completions"}


def test_a_client_that_does_not_sample_is_not_traced_and_the_engine_is_told_so(bundle: Bundle) -> None:
    upstream = FakeUpstream()
    unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    collector, _ = traced(bundle, upstream, "/v1/chat/completions", HELLO, unsampled)
    assert collector.bodies == []
    assert upstream.headers[0]["traceparent"].startswith(f"00-{TRACE}-")
    assert upstream.headers[0]["traceparent"].endswith("-00")


def test_an_engine_that_is_down_makes_both_spans_errors(bundle: Bundle) -> None:
    def fail(body: object) -> None:
        raise UpstreamDown("a text that nobody may see")

    upstream = FakeUpstream(answer=fail)  # type: ignore[arg-type]
    collector, answer = traced(bundle, upstream, "/generate", HELLO, {})
    assert answer.status_code == 503
    spans = collector.spans
    for name in ("POST /generate", "POST /v1/chat/completions"):
        assert spans[name].status.code == Status.STATUS_CODE_ERROR
    assert attributes(spans["POST /generate"])["error.type"] == "503"
    assert not any(b"nobody may see" in body for body in collector.bodies)


@pytest.mark.parametrize("path", ["/nowhere-nobody-may-see", "/weights?nobody-may-see"])
def test_paths_and_queries_stay_out(bundle: Bundle, path: str) -> None:
    collector, _ = traced(bundle, FakeUpstream(), path, {"nobody-may-see": 1}, {})
    assert len(collector.spans) == 1
    assert not any(b"may-see" in body for body in collector.bodies)


def test_a_real_gateway_sends_its_traces_before_it_ends(bundle_folder: Path) -> None:
    with collecting() as (collector, endpoint):
        options = ["--weights-only", "--port", "0", "--otlp-endpoint", endpoint]
        command = [sys.executable, "-m", "preforch_service", str(bundle_folder), *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            url = process.stdout.readline().split()[-1]
            httpx.post(f"{url}/weights", json={"prompt": "hello"}, headers=TRACED, timeout=60)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert f"trace_id={TRACE}" in process.stderr.read()
        assert set(collector.spans) == {"POST /weights", "recommendation"}
        assert {span.trace_id.hex() for span in collector.spans.values()} == {TRACE}


def test_without_an_endpoint_opentelemetry_is_not_imported() -> None:
    loaded = "[name for name in sys.modules if name.startswith('opentelemetry')]"
    code = f"import sys, preforch_service.server; print({loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
