"""Passes the engine's answer on, byte for byte but for the `preference` object.

In:  an `Answer` and the decision. Out: bytes with `"preference": {...}` as the last key of the JSON body, or
     of the first event that can carry it. A stream that breaks off ends with events that say so.
     While the engine is silent, comments keep the connection alive, where they are wanted.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from preforch_service.engine.upstream import EVENT_STREAM, Answer, UpstreamDown
from preforch_service.requests.body import until_disconnect

_BLANK_LINES = (b"\n\n", b"\r\n\r\n")
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_SPACE = re.compile(r"[ \t\r\n]*")
DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n"
"""A comment. No blank line follows: several clients take one for the end of an event, which then is empty and
not JSON (openai-go before 2026, openai-python where events have ids)."""


def splice(document: bytes, name: str, value: object, *, inside: str | None = None) -> bytes:
    """Add a last key to a JSON object that has keys, leaving its other bytes as they are.

    The object is the document, or the one under the document's key `inside`.
    """
    end = document.rindex(b"}") if inside is None else _end_of(document, inside)
    added = json.dumps({name: value}, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return document[:end] + b"," + added[1:] + document[end + 1 :]


def _end_of(document: bytes, key: str) -> int:
    """The place of the bracket that closes the object under a key of the document, which has it."""
    text = document.decode("utf-8")
    decoder = json.JSONDecoder()

    def value_at(place: int) -> tuple[object, int]:
        found = _SPACE.match(text, place)
        assert found is not None, "it matches nothing, too"
        return decoder.raw_decode(text, found.end())

    place = text.index("{") + 1
    while True:
        name, colon = value_at(place)
        _, end = value_at(text.index(":", colon) + 1)
        if name == key:
            return len(text[:end].encode("utf-8")) - 1
        place = text.index(",", end) + 1


def event_data(event: bytes) -> dict[str, Any] | None:
    """The JSON object of an event, or None for `[DONE]`, comments and the like."""
    _, found, line = (b"\n" + event).partition(b"\ndata:")
    if not found:
        return None
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def event(value: Mapping[str, Any]) -> bytes:
    """One event of a stream of our own."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8") + b"\n\n"


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


async def whole_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, cut only after a blank line, so that an error event can follow.

    A last piece as it is.
    """
    held = b""
    async for chunk in chunks:
        piece = held + chunk if held else chunk
        if piece.endswith(_BLANK_LINES):
            held = b""
            yield piece
            continue
        cut = max(found + len(blank) if (found := piece.rfind(blank)) >= 0 else 0 for blank in _BLANK_LINES)
        held = piece[cut:]
        if cut:
            yield piece[:cut]
    if held:
        yield held


async def rewritten_events(
    chunks: AsyncIterator[bytes], rewrite: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> AsyncIterator[bytes]:
    """Events whose JSON is rewritten where it has choices."""
    async for raw in events(chunks):
        data = event_data(raw)
        yield event(rewrite(data)) if data is not None and data.get("choices") else raw


async def relay_events(
    chunks: AsyncIterator[bytes],
    preference: Mapping[str, Any],
    *,
    carries: Callable[[Mapping[str, Any]], bool],
    inside: str | None,
) -> AsyncIterator[bytes]:
    """The engine's bytes; the first event that `carries` it gets the preference object."""
    pending = True
    async for piece in whole_events(chunks):
        if pending:
            spliced = _splice_first(piece, preference, carries, inside)
            pending = spliced is None
            yield piece if spliced is None else spliced
        else:
            yield piece


def _splice_first(
    piece: bytes,
    preference: Mapping[str, Any],
    carries: Callable[[Mapping[str, Any]], bool],
    inside: str | None,
) -> bytes | None:
    """The events with the preference object in the first one that carries it, or None where none does."""
    begin = 0
    for match in _EVENT_END.finditer(piece):
        event = piece[begin : match.end()]
        data = event_data(event)
        if data is not None and carries(data) and (inside is None or data.get(inside)):
            with_it = splice(event, "preference", preference, inside=inside)
            return piece[:begin] + with_it + piece[match.end() :]
        begin = match.end()
    return None


async def kept_alive(pieces: AsyncIterator[bytes], seconds: float) -> AsyncGenerator[bytes, None]:
    """The pieces, and a comment whenever none has come for `seconds`; 0: none ever.

    A piece holds whole events, so that no comment lies within one.
    """
    if not seconds:
        async for piece in pieces:
            yield piece
        return
    coming = asyncio.ensure_future(anext(pieces, None))
    try:
        while True:
            done, _ = await asyncio.wait([coming], timeout=seconds)
            if not done:
                yield KEEP_ALIVE
                continue
            next_piece = coming.result()
            if next_piece is None:
                return
            yield next_piece
            coming = asyncio.ensure_future(anext(pieces, None))
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


class RelayResponse(Response):
    """Sends events as they come, and what `on_failure` makes of error and last piece where they break off.

    `keep_alive`: seconds of silence after which a comment is sent; 0: none.

    Starlette's StreamingResponse starts a task group for each answer. Here one task watches for a client that
    leaves; the engine's answer is closed however this ends.
    """

    def __init__(
        self,
        answer: Answer,
        body: AsyncIterator[bytes],
        *,
        headers: Mapping[str, str],
        keep_alive: float,
        on_failure: Callable[[UpstreamDown, bytes], bytes],
    ) -> None:
        self.status_code = answer.status
        self.media_type = EVENT_STREAM
        self.background = None
        self.init_headers(headers)
        self._answer = answer
        self._body = body
        self._keep_alive = keep_alive
        self._on_failure = on_failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await until_disconnect(Request(scope, receive), self._send(send))
        finally:
            self._answer.close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        last = b""
        try:
            async with aclosing(kept_alive(self._body, self._keep_alive)) as pieces:
                async for piece in pieces:
                    last = last if piece is KEEP_ALIVE else piece
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except UpstreamDown as error:
            end = self._on_failure(error, last)
            await send({"type": "http.response.body", "body": end, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
