"""Batches while busy: fair between requests, bounded, computed once, and nothing for those who left."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preforch_service.recommendation.batching import SHORT, Batcher
from preforch_service.recommendation.cache import Key


class Bench:
    """A batcher whose batches run one at a time, each when it is let go.

    An answer is a text's first token id.
    """

    def __init__(self, executor: ThreadPoolExecutor, *, tokens: int = 64) -> None:
        self.batches: list[list[int]] = []
        self.sizes: list[int] = []
        self.kept: list[Key] = []
        self.error: Exception | None = None
        self.bad: set[int] = set()
        self._free = threading.Semaphore(0)
        self.batcher = Batcher(
            self._compute,
            executor,
            tokens=tokens,
            on_batch=self.sizes.append,
            on_answer=lambda key, answer: self.kept.append(key),
        )

    def _compute(self, rows: Sequence[np.ndarray]) -> list[int]:
        self.batches.append([int(row[0]) for row in rows])
        assert self._free.acquire(timeout=20)
        if self.error is not None:
            raise self.error
        if self.bad.intersection(self.batches[-1]):
            raise ValueError(f"one of {self.batches[-1]} cannot be computed")
        return self.batches[-1]

    def let_go(self, batches: int = 1000) -> None:
        """Let the running batch, and as many more, end."""
        self._free.release(batches)

    async def begun(self, batches: int) -> None:
        """Until so many batches have begun."""
        while len(self.batches) < batches:
            await asyncio.sleep(0.001)

    def ask(self, *texts: tuple[int, int]) -> "asyncio.Task[dict[Key, int]]":
        """A request for texts, each a name and a length."""
        rows = {str(name).encode(): np.full(length, name) for name, length in texts}
        return asyncio.create_task(self.batcher.answers(rows))


@contextmanager
def benched(tokens: int = 64) -> Iterator[Bench]:
    with ThreadPoolExecutor(max_workers=1) as executor:
        bench = Bench(executor, tokens=tokens)
        try:
            yield bench
        finally:
            bench.let_go()


def run(story: Callable[[Bench], Coroutine[None, None, None]], *, tokens: int = 64) -> Bench:
    """Play a story with a time limit."""
    with benched(tokens) as bench:
        asyncio.run(asyncio.wait_for(story(bench), 30))
    return bench


def test_what_arrives_while_a_batch_runs_forms_the_next_one() -> None:
    async def story(bench: Bench) -> None:
        requests = [bench.ask((1, 8))]
        await bench.begun(1)
        requests += [bench.ask((name, 8)) for name in (2, 3, 4)]
        bench.let_go()
        answers = await asyncio.gather(*requests)
        assert [list(answer.values()) for answer in answers] == [[1], [2], [3], [4]]

    bench = run(story)
    assert bench.batches == [[1], [2, 3, 4]]
    assert bench.sizes == [1, 3]


def test_a_request_of_many_texts_does_not_starve_one_of_a_single_text() -> None:
    async def story(bench: Bench) -> None:
        many = bench.ask(*((name, 64) for name in range(100)))
        await bench.begun(1)
        # One text fills a batch, so that none is shared.
        one = bench.ask((500, 2))
        bench.let_go()
        await one
        # The batch that ran, one of the many, its own, and one that may have begun since.
        assert len(bench.batches) <= 4
        assert [500] in bench.batches
        assert len(await many) == 100

    run(story)


def test_a_text_of_its_own_length_shares_the_next_batch_with_the_many() -> None:
    async def story(bench: Bench) -> None:
        many = bench.ask(*((name, 16) for name in range(100)))
        await bench.begun(1)
        one = bench.ask((500, 16))
        bench.let_go()
        await one
        assert 500 in bench.batches[1]
        await many

    run(story)


def test_every_batch_is_within_the_budget_and_alike_in_length() -> None:
    lengths = {name: 1 + name * 7 % 60 for name in range(200)}

    async def story(bench: Bench) -> None:
        bench.let_go()
        assert len(await bench.ask(*lengths.items())) == 200

    bench = run(story, tokens=128)
    assert sorted(name for batch in bench.batches for name in batch) == list(range(200))
    for batch in bench.batches:
        shortest, longest = (pick(lengths[name] for name in batch) for pick in (min, max))
        assert len(batch) * longest <= 128
        assert longest <= 2 * max(shortest, SHORT)


def test_a_text_longer_than_the_budget_is_alone() -> None:
    async def story(bench: Bench) -> None:
        bench.let_go()
        await bench.ask((1, 500), (2, 400), (3, 8))

    assert run(story).batches == [[1], [2], [3]]


def test_texts_of_callers_who_left_are_never_computed() -> None:
    async def story(bench: Bench) -> None:
        first = bench.ask((1, 8))
        await bench.begun(1)
        leaves, stays = bench.ask((2, 8), (3, 8)), bench.ask((3, 8), (4, 8))
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.sleep(0)
        bench.let_go()
        assert await stays == {b"3": 3, b"4": 4}
        await first

    assert run(story).batches == [[1], [3, 4]]


def test_the_same_text_is_computed_once_for_all_who_wait_for_it_also_when_the_first_leaves() -> None:
    async def story(bench: Bench) -> None:
        first = bench.ask((1, 8))
        await bench.begun(1)
        also = bench.ask((1, 8), (2, 8))
        await asyncio.sleep(0)
        first.cancel()
        bench.let_go()
        assert await also == {b"1": 1, b"2": 2}

    bench = run(story)
    assert bench.batches == [[1], [2]]
    assert bench.kept == [b"1", b"2"]


def test_a_failed_batch_fails_its_callers_alone_and_is_not_kept() -> None:
    async def story(bench: Bench) -> None:
        bench.error = RuntimeError("out of memory")
        failing = bench.ask((1, 8))
        await bench.begun(1)
        bench.let_go(1)
        with pytest.raises(RuntimeError, match="out of memory"):
            await failing
        bench.error = None
        bench.let_go()
        assert await bench.ask((1, 8)) == {b"1": 1}

    bench = run(story)
    assert bench.batches == [[1], [1]]
    assert bench.kept == [b"1"]


def test_a_text_that_cannot_be_computed_fails_those_alone_who_wait_for_it() -> None:
    async def story(bench: Bench) -> None:
        bench.bad = {13}
        first = bench.ask((1, 8))
        await bench.begun(1)
        asked = [bench.ask((name, 8)) for name in range(10, 15)]
        also = bench.ask((13, 8))
        # All of them wait before the first batch ends.
        await asyncio.sleep(0.05)
        bench.let_go()
        assert await first == {b"1": 1}
        found = await asyncio.gather(*asked, also, return_exceptions=True)
        assert [answer for answer in found if isinstance(answer, dict)] == [
            {str(name).encode(): name} for name in (10, 11, 12, 14)
        ]
        assert [str(error) for error in found if isinstance(error, ValueError)] == [
            "one of [13] cannot be computed"
        ] * 2

    bench = run(story)
    assert bench.batches[:2] == [[1], [10, 11, 12, 13, 14]]
    assert b"13" not in bench.kept
    assert bench.sizes == [len(batch) for batch in bench.batches]


def test_another_event_loop_finds_nothing_of_one_that_ended() -> None:
    async def leave(bench: Bench) -> None:
        bench.ask((1, 8))
        await bench.begun(1)

    async def ask(bench: Bench) -> None:
        assert await bench.ask((1, 8)) == {b"1": 1}

    with benched() as bench:
        asyncio.run(leave(bench))
        bench.let_go()
        asyncio.run(asyncio.wait_for(ask(bench), 20))


@settings(max_examples=40, deadline=None)
@given(
    requests=st.lists(
        st.lists(st.tuples(st.integers(0, 30), st.integers(1, 80)), min_size=1, max_size=8), max_size=8
    ),
    leaving=st.sets(st.integers(0, 7)),
)
def test_a_request_that_stays_gets_exactly_its_own_answers(
    requests: list[list[tuple[int, int]]], leaving: set[int]
) -> None:
    async def story(bench: Bench) -> None:
        bench.let_go()
        tasks = [bench.ask(*texts) for texts in requests]
        await asyncio.sleep(0)
        for number in leaving & set(range(len(tasks))):
            tasks[number].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for number, (texts, answer) in enumerate(zip(requests, answers, strict=True)):
            if number in leaving:
                assert isinstance(answer, asyncio.CancelledError)
            else:
                assert answer == {str(name).encode(): name for name, _ in texts}

    run(story)
