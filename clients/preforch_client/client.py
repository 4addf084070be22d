"""The Python client, sync and async: thin shells around `wire`, which holds everything but the waiting.

In:  a gateway's address; prompts, messages, weights.
Out: frozen results, or a PreferenceError. What `retries` allows is sent again, never a stream that has begun.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar, Unpack, overload

import httpx

from preforch_client import wire
from preforch_client.results import (
    ChatChunk,
    ChatCompletion,
    Generation,
    GenerationChunk,
    Recommendation,
    ServedObjectives,
)
from preforch_client.retries import DEFAULT_RETRIES, Tries, checked_retries
from preforch_client.wire import Call, GenerateOptions, Inputs, Messages, Weights

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"


class Stream(Generic[T]):
    """A streamed answer: iterate over it once. Closing it early stops the generation in the engine."""

    def __init__(self, call: Call[T], response: httpx.Response) -> None:
        self._reader = wire.StreamReader(call, response)
        self._response = response

    def __iter__(self) -> Iterator[T]:
        with self, wire.unreachable_as_ours(self._response.url):
            for received in self._response.iter_bytes():
                yield from self._reader.feed(received)
            self._reader.finish()

    @property
    def ignored(self) -> tuple[str, ...]:
        """Fields of the request that the gateway dropped, because they change nothing."""
        return wire.ignored_fields(self._response.headers)

    def close(self) -> None:
        """Stop reading."""
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream(Generic[T]):
    """A streamed answer: iterate over it once. Closing it early stops the generation in the engine."""

    def __init__(self, call: Call[T], response: httpx.Response) -> None:
        self._reader = wire.StreamReader(call, response)
        self._response = response

    async def __aiter__(self) -> AsyncIterator[T]:
        async with self:
            with wire.unreachable_as_ours(self._response.url):
                async for received in self._response.aiter_bytes():
                    for result in self._reader.feed(received):
                        yield result
                self._reader.finish()

    @property
    def ignored(self) -> tuple[str, ...]:
        """Fields of the request that the gateway dropped, because they change nothing."""
        return wire.ignored_fields(self._response.headers)

    async def close(self) -> None:
        """Stop reading."""
        await self._response.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Client:
    """Talks to a gateway.

    `timeout` is in seconds, for connecting and for each wait for bytes; None waits forever.

    `max_retries`: how often a request is sent again whose answer has not begun (no connection, 429, 503).

    `transport` is httpx's seam, such as a MockTransport.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float | None = 120.0,
        max_retries: int = DEFAULT_RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        url, headers, limits = wire.http_settings(base_url, api_key=api_key, timeout=timeout)
        self._max_retries = checked_retries(max_retries)
        self._http = httpx.Client(base_url=url, headers=headers, timeout=limits, transport=transport)

    @overload
    def weights(
        self, prompt: str, *, weights: Weights | None = None, preset: str | None = None
    ) -> Recommendation: ...
    @overload
    def weights(
        self, *, messages: Messages, weights: Weights | None = None, preset: str | None = None
    ) -> Recommendation: ...
    @overload
    def weights(
        self, *, inputs: Inputs, weights: Weights | None = None, preset: str | None = None
    ) -> tuple[Recommendation, ...]: ...
    def weights(
        self,
        prompt: str | None = None,
        *,
        messages: Messages | None = None,
        inputs: Inputs | None = None,
        weights: Weights | None = None,
        preset: str | None = None,
    ) -> Recommendation | tuple[Recommendation, ...]:
        """Recommended weights for a prompt, a conversation, or each of at most 256 inputs; with weights of
        one's own or a preset, what would be used: these, and as recommended what they leave open."""
        return self._call(wire.weights_call(prompt, messages, inputs, weights, preset))

    @overload
    def generate(
        self, prompt: str | None = None, *, stream: Literal[False] = False, **options: Unpack[GenerateOptions]
    ) -> Generation: ...
    @overload
    def generate(
        self, prompt: str | None = None, *, stream: Literal[True], **options: Unpack[GenerateOptions]
    ) -> Stream[GenerationChunk]: ...
    def generate(
        self, prompt: str | None = None, *, stream: bool = False, **options: Unpack[GenerateOptions]
    ) -> Generation | Stream[GenerationChunk]:
        """Answer a prompt or messages, with these weights, those of a preset, or the recommended ones."""
        if stream:
            return self._stream(wire.generate_stream_call(prompt, options))
        return self._call(wire.generate_call(prompt, options))

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        weights: Weights | None = None,
        preset: str | None = None,
        stream: Literal[False] = False,
        **openai_fields: object,
    ) -> ChatCompletion: ...
    @overload
    def chat(
        self,
        messages: Messages,
        *,
        weights: Weights | None = None,
        preset: str | None = None,
        stream: Literal[True],
        **openai_fields: object,
    ) -> Stream[ChatChunk]: ...
    def chat(
        self,
        messages: Messages,
        *,
        weights: Weights | None = None,
        preset: str | None = None,
        stream: bool = False,
        **openai_fields: object,
    ) -> ChatCompletion | Stream[ChatChunk]:
        """A chat completion with these weights, those of a preset, or the recommended ones; further fields
        (`model`, `max_tokens`, `tools`, ...) are OpenAI's."""
        if stream:
            return self._stream(wire.chat_stream_call(messages, weights, preset, openai_fields))
        return self._call(wire.chat_call(messages, weights, preset, openai_fields))

    def objectives(self) -> ServedObjectives:
        """Names, descriptions and bounds of what is weighed, and the fallback weights."""
        return self._call(wire.objectives_call())

    def ready(self) -> bool:
        """Whether the gateway takes work now. Raises ServiceUnreachable when nothing answers."""
        with wire.unreachable_as_ours(self._http.base_url):
            return wire.is_ready(self._http.get("/readyz"))

    def close(self) -> None:
        """Give the connections back; the client cannot be used any more."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, call: Call[T]) -> T:
        with wire.unreachable_as_ours(self._http.base_url), closing(self._send(call)) as response:
            response.read()
        return call.read(response)

    def _stream(self, call: Call[T]) -> Stream[T]:
        with wire.unreachable_as_ours(self._http.base_url):
            response = self._send(call)
            if not response.is_success:
                response.read()
        wire.check_status(response)
        return Stream(call, response)

    def _send(self, call: Call[T]) -> httpx.Response:
        """The answer of the last try, of which the head has come and the rest has not been read."""
        request = self._http.build_request(call.method, call.path, json=call.body)
        tries = Tries(self._max_retries)
        while True:
            try:
                response = self._http.send(request, stream=True)
            except httpx.TransportError as error:
                if (wait := tries.wait_after_error(error)) is None:
                    raise
            else:
                if (wait := tries.wait_after_answer(response)) is None:
                    return response
                response.close()
            time.sleep(wait)


class AsyncClient:
    """`Client` for asyncio: the same methods, awaited.

    A stream is awaited first, then iterated with `async for`.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float | None = 120.0,
        max_retries: int = DEFAULT_RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        url, headers, limits = wire.http_settings(base_url, api_key=api_key, timeout=timeout)
        self._max_retries = checked_retries(max_retries)
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=limits, transport=transport)

    @overload
    async def weights(
        self, prompt: str, *, weights: Weights | None = None, preset: str | None = None
    ) -> Recommendation: ...
    @overload
    async def weights(
        self, *, messages: Messages, weights: Weights | None = None, preset: str | None = None
    ) -> Recommendation: ...
    @overload
    async def weights(
        self, *, inputs: Inputs, weights: Weights | None = None, preset: str | None = None
    ) -> tuple[Recommendation, ...]: ...
    async def weights(
        self,
        prompt: str | None = None,
        *,
        messages: Messages | None = None,
        inputs: Inputs | None = None,
        weights: Weights | None = None,
        preset: str | None = None,
    ) -> Recommendation | tuple[Recommendation, ...]:
        """Recommended weights for a prompt, a conversation, or each of at most 256 inputs; with weights of
        one's own or a preset, what would be used: these, and as recommended what they leave open."""
        return await self._call(wire.weights_call(prompt, messages, inputs, weights, preset))

    @overload
    async def generate(
        self, prompt: str | None = None, *, stream: Literal[False] = False, **options: Unpack[GenerateOptions]
    ) -> Generation: ...
    @overload
    async def generate(
        self, prompt: str | None = None, *, stream: Literal[True], **options: Unpack[GenerateOptions]
    ) -> AsyncStream[GenerationChunk]: ...
    async def generate(
        self, prompt: str | None = None, *, stream: bool = False, **options: Unpack[GenerateOptions]
    ) -> Generation | AsyncStream[GenerationChunk]:
        """Answer a prompt or messages, with these weights, those of a preset, or the recommended ones."""
        if stream:
            return await self._stream(wire.generate_stream_call(prompt, options))
        return await self._call(wire.generate_call(prompt, options))

    @overload
    async def chat(
        self,
        messages: Messages,
        *,
        weights: Weights | None = None,
        preset: str | None = None,
        stream: Literal[False] = False,
        **openai_fields: object,
    ) -> ChatCompletion: ...
    @overload
    async def chat(
        self,
        messages: Messages,
        *,
        weights: Weights | None = None,
        preset: str | None = None,
        stream: Literal[True],
        **openai_fields: object,
    ) -> AsyncStream[ChatChunk]: ...
    async def chat(
        self,
        messages: Messages,
        *,
        weights: Weights | None = None,
        preset: str | None = None,
        stream: bool = False,
        **openai_fields: object,
    ) -> ChatCompletion | AsyncStream[ChatChunk]:
        """A chat completion with these weights, those of a preset, or the recommended ones; further fields
        (`model`, `max_tokens`, `tools`, ...) are OpenAI's."""
        if stream:
            return await self._stream(wire.chat_stream_call(messages, weights, preset, openai_fields))
        return await self._call(wire.chat_call(messages, weights, preset, openai_fields))

    async def objectives(self) -> ServedObjectives:
        """Names, descriptions and bounds of what is weighed, and the fallback weights."""
        return await self._call(wire.objectives_call())

    async def ready(self) -> bool:
        """Whether the gateway takes work now. Raises ServiceUnreachable when nothing answers."""
        with wire.unreachable_as_ours(self._http.base_url):
            return wire.is_ready(await self._http.get("/readyz"))

    async def close(self) -> None:
        """Give the connections back; the client cannot be used any more."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, call: Call[T]) -> T:
        with wire.unreachable_as_ours(self._http.base_url):
            async with aclosing(await self._send(call)) as response:
                await response.aread()
        return call.read(response)

    async def _stream(self, call: Call[T]) -> AsyncStream[T]:
        with wire.unreachable_as_ours(self._http.base_url):
            response = await self._send(call)
            if not response.is_success:
                await response.aread()
        wire.check_status(response)
        return AsyncStream(call, response)

    async def _send(self, call: Call[T]) -> httpx.Response:
        """The answer of the last try, of which the head has come and the rest has not been read."""
        request = self._http.build_request(call.method, call.path, json=call.body)
        tries = Tries(self._max_retries)
        while True:
            try:
                response = await self._http.send(request, stream=True)
            except httpx.TransportError as error:
                if (wait := tries.wait_after_error(error)) is None:
                    raise
            else:
                if (wait := tries.wait_after_answer(response)) is None:
                    return response
                await response.aclose()
            await asyncio.sleep(wait)
