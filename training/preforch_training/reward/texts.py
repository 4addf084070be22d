"""How a prompt and its response become the text that a sequence classifier reads.

In:  a form, a prompt, its response. Out: one text, or two segments, which a tokenizer joins in its own way;
     their tokens.

The forms are those of the reward models that the paper and RiC use; training/README.md has the table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from preforch_models.control_strings import ControlStrings
from preforch_models.conversation import Message, escaped

from preforch_training.records import Prompt
from preforch_training.reward.config import TextReading
from preforch_training.tuning.chat_templates import render


@dataclass(frozen=True)
class ClassifierText:
    """One text, or two segments: the second (or `keep_first`) stays whole while the other can be cut.

    `cut`: at the left, where the oldest turns are, or at the right, of a document. `has_special`: the special
    tokens are written in it.
    """

    first: str
    second: str | None = None
    keep_first: bool = False
    cut: Literal["left", "right"] = "left"
    has_special: bool = False


def classifier_texts(
    tokenizer: Any, reading: TextReading, prompts: Sequence[Prompt], responses: Sequence[str]
) -> list[ClassifierText]:
    """What a classifier reads of prompts and their responses.

    A special token in a text stays text, as in a policy's prompt. Raises ValueError for a form that the
    tokenizer lacks something for.
    """
    form = reading.text
    if form == "auto":
        form = "plain" if tokenizer.chat_template is None else "chat"
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    control, write = ControlStrings(special), _FORMS[form]

    def turn(message: Message) -> Message:
        if reading.prompt_after and message.role == "user":
            content = message.content.rpartition(reading.prompt_after)[2].strip()
            message = message.model_copy(update={"content": content})
        return escaped(message, control.escape)

    return [
        write(tokenizer, [turn(message) for message in prompt.messages], control.escape(response))
        for prompt, response in zip(prompts, responses, strict=True)
    ]


def _chat(tokenizer: Any, messages: Sequence[Message], response: str) -> ClassifierText:
    """The tokenizer's chat template, which writes the special tokens."""
    if tokenizer.chat_template is None:
        raise ValueError('text = "chat" needs a tokenizer with a chat template; this classifier\'s has none')
    turns = (*messages, Message(role="assistant", content=response))
    return ClassifierText(render(tokenizer, turns), has_special=True)


def _plain(_tokenizer: Any, messages: Sequence[Message], response: str) -> ClassifierText:
    """`role: content`, a line a turn."""
    return ClassifierText(f"{_lines(messages)}\nassistant: {response}")


def _pair(_tokenizer: Any, messages: Sequence[Message], response: str) -> ClassifierText:
    """The prompt and the response; turns before the last as in `plain`."""
    return ClassifierText(_prompt_text(messages), response)


def _pair_reversed(_tokenizer: Any, messages: Sequence[Message], response: str) -> ClassifierText:
    """The response and the prompt."""
    return ClassifierText(response, _prompt_text(messages), keep_first=True, cut="right")


def _hh(_tokenizer: Any, messages: Sequence[Message], response: str) -> ClassifierText:
    """HH-RLHF's turns up to the last `Assistant:`, which RiC puts a space before, and the response."""
    names = {"user": "Human", "assistant": "Assistant"}
    turns = "".join(
        f"\n\n{names[message.role]}: {message.content}" if message.role in names else f"\n\n{message.content}"
        for message in messages
    )
    return ClassifierText(f"{turns} \n\nAssistant:", response.strip())


def _response(_tokenizer: Any, _messages: Sequence[Message], response: str) -> ClassifierText:
    """The response alone."""
    return ClassifierText(response)


def _summary(tokenizer: Any, messages: Sequence[Message], response: str) -> ClassifierText:
    """A summary, the token that begins texts, and what it is a summary of."""
    if tokenizer.bos_token is None:
        raise ValueError('text = "summary" needs a tokenizer with a bos token; this classifier\'s has none')
    return ClassifierText(f"{response} {tokenizer.bos_token} {_prompt_text(messages)}", cut="right")


def _prompt_text(messages: Sequence[Message]) -> str:
    return messages[0].content if len(messages) == 1 else _lines(messages)


def _lines(messages: Sequence[Message]) -> str:
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


_FORMS: Mapping[str, Callable[[Any, Sequence[Message], str], ClassifierText]] = MappingProxyType(
    {
        "chat": _chat,
        "plain": _plain,
        "pair": _pair,
        "pair_reversed": _pair_reversed,
        "hh": _hh,
        "response": _response,
        "summary": _summary,
    }
)


TokenRow = Mapping[str, np.ndarray]
"""`input_ids`, and `token_type_ids` of two segments, (L,) each."""


def tokens_of(
    reading: TextReading, tokenizer: Any, prompts: Sequence[Prompt], responses: Sequence[str], max_tokens: int
) -> list[list[int]]:
    """Token ids of what a classifier reads, of at most `max_tokens`, without segments."""
    texts = classifier_texts(tokenizer, reading, prompts, responses)
    rows = token_rows(tokenizer, texts, max_tokens=max_tokens, segment_ids=False)
    return [row["input_ids"].tolist() for row in rows]


def token_rows(
    tokenizer: Any, texts: Sequence[ClassifierText], *, max_tokens: int, segment_ids: bool
) -> list[TokenRow]:
    """Token ids of texts, of at most `max_tokens`; `segment_ids`: for a model that tells segments apart."""
    groups: dict[tuple[str, str, bool, bool], list[int]] = {}
    for i, (text, strategy) in enumerate(zip(texts, _strategies(tokenizer, texts, max_tokens), strict=True)):
        groups.setdefault((strategy, text.cut, text.has_special, text.second is None), []).append(i)
    rows: dict[int, TokenRow] = {}
    for (strategy, cut, has_special, single), numbers in groups.items():
        tokenizer.truncation_side = cut
        for start in range(0, len(numbers), _TOKENISED_AT_ONCE):
            part = numbers[start : start + _TOKENISED_AT_ONCE]
            answer = tokenizer(
                [texts[i].first for i in part],
                None if single else [texts[i].second for i in part],
                truncation=strategy,
                max_length=max_tokens,
                add_special_tokens=not has_special,
                return_token_type_ids=segment_ids and not single,
                return_attention_mask=False,
            )
            for place, i in enumerate(part):
                rows[i] = {key: np.array(value[place], dtype=np.int32) for key, value in answer.items()}
    return [rows[i] for i in range(len(texts))]


_TOKENISED_AT_ONCE = 1024


def _strategies(tokenizer: Any, texts: Sequence[ClassifierText], max_tokens: int) -> list[str]:
    """Which segment is cut: the one that is not kept, or both where the kept one leaves no room for it."""
    pairs = [i for i, text in enumerate(texts) if text.second is not None]
    kept = [texts[i].first if texts[i].keep_first else str(texts[i].second) for i in pairs]
    room = max_tokens - tokenizer.num_special_tokens_to_add(pair=True)
    found = ["longest_first"] * len(texts)
    for start in range(0, len(kept), _TOKENISED_AT_ONCE):
        lengths = tokenizer(kept[start : start + _TOKENISED_AT_ONCE], add_special_tokens=False)["input_ids"]
        for i, ids in zip(pairs[start : start + _TOKENISED_AT_ONCE], lengths, strict=True):
            if len(ids) < room:
                found[i] = "only_second" if texts[i].keep_first else "only_first"
    return found
