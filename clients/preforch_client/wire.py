"""The gateway's API without I/O: builds requests and reads answers, for the sync and the async client alike.

In:  arguments of a client's method; later status, headers and bytes of the answer.
Out: a `Call`; later a frozen result, or a PreferenceError.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypedDict, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from preforch_client.errors import ServiceFailed, ServiceUnreachable, error_of, stream_error
from preforch_client.events import EventDecoder
from preforch_client.results import (
    ChatChunk,
    ChatCompletion,
    Generation,
    GenerationChunk,
    Recommendation,
    RecommendationBatch,
    ServedObjectives,
)

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

Weights = Mapping[str, float] | Sequence[float]
"""By objective name, all or some of them; or a number for each objective, in the gateway's order."""

Messages = Sequence[Mapping[str, object]]
"""A conversation in OpenAI's chat format."""

Inputs = Sequence[str] | Sequence[Messages] | Sequence[str | Messages]
"""Prompts and conversations."""


class GenerateOptions(TypedDict, total=False):
    """What `generate` takes beside a prompt. One of prompt and messages is needed."""

    messages: Messages
    weights: Weights | None
    preset: str | None
    max_tokens: int
    temperature: float
    top_p: float
    stop: str | Sequence[str]
    seed: int
    n: int


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its answer (or one event of it, when streamed) becomes a result.

    `add_headers` puts into the result of a complete answer what only its headers say.
    """

    method: str
    path: str
    body: dict[str, object] | None
    parse: Callable[[bytes], T]
    add_headers: Callable[[T, Mapping[str, str]], T] | None = None

    def read(self, response: httpx.Response) -> T:
        """The result of a complete answer. Raises PreferenceError."""
        check_status(response)
        result = self.parse(response.content)
        return result if self.add_headers is None else self.add_headers(result, response.headers)


def weights_call(
    prompt: str | None,
    messages: Messages | None,
    inputs: Inputs | None,
    weights: Weights | None,
    preset: str | None,
) -> Call[Recommendation | tuple[Recommendation, ...]]:
    """POST /weights."""
    asked = _given(weights=_plain(weights), preset=preset)
    body = _only_one(prompt=prompt, messages=messages, inputs=inputs) | asked
    parse = _reader(Recommendation) if inputs is None else _read_batch
    return Call("POST", "/weights", body, parse)


def generate_call(prompt: str | None, options: GenerateOptions) -> Call[Generation]:
    """POST /generate."""
    return Call("POST", "/generate", _generate_body(prompt, options), _reader(Generation))


def generate_stream_call(prompt: str | None, options: GenerateOptions) -> Call[GenerationChunk]:
    """POST /generate, answered by events."""
    body = _generate_body(prompt, options) | {"stream": True}
    return Call("POST", "/generate", body, _reader(GenerationChunk))


def chat_call(
    messages: Messages, weights: Weights | None, preset: str | None, fields: Mapping[str, object]
) -> Call[ChatCompletion]:
    """POST /v1/chat/completions."""
    body = _chat_body(messages, weights, preset, fields)
    return Call("POST", "/v1/chat/completions", body, _reader(ChatCompletion), _add_ignored)


def chat_stream_call(
    messages: Messages, weights: Weights | None, preset: str | None, fields: Mapping[str, object]
) -> Call[ChatChunk]:
    """POST /v1/chat/completions, answered by events."""
    body = _chat_body(messages, weights, preset, fields) | {"stream": True}
    return Call("POST", "/v1/chat/completions", body, _reader(ChatChunk))


def objectives_call() -> Call[ServedObjectives]:
    """GET /objectives."""
    return Call("GET", "/objectives", None, _reader(ServedObjectives))


def is_ready(response: httpx.Response) -> bool:
    """The answer of GET /readyz: 503 is an answer here, not an error."""
    if response.status_code == 503:
        return False
    check_status(response)
    return True


def check_status(response: httpx.Response) -> None:
    """Raise the error that an answer stands for, if it does. The answer must have been read."""
    if not response.is_success:
        raise error_of(response.status_code, response.headers, response.content)


def ignored_fields(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Fields of the request that the gateway dropped: they change nothing. The first 20, then `...`."""
    return tuple(filter(None, headers.get("X-Preference-Ignored", "").split(", ")))


def http_settings(
    base_url: str, *, api_key: str | None, timeout: float | None
) -> tuple[httpx.URL, dict[str, str], httpx.Timeout]:
    """URL, headers and timeout for httpx. Raises ValueError for an address that cannot be one."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ValueError(f"gateway address {base_url!r}: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"gateway address {base_url!r} must look like http://host:port")
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    return url, headers, httpx.Timeout(timeout)


@contextmanager
def unreachable_as_ours(request_url: httpx.URL) -> Iterator[None]:
    """Turn httpx's transport errors into ours, naming the address and what happened."""
    address = f"{request_url.scheme}://{request_url.netloc.decode('ascii')}"
    try:
        yield
    except httpx.TimeoutException as error:
        raise ServiceUnreachable(f"{address} did not answer in time ({type(error).__name__})") from error
    except httpx.RequestError as error:
        raise ServiceUnreachable(f"cannot reach {address}: {str(error) or type(error).__name__}") from error


class StreamReader(Generic[T]):
    """Reads the bytes of a streamed answer as results."""

    def __init__(self, call: Call[T], response: httpx.Response) -> None:
        self._parse = call.parse
        self._request_id = response.headers.get("X-Request-Id")
        self._decoder = EventDecoder()

    def feed(self, received: bytes) -> Iterator[T]:
        """Results that these bytes complete. Raises PreferenceError on an error event."""
        for event in self._decoder.feed(received):
            error = stream_error(event, self._request_id)
            if error is not None:
                raise error
            yield self._parse(event)

    def finish(self) -> None:
        """The bytes have ended. Raises PreferenceError when the stream has not."""
        if not self._decoder.done:
            raise ServiceUnreachable("the stream broke off before its end", request_id=self._request_id)


def _add_ignored(answer: ChatCompletion, headers: Mapping[str, str]) -> ChatCompletion:
    return answer.model_copy(update={"ignored": ignored_fields(headers)})


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _only_one(**given: object) -> dict[str, object]:
    present = _given(**given)
    if len(present) != 1:
        raise ValueError(f"give exactly one of {', '.join(given)}; got {', '.join(present) or 'none'}")
    return {name: value if isinstance(value, str) else _plain(value) for name, value in present.items()}


def _generate_body(prompt: str | None, options: GenerateOptions) -> dict[str, object]:
    rest = {
        name: _plain(value) for name, value in options.items() if name != "messages" and value is not None
    }
    return _only_one(prompt=prompt, messages=options.get("messages")) | rest


def _chat_body(
    messages: Messages, weights: Weights | None, preset: str | None, fields: Mapping[str, object]
) -> dict[str, object]:
    asked = _given(preference_weights=_plain(weights), preference_preset=preset)
    return {"messages": _plain(messages), **fields, **asked}


def _plain(value: object) -> object:
    """Mappings as dicts and sequences as lists, which is what `json` writes."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    return value


def _reader(model: type[Model]) -> Callable[[bytes], Model]:
    def read(content: bytes) -> Model:
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            shown = content[:200].decode("utf-8", "replace")
            raise ServiceFailed(f"not the answer of a gateway: {where}: {first['msg']}: {shown}") from error

    return read


def _read_batch(content: bytes) -> tuple[Recommendation, ...]:
    return _reader(RecommendationBatch)(content).each()
