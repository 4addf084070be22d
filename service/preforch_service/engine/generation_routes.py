"""The engine's routes that requests end at: one line for each in this table.

In:  an engine's event, an error, a request's id. Out: where the `preference` object goes, how a stream ends
     that breaks off, which fields the gateway sets.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from preforch_service.engine.relay import DONE, event
from preforch_service.errors import ApiError, anthropic_error, error_body

_SEQUENCE_NUMBER = re.compile(rb'"sequence_number":\s*(\d+)')


def _chat_end(error: ApiError, _last: bytes) -> bytes:
    return event(error_body(error)) + DONE


def _responses_end(error: ApiError, last: bytes) -> bytes:
    """OpenAI's event `error`. Its clients look for the fields in it, or in an object `error`."""
    numbers = _SEQUENCE_NUMBER.findall(last)
    nested = error_body(error)
    flat = {name: nested["error"][name] for name in ("code", "message", "param")}
    number = int(numbers[-1]) + 1 if numbers else 0
    return b"event: error\n" + event({"type": "error", "sequence_number": number, **flat, **nested})


def _messages_end(error: ApiError, _last: bytes) -> bytes:
    return b"event: error\n" + event(anthropic_error(error))


def _has_choices(data: Mapping[str, Any]) -> bool:
    return bool(data.get("choices"))


@dataclass(frozen=True)
class GenerationRoute:
    """One route.

    `carries`: whether an event is the one that gets the preference object, in the object under `inside` where
    that is given. `end`: the events that tell of a failure, after the piece that came last.

    `refuses_calls`: whether the engine itself refuses tools that may be called where it has no parser for
    calls.

    `token_limit`: the field that bounds the answer. `identified`: whether the body has a field for the
    request's id (else a header holds it), which begins with `prefix`; `salted`: whether it has one for the
    salt of the prefix cache. `fixed`: fields that are the same for everybody.
    """

    path: str
    carries: Callable[[Mapping[str, Any]], bool] = _has_choices
    inside: str | None = None
    end: Callable[[ApiError, bytes], bytes] = _chat_end
    refuses_calls: bool = True
    token_limit: str | None = "max_tokens"
    identified: bool = True
    prefix: str = ""
    salted: bool = True
    fixed: Mapping[str, object] = field(default_factory=dict)

    def ours(self, request_id: str, salt: str | None) -> dict[str, object]:
        """Fields of the engine's body that are the gateway's to set."""
        identity = {"request_id": self.prefix + request_id} if self.identified else {}
        return {**self.fixed, **identity, **({"cache_salt": salt} if self.salted and salt else {})}

    def headers(self, request_id: str) -> dict[str, str]:
        """Headers for the engine."""
        return {} if self.identified else {"X-Request-Id": request_id}


CHAT = GenerationRoute("/v1/chat/completions")
COMPLETIONS = GenerationRoute("/v1/completions")
RESPONSES = GenerationRoute(
    "/v1/responses",
    carries=lambda data: data.get("type") == "response.created",
    inside="response",
    end=_responses_end,
    refuses_calls=False,
    token_limit="max_output_tokens",
    # The engine makes it the id of the response, and clients know those by it.
    prefix="resp_",
    fixed={"store": False},
)
MESSAGES = GenerationRoute(
    "/v1/messages",
    carries=lambda data: data.get("type") == "message_start",
    inside="message",
    end=_messages_end,
    identified=False,
)
COUNT_TOKENS = GenerationRoute("/v1/messages/count_tokens", token_limit=None, identified=False, salted=False)
