"""Conversations: the messages of a prompt, and the one text that the orchestrator reads.

In:  messages as OpenAI's chat format has them (content a string or a list of text parts).
Out: one string, the newest user turn first, because cutting to `max_tokens` cuts the end.
"""

from collections.abc import Sequence
from typing import Literal

from preforch_models.objectives import Record

SERIALISATION: Literal["newest-user-first/1"] = "newest-user-first/1"
"""Name of the rule below; the bundle carries it, and a bundle with another one is refused."""


class Message(Record):
    """One turn. `role` is system, developer, user, assistant or tool."""

    role: str
    content: str


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
