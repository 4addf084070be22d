"""Rows with conversations, and what a source reads of them."""

from typing import Any

from preforch_models.conversation import Message
from preforch_training.data.config import Source
from preforch_training.data.rows.pairs import read_pairs

CHATML = {"user": "<|im_start|>user\n", "assistant": "<|im_start|>assistant\n", "end": "<|im_end|>"}


def turns(*given: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(role=role, content=content) for role, content in given)


def openai(*given: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in given]


def read(row: dict[str, Any], **options: Any) -> tuple[tuple[Message, ...], str, list[str]]:
    """Prompt, chosen and rejected responses of a row."""
    found = read_pairs(row, Source.model_validate({"path": "x.jsonl", **options}), ("funny",))
    return found.prompt.messages, found.pairs[0].chosen, [pair.rejected for pair in found.pairs]


def as_chatml(conversation: list[tuple[str, str]]) -> Any:
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in conversation)
