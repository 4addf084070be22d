"""Passes the engine's answer on, byte for byte but for the `preference` object.

In:  an `Answer` and the decision. Out: bytes with `"preference": {...}` as the last key of the JSON body, or of the
     first event that has choices. An answer that breaks off ends with an error event and `[DONE]`.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from preforch_service.errors import ApiError, Unavailable, error_body
from preforch_service.upstream import Answer, UpstreamDown

_EVENT_END = re.compile(rb"\r?\n\r?\n")
DONE = b"data: [DONE]\n\n"


def splice(document: bytes, name: str, value: object) -> bytes:
    """Add a last key to a JSON object that has keys, leaving its other bytes as they are."""
    end = document.rindex(b"}")
    added = json.dumps({name: value}, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return document[:end] + b"," + added[1:] + document[end + 1 :]


def event_data(event: bytes) -> dict[str, Any] | None:
    """The JSON object of an event, or None for `[DONE]`, comments and the like."""
    if not event.startswith(b"data:"):
        return None
    try:
        data = json.loads(event[5:])
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def error_event(error: ApiError) -> bytes:
    """The end of a stream that failed."""
    return b"data: " + json.dumps(error_body(error)).encode("utf-8") + b"\n\n" + DONE


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Cut a byte stream into events, each with its blank line; a last piece without one comes as it is."""
    buffer = b""
    async for chunk in chunks:
        buffer += chunk
        while (match := _EVENT_END.search(buffer)) is not None:
            yield buffer[: match.end()]
            buffer = buffer[match.end() :]
    if buffer:
        yield buffer


async def relay_events(chunks: AsyncIterator[bytes], preference: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """The engine's events; the first one with choices gets the preference object."""
    pending = True
    try:
        async for event in events(chunks):
            data = event_data(event) if pending else None
            if data is not None and data.get("choices"):
                pending = False
                yield splice(event, "preference", preference)
            else:
                yield event
    except UpstreamDown:
        yield error_event(Unavailable("the engine died while it was answering", code="engine_down"))


class RelayResponse(StreamingResponse):
    """Closes the engine's answer however it ends, also when the client leaves before the first byte."""

    def __init__(self, answer: Answer, body: AsyncIterator[bytes], *, headers: Mapping[str, str]) -> None:
        super().__init__(body, status_code=answer.status, headers=headers, media_type="text/event-stream")
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.close()
