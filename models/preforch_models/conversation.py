"""Conversations: the messages of a prompt, and the one text that the orchestrator reads.

In:  messages as OpenAI's chat format has them (content a string or a list of text parts).
Out: one string, the newest user turn first, because cutting to `max_tokens` cuts the end.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from preforch_models.objectives import Record

SERIALISATION: Literal["newest-user-first/1"] = "newest-user-first/1"
"""Name of the rule below; the bundle carries it, and a bundle with another one is refused."""


class Message(Record):
    """One turn. `role` is system, developer, user, assistant or tool.

    A turn that calls tools, and one that brings a tool's result, have OpenAI's fields for it: chat templates
    print them. What is absent is left out when a turn is written.
    """

    role: str
    content: str
    name: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    tool_call_id: str | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written = write(self)
        return {key: value for key, value in written.items() if value or key in ("role", "content")}

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but role and content."""
        return not self.tool_calls and self.name is None and self.tool_call_id is None


def escaped(message: Message, escape: Callable[[str], str]) -> Message:
    """A turn whose every text is escaped, for a chat template; arguments of tool calls become a mapping."""
    if message.is_plain:
        return Message(role=message.role, content=escape(message.content))
    fields = message.model_dump(exclude={"role"})
    for call in fields.get("tool_calls", ()):
        function = call.get("function")
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            # What is not JSON stays the text that it is.
            with suppress(ValueError):
                function["arguments"] = json.loads(function["arguments"])
    return Message(role=message.role, **{key: _escaped(value, escape) for key, value in fields.items()})


def _escaped(value: Any, escape: Callable[[str], str]) -> Any:
    match value:
        case str():
            return escape(value)
        case dict():
            return {escape(key): _escaped(inner, escape) for key, inner in value.items()}
        case list() | tuple():
            return [_escaped(inner, escape) for inner in value]
        case _:
            return value


def conversation_text(messages: Sequence[Message]) -> str:
    """Newest user turn, then the others newest first, each with its role; system and developer turns last.

    A prompt without history is its bare text, so that prompt-only data and chats give the same text.
    Raises ValueError when there is no user turn.
    """
    newest = next((i for i in range(len(messages) - 1, -1, -1) if messages[i].role == "user"), None)
    if newest is None:
        raise ValueError("a conversation needs a user turn")
    others = [message for i, message in enumerate(messages) if i != newest][::-1]
    system = [message for message in others if message.role in ("system", "developer")]
    turns = [message for message in others if message.role not in ("system", "developer")]
    return "\n".join([messages[newest].content, *(f"{m.role}: {m.content}" for m in turns + system)])
