"""Replaces the bundle of a running gateway.

In:  the configured path, read again. Out: the new bundle in force, or BundleRefused and the old one
     untouched.

A run or a bundle that is not whole, does not verify, does not load, does not give its golden answers, or has
other objectives or another context than the policy behind this gateway, is refused. Reloads run one after the
other, each from its own reading of the path, so that the last one asked for always sees the newest bundle.
"""

import asyncio
import logging

from preforch_models.bundle import Bundle, read_bundle
from preforch_models.manifest import ArtifactError

from preforch_service.engine.readiness import Readiness
from preforch_service.errors import BundleRefused, Unavailable
from preforch_service.memory import release_freed_memory
from preforch_service.recommendation.active_bundle import InForce, LoadedBundle, load_bundle, read_configured
from preforch_service.settings import ServeSettings
from preforch_service.telemetry.metrics import Metrics
from preforch_service.wire import Reloaded

RELEASE_SECONDS = 10.0

logger = logging.getLogger(__name__)


def check_same_context(new: Bundle, old: Bundle) -> None:
    """Raise ArtifactError unless the policy and the clients of the old bundle can go on with the new one."""
    if new.info.context != old.info.context:
        raise ArtifactError(
            f"bundle {new.path} does not fit: it writes {new.info.context.model_dump()}, served is "
            f"{old.info.context.model_dump()}; other objectives or another context need a restart"
        )


def check_unchanged(bundle: Bundle) -> None:
    """Raise ArtifactError when the folder was written while it was loaded.

    Hashes are read first, the graph later.
    """
    if read_bundle(bundle.path).revision != bundle.revision:
        raise ArtifactError(f"{bundle.path}: changed while it was being read; reload again")


class Reloader:
    """Reloads on request. A reload that has begun runs to its end, also when nobody waits for it any more."""

    def __init__(
        self, settings: ServeSettings, bundles: InForce, readiness: Readiness, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._bundles = bundles
        self._readiness = readiness
        self._metrics = metrics
        self._one_at_a_time = asyncio.Lock()
        self._running: set[asyncio.Task[Reloaded | BundleRefused]] = set()

    async def reload(self) -> Reloaded:
        """Read the path again and use what is there.

        Raises BundleRefused, or Unavailable while shutting down.
        """
        outcome = await asyncio.shield(self.start())
        if isinstance(outcome, BundleRefused):
            raise outcome
        return outcome

    def start(self) -> asyncio.Task[Reloaded | BundleRefused]:
        """Begin a reload; its outcome is logged. Raises Unavailable while shutting down."""
        if self._readiness.draining:
            raise Unavailable("the gateway is shutting down", code="draining")
        task = asyncio.create_task(self._reload())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def finish(self) -> None:
        """Wait for the reloads that have begun."""
        await asyncio.gather(*self._running)

    async def _reload(self) -> Reloaded | BundleRefused:
        async with self._one_at_a_time:
            old = self._bundles.current.bundle
            try:
                new = await asyncio.to_thread(self._load, old)
            # ONNX Runtime and tokenizers raise what they like; whatever it is, the old bundle goes on.
            except Exception as error:
                return self._refuse(error, old)
            if new is not None:
                self._bundles.replace(new)
                self._metrics.use_bundle(new.bundle)
                # By then its last request has its weights, and the old bundle is gone.
                asyncio.get_running_loop().call_later(RELEASE_SECONDS, release_freed_memory)
            revision = self._bundles.current.bundle.revision
            logger.info("bundle %s is in force, before it was %s", revision, old.revision)
            self._metrics.bundle_reloads.labels("unchanged" if new is None else "reloaded").inc()
            return Reloaded(reloaded=new is not None, bundle=revision)

    def _load(self, old: Bundle) -> LoadedBundle | None:
        """The bundle at the path, or None where it is the old one."""
        bundle = read_configured(self._settings)
        if bundle.revision == old.revision:
            return None
        check_same_context(bundle, old)
        loaded = load_bundle(self._settings, bundle, self._metrics)
        try:
            check_unchanged(bundle)
        except BaseException:
            loaded.recommender.close()
            raise
        return loaded

    def _refuse(self, error: Exception, old: Bundle) -> BundleRefused:
        said = " ".join(f"{error}".split()) or type(error).__name__
        expected = isinstance(error, ValueError | OSError)
        logger.warning("bundle refused, %s keeps serving: %s", old.revision, said, exc_info=not expected)
        self._metrics.bundle_reloads.labels("refused").inc()
        return BundleRefused(f"{said}; bundle {old.revision} keeps serving", code="bundle_refused")
