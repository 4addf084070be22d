"""Waits that are too long are noticed, whenever they begin."""

import asyncio

from preforch_service.engine.watch import Watch


def noticed(*pauses: tuple[float, bool]) -> bool:
    """Whether any of the pauses (seconds, whether it is a wait) is noticed as longer than 0.3 s."""

    async def pause() -> bool:
        late = asyncio.Event()
        with Watch(0.3, late.set) as watch:
            for seconds, waits in pauses:
                if waits:
                    watch.begin()
                await asyncio.sleep(seconds)
                watch.end()
        assert watch.late == late.is_set()
        return watch.late

    return asyncio.run(pause())


def test_a_wait_that_is_too_long_is_noticed() -> None:
    assert noticed((0.8, True))


def test_one_that_begins_between_two_looks_is_noticed_too() -> None:
    assert noticed((0.2, False), (0.8, True))
    assert noticed((0.1, True), (0.1, False), (0.8, True))


def test_many_short_waits_are_none_that_is_too_long() -> None:
    assert not noticed(*[(0.02, True)] * 50)


def test_what_is_no_wait_may_take_its_time() -> None:
    assert not noticed((0.8, False), (0.02, True), (0.8, False))
