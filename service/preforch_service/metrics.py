"""Prometheus metrics of one gateway, on a registry and a port of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server


class Metrics:
    """All metrics; every name starts with `preforch_`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("preforch_requests", "Answered requests", ["route", "status"], registry=self.registry)
        self.request_seconds = Histogram(
            "preforch_request_seconds", "Time to the end of the answer", ["route"], registry=self.registry
        )
        self.in_flight = Gauge("preforch_requests_in_flight", "Requests being answered", registry=self.registry)
        self.decisions = Counter(
            "preforch_decisions", "Weights by where they came from", ["source"], registry=self.registry
        )
        self.fallbacks = Counter(
            "preforch_fallbacks", "Failures of the orchestrator", ["reason"], registry=self.registry
        )
        self.orchestrator_seconds = Histogram(
            "preforch_orchestrator_seconds", "Time of one call of the orchestrator", registry=self.registry
        )
        self.control_strings = Counter(
            "preforch_control_strings", "Texts in which control strings were found", ["action"], registry=self.registry
        )
        self.admission_waiting = Gauge(
            "preforch_admission_waiting", "Generations that wait for a slot", registry=self.registry
        )
        self.rejections = Counter(
            "preforch_rejections", "Requests refused for overload or draining", ["reason"], registry=self.registry
        )
        self.cancellations = Counter(
            "preforch_cancellations", "Generations whose client left", ["phase"], registry=self.registry
        )
        self.upstream_failures = Counter(
            "preforch_upstream_failures", "Requests that an engine failed", ["reason"], registry=self.registry
        )
        self.upstream_up = Gauge(
            "preforch_upstream_up", "1 while the engine takes requests", ["upstream"], registry=self.registry
        )
        self.upstream_in_flight = Gauge(
            "preforch_upstream_in_flight", "Requests at the engine", ["upstream"], registry=self.registry
        )
        self.ready = Gauge("preforch_ready", "1 while the gateway is ready", registry=self.registry)
        self.engine_starts = Counter("preforch_engine_starts", "Starts of the engine", registry=self.registry)


@contextmanager
def exposed(metrics: Metrics, *, host: str, port: int) -> Iterator[None]:
    """Serve `/metrics` on a port of its own; port 0 serves nothing. Raises ValueError when the port is taken."""
    if port == 0:
        yield
        return
    try:
        server, thread = start_http_server(port, addr=host, registry=metrics.registry)
    except OSError as error:
        raise ValueError(f"cannot listen for metrics on {host}:{port}: {error.strerror}; see --metrics-port") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
