"""Bounds the waits of a loop that waits often.

In:  where each wait begins and ends. Out: one call of `on_late` when a wait takes longer than `seconds`. A
     wait costs a reading of the clock, while `asyncio.timeout` sets and cancels a timer each time: for an
     event of a stream, that is a tenth of all that the gateway does.
"""

import asyncio
from asyncio.events import TimerHandle
from collections.abc import Callable
from typing import Self


class Watch:
    """Used by the coroutine that waits, as a context manager around its loop."""

    def __init__(self, seconds: float, on_late: Callable[[], None]) -> None:
        self.late = False
        self._seconds = seconds
        self._on_late = on_late
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer: TimerHandle | None = None

    def __enter__(self) -> Self:
        self._look()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def begin(self) -> None:
        """A wait begins."""
        self._since = self._loop.time()

    def end(self) -> None:
        """It has ended."""
        self._since = None

    def _look(self) -> None:
        """Look again when the present wait would be too long, or when one that begins now would be."""
        now = self._loop.time()
        left = self._seconds if self._since is None else self._since + self._seconds - now
        if left > 0:
            self._timer = self._loop.call_at(now + left, self._look)
        else:
            self.late = True
            self._on_late()
