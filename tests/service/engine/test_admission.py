"""A bounded number runs, a bounded number waits first come first served, and the rest is refused at once."""

import asyncio

import pytest
from preforch_service.engine.admission import Admission
from preforch_service.errors import Overloaded, Unavailable
from preforch_service.telemetry.metrics import Metrics


def admission(running: int, waiting: int) -> Admission:
    return Admission("generations", running=running, waiting=waiting, metrics=Metrics())


async def line_up(door: Admission, count: int, served: list[int]) -> list[asyncio.Task[None]]:
    """Tasks in line, which note their number when it is their turn."""

    async def one(number: int) -> None:
        await door.enter()
        served.append(number)

    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(one(number)))
        await asyncio.sleep(0)
    return tasks


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_line_is_first_come_first_served_and_bounded() -> None:
    async def check() -> None:
        door = admission(running=2, waiting=2)
        served: list[int] = []
        await line_up(door, 4, served)
        assert (served, door.running, door.waiting) == ([0, 1], 2, 2)
        with pytest.raises(Overloaded, match="2 are running and 2 are waiting") as caught:
            await door.enter()
        assert (caught.value.status, caught.value.code) == (429, "overloaded")
        assert caught.value.headers["Retry-After"]
        for expected in ([0, 1, 2], [0, 1, 2, 3]):
            door.leave()
            await settle()
            assert (served, door.running) == (expected, 2)
        door.leave()
        door.leave()
        assert (door.running, door.waiting) == (0, 0)

    asyncio.run(check())


def test_who_leaves_the_line_frees_the_place() -> None:
    async def check() -> None:
        door = admission(running=1, waiting=2)
        served: list[int] = []
        tasks = await line_up(door, 3, served)
        tasks[1].cancel()
        await settle()
        assert door.waiting == 1
        tasks += await line_up(door, 1, served)
        assert door.waiting == 2
        door.leave()
        await settle()
        assert served == [0, 2]

    asyncio.run(check())


@pytest.mark.parametrize("leave_first", [True, False])
def test_a_slot_that_is_given_to_someone_who_leaves_is_not_lost(leave_first: bool) -> None:
    async def check() -> None:
        door = admission(running=1, waiting=2)
        served: list[int] = []
        tasks = await line_up(door, 3, served)
        # Both happen before the waiting task runs again.
        if leave_first:
            door.leave()
            tasks[1].cancel()
        else:
            tasks[1].cancel()
            door.leave()
        await settle()
        assert served == [0, 2]
        door.leave()
        assert (door.running, door.waiting) == (0, 0)

    asyncio.run(check())


def test_closing_refuses_the_line_and_everyone_after() -> None:
    async def check() -> None:
        door = admission(running=1, waiting=2)
        served: list[int] = []
        tasks = await line_up(door, 3, served)
        door.close(Unavailable("closing", code="draining"))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [getattr(result, "code", None) for result in results] == [None, "draining", "draining"]
        with pytest.raises(Unavailable):
            await door.enter()
        door.leave()
        assert door.running == 0

    asyncio.run(check())
