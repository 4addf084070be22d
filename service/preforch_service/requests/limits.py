"""How much one request may ask for.

In:  a parsed JSON body of any route, and the operator's limits.
Out: nothing, or BadRequest naming field, value and limit.

Only sizes are looked at here, and the types of numbers that have a limit; other types are checked where they
are read.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from preforch_models.objectives import Record
from pydantic import Field

from preforch_service.errors import BadRequest, TooLarge
from preforch_service.requests.anthropic import fields as anthropic
from preforch_service.requests.fields import CONSTRAINTS, TEMPLATE_SEES
from preforch_service.requests.responses import fields as responses

TEXT_FIELDS = tuple(
    dict.fromkeys(
        (
            *("messages", "prompt", "inputs", "input", "system", "functions"),
            *("stop", "stop_sequences", "bad_words", "user"),
            *(*TEMPLATE_SEES, *CONSTRAINTS, *anthropic.TEMPLATE_SEES),
            *(*responses.TEMPLATE_SEES, *responses.CONSTRAINTS),
        )
    )
)
"""Fields whose text is read by the orchestrator, printed into the prompt, or worked on by the engine."""
BAD_WORDS_CHARACTERS = 500
"""vLLM's core fails on more than 1024 tokens in all, and makes two sequences of tokens of each word."""
LIST_FIELDS = ("stop", "stop_sequences", "stop_token_ids", "bad_words")
CONVERSATIONS = ("messages", "input")
ANSWER_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
TOKEN_FIELDS = (*ANSWER_TOKENS, "min_tokens")


class RequestLimits(Record):
    """The limits of one request: sizes in bytes, characters or entries, times in seconds."""

    max_header_bytes: int = Field(
        default=32 * 2**10, ge=1024, description="request line and headers together"
    )
    max_body_bytes: int = Field(default=4 * 2**20, ge=1024, description="of the JSON, compressed or not")
    receive_timeout: float = Field(
        default=30.0, gt=0, description="for the head of a request, then for its body"
    )
    max_depth: int = Field(default=64, ge=8, le=200, description="nesting of the JSON")
    max_values: int = Field(
        default=50_000, ge=64, description="entries of lists and objects of the JSON, and these"
    )
    max_messages: int = Field(default=1024, ge=1, description="in one conversation")
    max_characters: int = Field(default=1_000_000, ge=1, description="all text of a request together")
    max_inputs: int = Field(default=256, ge=1, description="in one request to /weights")
    max_n: int = Field(default=16, ge=1, description="answers to one prompt")
    max_prompts: int = Field(
        default=32, ge=1, description="prompts of one completion that has several, n times each"
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="of one answer; default: what the policy can hold"
    )
    max_stop: int = Field(
        default=16, ge=1, description="entries of stop, stop_sequences, stop_token_ids and bad_words, each"
    )

    def check(self, body: Mapping[str, Any]) -> None:
        """Raise BadRequest for the first field that asks for too much."""
        self._check_numbers(body)
        for name in LIST_FIELDS:
            _at_most(_length(body.get(name)), self.max_stop, name, "entries")
        inputs = body.get("inputs")
        _at_most(_length(inputs), self.max_inputs, "inputs", "entries")
        for name in CONVERSATIONS:
            _at_most(_length(body.get(name)), self.max_messages, name, "entries")
        for i, messages in enumerate(inputs if isinstance(inputs, list) else ()):
            _at_most(_length(messages), self.max_messages, f"inputs[{i}]", "entries")
        self._check_prompts(body)
        self._check_characters(body)
        _at_most(
            sum(map(len, _texts(body.get("bad_words")))), BAD_WORDS_CHARACTERS, "bad_words", "characters"
        )

    def _check_numbers(self, body: Mapping[str, Any]) -> None:
        limits = {"n": self.max_n} | (
            {} if self.max_tokens is None else dict.fromkeys(TOKEN_FIELDS, self.max_tokens)
        )
        for name, limit in limits.items():
            given = body.get(name)
            if given is not None and not isinstance(given, int | float):
                # The engine would read "16" as a number.
                raise BadRequest(f"{name} must be a number, got {type(given).__name__}", param=name)
            if given is not None and given > limit:
                raise _too_much(f"{name} is {given}, at most {limit} is allowed", name)

    def _check_prompts(self, body: Mapping[str, Any]) -> None:
        prompts, n = _length(body.get("prompt")), body.get("n") or 1
        if prompts > 1 and prompts * n > self.max_prompts:
            raise _too_much(
                f"prompt has {prompts} entries, {n} answers to each; at most {self.max_prompts} answers are "
                "allowed",
                "prompt",
            )

    def _check_characters(self, body: Mapping[str, Any]) -> None:
        counts = {name: sum(map(len, _texts(body[name]))) for name in TEXT_FIELDS if name in body}
        total = sum(counts.values())
        if total > self.max_characters:
            largest = max(counts, key=lambda name: counts[name])
            message = (
                f"{' and '.join(counts)} hold {total} characters, at most {self.max_characters} are allowed"
            )
            raise _too_much(message, largest)

    def within_tokens(self, body: dict[str, Any], field: str) -> dict[str, Any]:
        """The body with the operator's limit of tokens, in this field, where the user names none."""
        named = any(body.get(name) is not None for name in ANSWER_TOKENS)
        return body if named or self.max_tokens is None else body | {field: self.max_tokens}

    def check_length(self, content_length: str | None) -> None:
        """Raise TooLarge for a body whose announced length is over the limit, before any of it is read."""
        if (
            content_length is not None
            and content_length.isdigit()
            and int(content_length) > self.max_body_bytes
        ):
            raise self.too_large(f"{int(content_length)}")

    def too_large(self, size: str) -> TooLarge:
        """The error for a body that is over the limit."""
        return TooLarge(
            f"the body has {size} bytes, at most {self.max_body_bytes} are allowed", code="body_too_large"
        )


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else 0


def _at_most(size: int, limit: int, param: str, what: str) -> None:
    if size > limit:
        raise _too_much(f"{param} has {size} {what}, at most {limit} are allowed", param)


def _too_much(message: str, param: str) -> BadRequest:
    return BadRequest(message, param=param, code="limit_exceeded")


def _texts(value: object) -> Iterator[str]:
    """All strings in a JSON value. Its depth has been checked."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        yield from value
        yield from _texts(list(value.values()))
