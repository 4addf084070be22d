"""Conversations and responses as token ids of a policy.

In:  a policy folder. Out: prompt ids as the policy's own chat template renders them, response ids, and text
     again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from preforch_models.conditioning import Conditioning
from preforch_models.context import chat_template, context_tokens, parts_of, turns_of
from preforch_models.control_strings import ControlStrings
from preforch_models.conversation import Message, escaped
from preforch_models.policy_card import read_policy_card
from preforch_models.weights import round_weights, uniform
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from preforch_training.policy.turns import printed_ids
from preforch_training.tuning.chat_templates import render


def load_tokenizer(path: str | Path, *, revision: str = "main") -> PreTrainedTokenizerFast:
    """A checkpoint's tokenizer. Raises ValueError for one that has no tokenizer.json."""
    tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(
            f"{path}: the tokenizer is a {type(tokenizer).__name__}; one with a tokenizer.json is needed"
        )
    return tokenizer


def check_out_of_reach(tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise ValueError where the tokenizer makes a special token of text in which all of them are escaped."""
    special = {number: str(t) for number, t in tokenizer.added_tokens_decoder.items() if t.special}
    control = ControlStrings(special.values())
    for text in (control.escape(token) for token in special.values() if len(token) > 1):
        reached = special.keys() & set(tokenizer.encode(text, add_special_tokens=False))
        if reached:
            names = [special[number] for number in sorted(reached)]
            raise ValueError(f"the tokenizer makes the special tokens {names} of the text {text!r}")


class PolicyTokenizer:
    """Conversations and responses as the token ids of one policy; text never becomes a control token."""

    def __init__(self, folder: Path, conditioning: Conditioning | None = None) -> None:
        """`conditioning`: as if the policy had another one, for a policy that starts from this one."""
        self.card = read_policy_card(folder)
        self.tokenizer = load_tokenizer(folder)
        if conditioning is not None:
            self.card = self.card.model_copy(update={"conditioning": conditioning})
            turns = turns_of(self.tokenizer.chat_template)
            self.tokenizer.chat_template = chat_template(self.card.context_format, turns)
        self.end_id: int = self.tokenizer.eos_token_id
        self._control = ControlStrings(self.card.control_strings)

    def prompt_text(self, messages: Sequence[Message], weights: Mapping[str, float]) -> str:
        """The prompt as the policy's own chat template renders it, up to where the response begins."""
        turns = [escaped(message, self._control.escape) for message in messages]
        return render(self.tokenizer, turns, weights=dict(weights), add_generation_prompt=True)

    def prompt_ids(self, messages: Sequence[Message], weights: Mapping[str, float]) -> list[int]:
        """The same as token ids."""
        text = self.prompt_text(messages, weights)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def written_ids(self, messages: Sequence[Message], written: Sequence[str]) -> list[int]:
        """The prompt with what is written for each objective, whatever weights would ask for it."""
        context_format = self.card.context_format
        assert context_format is not None, "a policy without a context reads nothing"
        turns = [escaped(message, self._control.escape) for message in messages]
        last = max(i for i, message in enumerate(turns) if message.role == "user")
        context = "".join(f" {part}" for part in parts_of(written, context_format))
        turns[last] = turns[last].model_copy(update={"content": turns[last].content + context})
        inner = turns_of(self.tokenizer.chat_template)
        text = render(self.tokenizer, turns, chat_template=inner, add_generation_prompt=True)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def template_ids(self) -> list[int]:
        """Ids of the tokens of the context and of those that the chat template prints around turns.

        Without the one that begins a text: every pretrained model knows it.
        """
        context_format = self.card.context_format
        tokens = context_tokens(context_format) if context_format else ()
        ids = set(self.tokenizer.convert_tokens_to_ids(list(tokens)))
        ids |= printed_ids(self.tokenizer, turns_of(self.tokenizer.chat_template)) | {self.end_id}
        return sorted(ids - {self.tokenizer.bos_token_id})

    def has_room(self, messages: Sequence[Message], *, response_tokens: int) -> bool:
        """Whether a prompt leaves room for a response of that length."""
        units = self.card.context_format.units if self.card.context_format else 100
        # Weights have a fixed number of decimals, or are one token each.
        weights = round_weights(uniform(self.card.objectives), units)
        longest = self.card.context_format.longest if self.card.context_format else ()
        prompts = [
            self.prompt_ids(messages, weights),
            *(self.written_ids(messages, written) for written in longest),
        ]
        return max(map(len, prompts)) + response_tokens <= self.card.max_model_len

    def response_ids(self, response: str) -> list[int]:
        """A response without the end token."""
        ids: list[int] = self.tokenizer.encode(self._control.escape(response), add_special_tokens=False)
        return ids

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of a response; special tokens in it stay visible."""
        return str(self.tokenizer.decode(list(token_ids)))
