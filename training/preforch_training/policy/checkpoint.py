"""A policy as files: safetensors, tokenizer with the chat template, `preference.json` and `policy.json`.

In:  a model, its tokenizer, a conditioning. Out: the folder that vLLM serves and the gateway knows by its
     policy card; without a model one that consists of other policies.
"""

from collections.abc import Callable
from pathlib import Path

from preforch_models.conditioning import Conditioning
from preforch_models.conditioning.members import MEMBERS_FOLDER
from preforch_models.files import write_text
from preforch_models.manifest import digest, sha256_of
from preforch_models.objectives import Record
from preforch_models.policy_card import CARD_FILE, PolicyCard, control_token_ids
from transformers import PreTrainedModel, PreTrainedTokenizerFast

POLICY_FILE = "policy.json"
Writer = Callable[[Path, PreTrainedModel | None], PolicyCard]
"""Writes a model as a policy into a folder."""


class PolicyInfo(Record):
    """`policy.json`: what made this checkpoint. `round`: 0 for the offline one; None for the base of all."""

    name: str
    kind: str
    round: int | None


def save_policy(
    folder: Path,
    model: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerFast,
    info: PolicyInfo,
    *,
    objectives: tuple[str, ...],
    conditioning: Conditioning,
    max_model_len: int,
) -> PolicyCard:
    """Write checkpoint, tokenizer, policy card and `policy.json`. The card's revision hashes all that vLLM
    reads, and the revisions of other policies that this one consists of.

    The tokenizer's chat template must be one of the conditioning: `preforch_models.context.chat_template`, or
    `preforch_models.instruction.instruction_template`. Without a model, weights may lie there already.
    """
    if model is not None:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    read = [*sorted(folder.iterdir()), *sorted((folder / MEMBERS_FOLDER).rglob("*"))]
    hashes = {path.relative_to(folder).as_posix(): sha256_of(path) for path in read if path.is_file()}
    card = PolicyCard(
        objectives=objectives,
        conditioning=conditioning,
        control_strings=(*special, *conditioning.marks),
        control_token_ids=control_token_ids(folder),
        max_model_len=max_model_len,
        revision=digest(hashes | conditioning.revisions)[:16],
        name=info.name,
    )
    write_text(folder / CARD_FILE, card.model_dump_json(indent=2) + "\n")
    write_text(folder / POLICY_FILE, info.model_dump_json(indent=2) + "\n")
    return card


def read_policy_info(folder: Path) -> PolicyInfo:
    """What made a policy."""
    return PolicyInfo.model_validate_json((folder / POLICY_FILE).read_text(encoding="utf-8"))
