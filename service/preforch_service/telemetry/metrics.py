"""Prometheus metrics of one gateway, on a registry and a port of their own.

Labels take few values, none of them from a client: route templates, HTTP statuses, fixed words, the
operator's upstreams, and the objectives of the bundle, whose series go when another bundle comes
(`use_bundle`).

Series that alerts watch are there from the start: Prometheus sees no increase in a counter that begins with
1.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import metadata

from preforch_models.bundle import Bundle
from preforch_models.weights import Weights
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    start_http_server,
)

from preforch_service.requests.ignored import OTHER

DISTRIBUTION = "preference-orchestrator"
OURS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Seconds, for what the gateway does itself: from half a millisecond on."""
ENGINES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0)
"""Seconds, for what a language model does."""
SHARES = tuple(tenth / 10 for tenth in range(11))
SIZES = tuple(float(2**power) for power in range(9))


class Metrics:
    """All metrics; names start with `preforch_`, apart from the `process_` ones that every program has."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests()
        self._orchestrator()
        self._engine()
        self.weights = WeightMetrics(self.registry)
        self.bundle = Info("preforch_bundle", "The bundle that is served", registry=self.registry)
        self.bundle_reloads = self._counter(
            "bundle_reloads", "Reloads of the bundle", result=("reloaded", "unchanged", "refused")
        )
        build = Info("preforch_build", "The version of this program", registry=self.registry)
        build.info({"version": metadata.version(DISTRIBUTION)})

    def _requests(self) -> None:
        self.requests = self._counter("requests", "Answered requests", "route", "status")
        self.request_seconds = self._histogram(
            "request_seconds", "Time to the end of the answer", ENGINES, "route"
        )
        self.in_flight = self._gauge("requests_in_flight", "Requests being answered")
        self.admission_waiting = self._gauge("admission_waiting", "Requests that wait for admission")
        self.admission_waiting_limit = self._gauge("admission_waiting_limit", "Places for requests that wait")
        self.rejections = self._counter(
            "rejections",
            "Requests turned away by limits",
            reason=("generations", "weights", "engine", "draining"),
        )
        self.cancellations = self._counter(
            "cancellations",
            "Clients that left, by what they left during",
            phase=("reading", "waiting", "weights", "first_byte", "answer"),
        )
        self.ready = self._gauge("ready", "1 while the gateway is ready")
        self.ignored_fields = self._counter(
            "ignored_fields",
            "Requests with a field that was dropped, by its name where it has one",
            field=(OTHER,),
        )
        self.control_strings = self._counter(
            "control_strings", "Texts in which control strings were found", action=("escape", "reject")
        )

    def _orchestrator(self) -> None:
        self.decisions = self._counter("decisions", "Weights by where they came from", "source")
        self.fallbacks = self._counter(
            "fallbacks", "Failures of the orchestrator", reason=("late", "overloaded", "failed")
        )
        self.unfamiliar = self._counter(
            "unfamiliar", "Recommendations blended towards the fallback weights for want of confidence"
        )
        self.orchestrator_seconds = self._histogram(
            "orchestrator_seconds",
            "Time of one recommendation as its request sees it, waiting included",
            OURS,
        )
        self.orchestrator_deadline = self._gauge(
            "orchestrator_deadline_seconds", "Time in which one text must have its recommendation"
        )
        self.orchestrator_queue = self._gauge("orchestrator_queue", "Requests that wait for the orchestrator")
        self.orchestrator_queue_limit = self._gauge(
            "orchestrator_queue_limit", "Requests that may wait for it"
        )
        self.confidence = self._histogram(
            "recommendation_confidence",
            "How like its training prompts the orchestrator found the prompts",
            SHARES,
        )
        self.orchestrator_batch_size = self._histogram(
            "orchestrator_batch_size", "Texts that the orchestrator read at once", SIZES
        )
        self.cache_requests = self._counter("cache_requests", "Look-ups of recommendations", "result")

    def _engine(self) -> None:
        self.gateway_seconds = self._histogram(
            "gateway_seconds",
            "Time from the end of the request's body until the engine is asked",
            OURS,
            "source",
        )
        self.engine_first_byte_seconds = self._histogram(
            "engine_first_byte_seconds",
            "Time from asking the engine to the first byte of its answer, or to all of it if not streamed",
            ENGINES,
            "stream",
        )
        self.engine_starts = self._counter("engine_starts", "Starts of the engine")
        self.upstream_up = self._gauge("upstream_up", "1 while the upstream is healthy", "upstream")
        self.upstream_in_flight = self._gauge(
            "upstream_in_flight", "Requests that an upstream answers", "upstream"
        )
        self.upstream_failures = self._counter(
            "upstream_failures",
            "Failed requests to upstreams",
            reason=("unreachable", "broken", "late", "status"),
        )

    def _counter(self, name: str, says: str, *labels: str, **known: tuple[str, ...]) -> Counter:
        """`known`: a label, and all values that it takes."""
        counter = Counter(f"preforch_{name}", says, (*labels, *known), registry=self.registry)
        for values in known.values():
            for value in values:
                counter.labels(value)
        return counter

    def _gauge(self, name: str, says: str, *labels: str) -> Gauge:
        return Gauge(f"preforch_{name}", says, labels, registry=self.registry)

    def _histogram(self, name: str, says: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"preforch_{name}", says, labels, buckets=buckets, registry=self.registry)

    def use_bundle(self, bundle: Bundle) -> None:
        """Show another bundle from now on; what is known of the objectives of the one before is dropped."""
        self.bundle.info({"revision": bundle.revision, "preset": bundle.info.preset})
        self.weights.use_bundle(bundle)


class WeightMetrics:
    """How weights are distributed, and how far recommendations have drifted from those in training.

    The drift of an objective is the mean of its recommended weights minus its mean on the training prompts.
    The mean is that of all prompts up to WINDOW of them, then an exponential one in which the newest WINDOW
    count for most.
    """

    WINDOW = 1000

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, says: str) -> Histogram:
            return Histogram(name, says, ["objective"], buckets=SHARES, registry=registry)

        self._announced_all = histogram("preforch_announced_weight", "Weights that answers were made with")
        self._recommended_all = histogram(
            "preforch_recommended_weight", "Weights as the orchestrator gave them"
        )
        self._drift = Gauge(
            "preforch_weight_drift",
            "Mean of the recommended weights minus their mean on the training prompts",
            ["objective"],
            registry=registry,
        )
        prompts = Gauge(
            "preforch_weight_drift_prompts",
            f"Recommendations behind preforch_weight_drift; the newest {self.WINDOW} count for most",
            registry=registry,
        )
        prompts.set_function(lambda: self._prompts)
        self._revision = ""
        self._prompts = 0
        self._means: Weights = {}
        # Children by objective: `labels()` costs more than what is done with its answer.
        self._announced: dict[str, Histogram] = {}
        self._recommended: dict[str, Histogram] = {}

    def use_bundle(self, bundle: Bundle) -> None:
        """Start again with the objectives of a bundle."""
        for metric in (self._announced_all, self._recommended_all, self._drift):
            metric.clear()
        self._revision = bundle.revision
        self._prompts = 0
        self._means = dict.fromkeys(bundle.names, 0.0)
        self._announced = {name: self._announced_all.labels(name) for name in bundle.names}
        self._recommended = {name: self._recommended_all.labels(name) for name in bundle.names}
        for name in bundle.names:
            self._drift.labels(name).set_function(
                partial(self._drift_of, name, bundle.info.mean_weights[name])
            )

    def _drift_of(self, name: str, expected: float) -> float:
        return self._means.get(name, 0.0) - expected if self._prompts else 0.0

    def observe(self, revision: str, *, announced: Weights, recommended: Weights | None) -> None:
        """Weights of one answer. Those of a bundle that is no longer served are left out."""
        if revision != self._revision:
            return
        for name, value in announced.items():
            self._announced[name].observe(value)
        if recommended is None:
            return
        self._prompts += 1
        newest = 1 / min(self._prompts, self.WINDOW)
        for name, value in recommended.items():
            self._recommended[name].observe(value)
            self._means[name] += newest * (value - self._means[name])


@contextmanager
def exposed(metrics: Metrics, *, host: str, port: int) -> Iterator[None]:
    """Serve `/metrics` on a port of its own; port 0 serves nothing.

    Raises ValueError when the port is taken.
    """
    if port == 0:
        yield
        return
    try:
        server, thread = start_http_server(port, addr=host, registry=metrics.registry)
    except OSError as error:
        raise ValueError(
            f"cannot listen for metrics on {host}:{port}: {error.strerror}; see --metrics-port"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
