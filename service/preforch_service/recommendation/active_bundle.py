"""The bundle in force.

In:  settings and the configured path. Out: a `LoadedBundle`, everything that belongs to one bundle, and
     `InForce`, which hands it to requests and replaces it as a whole.

Objectives and context are those of the policy and never change while the process lives, so what depends on
them alone (engine requests, template check) is not in here.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from preforch_models.bundle import Bundle, read_bundle

from preforch_service.engine.readiness import replay_golden
from preforch_service.locate import find_bundle
from preforch_service.recommendation.bounds import Bounds
from preforch_service.recommendation.cache import Cache
from preforch_service.recommendation.carriers import Carriers
from preforch_service.recommendation.recommender import OnnxRecommender, Recommender
from preforch_service.recommendation.weighing import Weigher
from preforch_service.settings import ServeSettings
from preforch_service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedBundle:
    """A bundle, its orchestrator, the bounds in force with it, and what reads and decides weights."""

    bundle: Bundle
    recommender: Recommender
    bounds: Bounds
    carriers: Carriers
    weigher: Weigher


def assemble(
    settings: ServeSettings, bundle: Bundle, recommender: Recommender, metrics: Metrics
) -> LoadedBundle:
    """Put the parts of one bundle together. Raises ValueError where bundle and settings do not fit."""
    check_confidence(settings, bundle)
    bounds = Bounds(bundle.info, settings.keys.keys)
    carriers = Carriers(bundle.names, settings.presets)
    weigher = Weigher(
        bundle,
        recommender,
        bounds=bounds,
        presets=carriers.presets,
        deadline=settings.orchestrator_deadline,
        min_confidence=settings.min_confidence,
        metrics=metrics,
    )
    return LoadedBundle(bundle, recommender, bounds, carriers, weigher)


def check_confidence(settings: ServeSettings, bundle: Bundle) -> None:
    """Raise ValueError where a least confidence would do nothing, or again what the bundle does by itself."""
    mode = bundle.info.method.get("confidence")
    if settings.min_confidence == 0 or mode == "report":
        return
    reasons = {
        "shrink": "its weights of unfamiliar prompts move towards the fallback by themselves",
        "off": "its confidence does not tell unfamiliar prompts",
    }
    why = reasons.get(f"{mode}", "it does not say what its confidence means")
    raise ValueError(
        f"min_confidence needs a bundle whose orchestrator has confidence = 'report'; {bundle.path} has "
        f"{mode!r}: {why}"
    )


def read_configured(settings: ServeSettings) -> Bundle:
    """The verified bundle at the configured path. Raises ArtifactError or OSError.

    Links are followed once: one that is switched meanwhile must not mix the files of two bundles.
    """
    return read_bundle(find_bundle(settings.path).resolve())


def load_bundle(settings: ServeSettings, bundle: Bundle, metrics: Metrics) -> LoadedBundle:
    """The bundle with its orchestrator, after it has given the golden answers.

    Takes seconds; any thread may do it.
    """
    recommender = OnnxRecommender(
        bundle,
        device=settings.device,
        threads=settings.orchestrator_threads,
        precision=settings.precision,
        batch_tokens=settings.batch_tokens,
        max_requests=settings.orchestrator_queue,
        # One of its own: no answer of another bundle is ever asked for again.
        cache=Cache(settings.cache_entries),
        metrics=metrics,
    )
    try:
        loaded = assemble(settings, bundle, recommender, metrics)
        difference = replay_golden(bundle, recommender)
    except BaseException:
        recommender.close()
        raise
    logger.debug("golden answers replayed on %s, largest difference %.2g", recommender.device, difference)
    return loaded


class InForce:
    """The bundle that requests use. Belongs to the event loop's thread."""

    def __init__(self, first: LoadedBundle) -> None:
        self.current = first
        # Every bundle whose orchestrator is open, and how many requests use it.
        self._users = {first: 0}

    @contextmanager
    def lease(self) -> Iterator[LoadedBundle]:
        """The bundle in force now, kept open to the end of the block whatever replaces it meanwhile."""
        loaded = self.current
        self._users[loaded] += 1
        try:
            yield loaded
        finally:
            self._users[loaded] -= 1
            self._close_unused()

    def replace(self, new: LoadedBundle) -> None:
        """From now on requests get the new bundle; the old one is closed when nobody uses it any more."""
        self._users[new] = 0
        self.current = new
        self._close_unused()

    def _close_unused(self) -> None:
        for loaded in [
            loaded for loaded, users in self._users.items() if users == 0 and loaded is not self.current
        ]:
            del self._users[loaded]
            loaded.recommender.close()

    def close(self) -> None:
        """Close all that is open. Nothing can be leased afterwards."""
        for loaded in self._users:
            loaded.recommender.close()
