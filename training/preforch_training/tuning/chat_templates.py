"""Conversations through a tokenizer's chat template, which may refuse some."""

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from preforch_models.conversation import Message


def render(tokenizer: Any, messages: Sequence[Message], **options: Any) -> str:
    """What the template prints. Raises ValueError with the roles and the beginning of a conversation that it
    refuses: many know no system turn, some only turns that alternate."""
    turns = [message.model_dump() for message in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **options))
    except (TemplateError, TypeError) as error:
        roles = ", ".join(message.role for message in messages)
        begins = next((message.content for message in messages if message.role == "user"), "")
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path} refuses a conversation of the turns {roles}: "
            f"{error}; its first user turn is {begins!r:.80}"
        ) from error
