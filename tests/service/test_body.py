"""Work for a client who may leave."""

import asyncio

import pytest
from preforch_service.body import until_disconnect
from preforch_service.errors import ClientGone
from starlette.requests import Request
from starlette.types import Message


async def gone() -> Message:
    return {"type": "http.disconnect"}


def test_a_result_that_comes_after_the_client_has_left_is_given_back() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "too late"
        return "never"

    given_back: list[str] = []

    async def check() -> None:
        with pytest.raises(ClientGone):
            await until_disconnect(Request({"type": "http"}, gone), stubborn(), discard=given_back.append)

    asyncio.run(check())
    assert given_back == ["too late"]
