"""Recommends weights for texts: from the cache, or in batches with ONNX Runtime.

In:  texts as `conversation_text` makes them. Out: one `Recommendation` per text.

One `OnnxRecommender` is everything that belongs to one bundle: session, threads, batches, its view of the
cache. To swap bundles, make a new one, use it from then on, and close the old one when its last request is
answered.
"""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from preforch_models.bundle import Bundle, Precision
from preforch_models.weights import Weights, normalise

from preforch_service.recommendation.batching import Batcher
from preforch_service.recommendation.cache import Cache, Key, text_key
from preforch_service.recommendation.onnx_session import CUDA, OnnxSession
from preforch_service.settings import Device
from preforch_service.telemetry.metrics import Metrics

CPU_BATCH_TOKENS = 512
CUDA_BATCH_TOKENS = 16_384
MAX_REQUESTS = 256
TOKENISED_AT_ONCE = 8
"""Texts that one request has tokenised before it is another one's turn."""


class QueueFull(Exception):
    """Too many requests wait for the orchestrator already."""


@dataclass(frozen=True)
class Recommendation:
    """The orchestrator's answer for one text: weights by objective name, and how sure it is, 0 to 1."""

    weights: Weights
    confidence: float


def compute(session: OnnxSession, names: Sequence[str], rows: Sequence[np.ndarray]) -> list[Recommendation]:
    """Answers for one batch of token ids, in its order."""
    weights_BK, confidence_B = session.forward(rows)
    answers = zip(weights_BK.tolist(), confidence_B.tolist(), strict=True)
    return [Recommendation(normalise(weights_K, names), confidence) for weights_K, confidence in answers]


class Recommender(Protocol):
    """What the gateway needs of an orchestrator."""

    async def recommend(self, texts: Sequence[str]) -> list[Recommendation]:
        """An answer for each text. May raise anything; the gateway then uses fallback weights."""
        ...

    def close(self) -> None:
        """Nothing is asked any more; free what answering takes."""
        ...


class OnnxRecommender:
    """The orchestrator of a bundle.

    `recommend` belongs to one event loop, `run` may be called from any thread.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device = "auto",
        threads: int = 2,
        precision: Precision = "fp32",
        batch_tokens: int | None = None,
        max_requests: int = MAX_REQUESTS,
        cache: Cache[Recommendation] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`batch_tokens`: padded tokens of a batch, None for the device's default.

        At most `max_requests` wait.
        """
        self.precision = precision
        self._session = OnnxSession(bundle, device=device, threads=threads, precision=precision)
        self._key = text_key(bundle.revision, precision)
        self._cache = cache if cache is not None else Cache(0)
        self._metrics = metrics or Metrics()
        self._max_requests = max_requests
        self._waiting = 0
        # Two, so that one very long text does not hold up all others.
        self._tokenising = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokeniser")
        self._computing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="orchestrator")
        # Not a method of this object, which would hold the batcher and so the session until the next garbage
        # collection.
        self._compute = partial(compute, self._session, bundle.names)
        self._batcher = Batcher(
            self._compute,
            self._computing,
            tokens=batch_tokens or (CUDA_BATCH_TOKENS if self.device == CUDA else CPU_BATCH_TOKENS),
            on_batch=self._metrics.orchestrator_batch_size.observe,
            on_answer=self._cache.put,
        )

    @property
    def device(self) -> str:
        """The execution provider in use."""
        return self._session.device

    def run(self, texts: Sequence[str]) -> list[Recommendation]:
        """An answer for each text, computed here and now, one text at a time."""
        return [self._compute([ids])[0] for ids in self._session.encode(texts)]

    async def recommend(self, texts: Sequence[str]) -> list[Recommendation]:
        """Cached answers, and the missing ones from the next batches. Raises QueueFull when too many wait."""
        keys = [self._key(text) for text in texts]
        missing = dict(zip(keys, texts, strict=True))
        found = self._cached(missing)
        self._metrics.cache_requests.labels("hit").inc(len(found))
        self._metrics.cache_requests.labels("miss").inc(len(missing))
        if missing:
            with self._place():
                found |= await self._compute_missing(missing)
        return [found[key] for key in keys]

    def _cached(self, wanted: dict[Key, Any]) -> dict[Key, Recommendation]:
        """What the cache has; the rest stays in `wanted`."""
        found = {key: answer for key in wanted if (answer := self._cache.get(key)) is not None}
        for key in found:
            del wanted[key]
        return found

    async def _compute_missing(self, missing: dict[Key, str]) -> dict[Key, Recommendation]:
        loop = asyncio.get_running_loop()
        texts, encoded = list(missing.values()), list[np.ndarray]()
        for start in range(0, len(texts), TOKENISED_AT_ONCE):
            piece = texts[start : start + TOKENISED_AT_ONCE]
            encoded += await loop.run_in_executor(self._tokenising, self._session.encode, piece)
        rows = dict(zip(missing, encoded, strict=True))
        # Another request may have brought the same text meanwhile.
        found = self._cached(rows)
        return found | await self._batcher.answers(rows) if rows else found

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places for requests that wait. Raises QueueFull when all are taken."""
        if self._waiting >= self._max_requests:
            raise QueueFull(f"{self._waiting} requests wait for the orchestrator already")
        self._waiting += 1
        self._metrics.orchestrator_queue.inc()
        try:
            yield
        finally:
            self._waiting -= 1
            self._metrics.orchestrator_queue.dec()

    def close(self) -> None:
        """Stop the threads, without waiting for texts that nobody waits for any more."""
        for executor in (self._tokenising, self._computing):
            executor.shutdown(wait=False, cancel_futures=True)
