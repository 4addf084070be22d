"""Bounds how much runs at once: so many run, so many wait in line, the next is refused at once.

In:  `enter` before the work, `leave` after it. Out: a place, first come first served; or Overloaded.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from preforch_service.errors import ApiError, Overloaded
from preforch_service.telemetry.metrics import Metrics


class Admission:
    """At most `running` at a time and `waiting` in line. `name` is the label of refusals in the metrics."""

    def __init__(self, name: str, *, running: int, waiting: int, metrics: Metrics) -> None:
        self._name = name
        self._limit = running
        self._places = waiting
        self._metrics = metrics
        self._queue: deque[asyncio.Future[None]] = deque()
        self._refusal: ApiError | None = None
        self.running = 0

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        return len(self._queue)

    async def enter(self) -> None:
        """Wait for a slot.

        Raises Overloaded at once when the line is full; a caller who is cancelled leaves it.
        """
        if self._refusal is not None:
            raise self._refusal
        if self.running < self._limit:
            self.running += 1
            return
        if len(self._queue) >= self._places:
            self._metrics.rejections.labels(self._name).inc()
            raise Overloaded(
                f"too many requests: {self.running} are running and {len(self._queue)} are waiting; "
                "try again later",
                code="overloaded",
            )
        place = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                with suppress(ValueError):
                    self._queue.remove(place)
            elif place.exception() is None:
                # The slot had just been given to us.
                self.leave()
            raise

    def leave(self) -> None:
        """Give the slot to the first in line, or free it."""
        while self._queue:
            place = self._queue.popleft()
            # One that is done belongs to a caller who is being cancelled.
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1

    def close(self, refusal: ApiError) -> None:
        """Refuse everyone in line, and everyone who comes."""
        self._refusal = refusal
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                self._metrics.rejections.labels("draining").inc()
                place.set_exception(refusal)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A slot for the length of a block."""
        await self.enter()
        try:
            yield
        finally:
            self.leave()
