"""Batches of texts of concurrent requests: while one batch is computed, what arrives waits for the next.

No timers.

In:  tokenised texts of a request with their keys. Out: an answer for each, all at once.

Which texts are next:
1. Requests take turns. The one whose turn it is leads the batch with its longest waiting text, and goes to
   the end of the line; so a request waits for at most one batch per request before it, however many texts
   those have.
2. The batch is filled with texts that are nearest in length to the leader, out of a window to which the
   waiting requests contribute one text each in turn. It holds at most `tokens` padded tokens (rows x
   longest), and no text that is less than half as long as the longest: that costs more in padding than a
   batch of its own.
3. A text that several requests wait for is computed once; one that nobody waits for any more is dropped.
4. A batch that fails is computed again in halves: only those who wait for the text that fails hear of it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from preforch_service.recommendation.cache import Key

Answer = TypeVar("Answer")
WINDOW = 256
"""Waiting texts that are looked at for one batch."""
SHORT = 16
"""Tokens below which texts count as alike: there, a batch costs more than padding (measured on CPUs)."""


@dataclass(eq=False)
class Text(Generic[Answer]):
    """One text that is to be computed, and the requests that wait for it."""

    key: Key
    ids: np.ndarray
    waiters: "set[Waiting[Answer]]" = field(default_factory=set)
    taken: bool = False
    """Whether it is in a batch already."""


@dataclass(eq=False)
class Waiting(Generic[Answer]):
    """One request: its texts, longest first, and the answers so far."""

    texts: deque[Text[Answer]]
    missing: set[Key]
    done: asyncio.Future[None]
    answers: dict[Key, Answer] = field(default_factory=dict)


class Batcher(Generic[Answer]):
    """Computes texts in batches, one batch at a time, with `compute` in a thread of the executor.

    Belongs to one event loop at a time. `on_batch` hears the size of every batch, `on_answer` every answer.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[np.ndarray]], list[Answer]],
        executor: Executor,
        *,
        tokens: int,
        on_batch: Callable[[int], object],
        on_answer: Callable[[Key, Answer], object],
    ) -> None:
        self._compute = compute
        self._executor = executor
        self._tokens = tokens
        self._on_batch = on_batch
        self._on_answer = on_answer
        self._line: deque[Waiting[Answer]] = deque()
        # Texts that wait or are being computed.
        self._known: dict[Key, Text[Answer]] = {}
        # There only while there is work.
        self._worker: asyncio.Task[None] | None = None

    async def answers(self, texts: Mapping[Key, np.ndarray]) -> dict[Key, Answer]:
        """An answer for each text. Raises what `compute` raised for one of them."""
        known = [self._known.setdefault(key, Text(key, ids)) for key, ids in texts.items()]
        known.sort(key=lambda text: -len(text.ids))
        waiting = Waiting(deque(known), set(texts), asyncio.get_running_loop().create_future())
        for text in known:
            text.waiters.add(waiting)
        self._line.append(waiting)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        try:
            await waiting.done
        finally:
            self._leave(waiting, known)
        return waiting.answers

    def _leave(self, waiting: Waiting[Answer], known: Sequence[Text[Answer]]) -> None:
        """A request has its answers, or nobody waits for them any more."""
        with suppress(ValueError):
            self._line.remove(waiting)
        for text in known:
            text.waiters.discard(waiting)
            if not text.waiters and not text.taken:
                self._known.pop(text.key, None)

    async def _work(self) -> None:
        """Batch after batch, until nothing waits."""
        try:
            while batch := self._next_batch():
                await self._answer(batch)
        finally:
            self._worker = None
            # Empty, unless the event loop ends.
            for text in self._known.values():
                for waiting in text.waiters:
                    waiting.done.cancel()
            self._known.clear()

    async def _answer(self, batch: Sequence[Text[Answer]]) -> None:
        """Compute a batch. One that fails is halved, so that a text that cannot be computed fails alone."""
        self._on_batch(len(batch))
        rows = [text.ids for text in batch]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._executor, self._compute, rows)
        except Exception as error:  # raised again where the answer is awaited
            if len(batch) == 1:
                self._fail(batch[0], error)
                return
        else:
            self._finish(batch, answers)
            return
        middle = len(batch) // 2
        await self._answer(batch[:middle])
        await self._answer(batch[middle:])

    def _next_batch(self) -> list[Text[Answer]]:
        window = self._window()
        if not window:
            return []
        leader, *others = window
        batch, shortest, longest = [leader], len(leader.ids), len(leader.ids)
        for text in sorted(others, key=lambda text: abs(len(text.ids) - len(leader.ids))):
            low, high = min(shortest, len(text.ids)), max(longest, len(text.ids))
            if (len(batch) + 1) * high <= self._tokens and high <= 2 * max(low, SHORT):
                batch.append(text)
                shortest, longest = low, high
        for text in batch:
            text.taken = True
        # The leader's request goes to the end of the line.
        self._line.rotate(-1)
        return batch

    def _window(self) -> list[Text[Answer]]:
        """The leader, then one text of each waiting request in turn, up to WINDOW.

        Shortens the line on the way.
        """
        for waiting in list(self._line):
            while waiting.texts and waiting.texts[0].taken:
                waiting.texts.popleft()
            if not waiting.texts:
                self._line.remove(waiting)
        window: dict[Key, Text[Answer]] = {}
        turns = deque(iter(waiting.texts) for waiting in self._line)
        while turns and len(window) < WINDOW:
            turn = turns.popleft()
            text = next((text for text in turn if not text.taken and text.key not in window), None)
            if text is not None:
                window[text.key] = text
                turns.append(turn)
        return list(window.values())

    def _finish(self, batch: Sequence[Text[Answer]], answers: Sequence[Answer]) -> None:
        for text, answer in zip(batch, answers, strict=True):
            del self._known[text.key]
            self._on_answer(text.key, answer)
            for waiting in text.waiters:
                waiting.answers[text.key] = answer
                waiting.missing.discard(text.key)
                if not waiting.missing and not waiting.done.done():
                    waiting.done.set_result(None)

    def _fail(self, text: Text[Answer], error: Exception) -> None:
        del self._known[text.key]
        for waiting in text.waiters:
            if not waiting.done.done():
                waiting.done.set_exception(error)
