"""Conversations and responses as token ids of a policy.

In:  a policy folder. Out: prompt ids as the policy's own chat template renders them, response ids, and text
     again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from preforch_models.conditioning import Conditioning
from preforch_models.context import ControlStrings, chat_template
from preforch_models.conversation import Message
from preforch_models.policy_card import read_policy_card
from preforch_models.weights import round_weights, uniform
from transformers import AutoTokenizer, PreTrainedTokenizerFast


def load_tokenizer(path: str | Path, *, revision: str = "main") -> PreTrainedTokenizerFast:
    """A checkpoint's tokenizer. Raises ValueError for one that has no tokenizer.json."""
    tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(
            f"{path}: the tokenizer is a {type(tokenizer).__name__}; one with a tokenizer.json is needed"
        )
    return tokenizer


class PolicyTokenizer:
    """Conversations and responses as the token ids of one policy; text never becomes a control token."""

    def __init__(self, folder: Path, conditioning: Conditioning | None = None) -> None:
        """`conditioning`: as if the policy had another one, for a policy that starts from this one."""
        self.card = read_policy_card(folder)
        self.tokenizer = load_tokenizer(folder)
        if conditioning is not None:
            self.card = self.card.model_copy(update={"conditioning": conditioning})
            self.tokenizer.chat_template = chat_template(self.card.context_format)
        self.end_id: int = self.tokenizer.eos_token_id
        self._control = ControlStrings(self.card.control_strings)

    def prompt_ids(self, messages: Sequence[Message], weights: Mapping[str, float]) -> list[int]:
        """The prompt as the policy's own chat template renders it, up to where the response begins."""
        turns = [{"role": m.role, "content": self._control.escape(m.content)} for m in messages]
        text = self.tokenizer.apply_chat_template(
            turns, weights=dict(weights), add_generation_prompt=True, tokenize=False
        )
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def has_room(self, messages: Sequence[Message], *, response_tokens: int) -> bool:
        """Whether a prompt leaves room for a response of that length."""
        units = self.card.context_format.units if self.card.context_format else 100
        # Every context is as long as any other: weights have a fixed number of decimals, or are one token
        # each.
        weights = round_weights(uniform(self.card.objectives), units)
        return len(self.prompt_ids(messages, weights)) + response_tokens <= self.card.max_model_len

    def response_ids(self, response: str) -> list[int]:
        """A response without the end token."""
        ids: list[int] = self.tokenizer.encode(self._control.escape(response), add_special_tokens=False)
        return ids

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of a response; special tokens in it stay visible."""
        return str(self.tokenizer.decode(list(token_ids)))
