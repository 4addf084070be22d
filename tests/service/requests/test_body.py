"""Work for a client who may leave."""

import asyncio

import pytest
from preforch_service.errors import ClientGone
from preforch_service.requests.body import until_disconnect
from starlette.requests import Request
from starlette.types import Message, Receive


def request_of(receive: Receive) -> Request:
    return Request({"type": "http"}, receive)


async def gone() -> Message:
    return {"type": "http.disconnect"}


async def never_gone() -> Message:
    await asyncio.sleep(30)
    raise AssertionError("nobody waits that long")


def test_work_for_a_client_who_has_left_is_cancelled() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("cleaned up")

    async def check() -> None:
        async with asyncio.timeout(5):
            with pytest.raises(ClientGone):
                await until_disconnect(request_of(gone), work())
            # Nothing of it is left that would end what comes next.
            await asyncio.sleep(0.01)

    asyncio.run(check())
    assert ended == ["cleaned up"]


def test_a_cancelled_request_stays_cancelled_when_the_client_leaves_at_the_same_time() -> None:
    async def check() -> None:
        for receive in (gone, never_gone):
            task = asyncio.create_task(until_disconnect(request_of(receive), asyncio.sleep(30)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(check())


def test_a_client_that_leaves_with_the_result_there_cancels_nothing_more() -> None:
    async def check() -> None:
        leaving = asyncio.Event()

        async def gone_then() -> Message:
            await leaving.wait()
            return {"type": "http.disconnect"}

        async def work() -> str:
            await asyncio.sleep(0.01)
            leaving.set()
            # The watcher has ended, and its callback waits for its turn.
            await asyncio.sleep(0)
            return "done"

        assert await until_disconnect(request_of(gone_then), work()) == "done"
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(check())
