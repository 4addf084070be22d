"""A policy of an instruct model as it is: its weights and tokenizer, our chat template around its own.

In:  a checkpoint with a chat template, objectives with descriptions.
Out: a policy folder whose conditioning is `instruction`. Weights are hard links where the file system allows,
     so that the folder of a large model takes no space; everything else is written anew, and nothing in the
     model's folder is changed.
"""

import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from preforch_models.bundle import read_bundle
from preforch_models.conditioning.instruction import InstructionConditioning
from preforch_models.control_strings import ControlStrings
from preforch_models.conversation import Message
from preforch_models.instruction import MARK, Place, instruction_template, render_instruction
from preforch_models.manifest import Manifest, write_manifest, writing
from preforch_models.objectives import Objective, check_objectives, explain
from preforch_models.policy_card import CARD_FILE
from preforch_models.weights import round_weights, uniform
from pydantic import ValidationError
from transformers import AutoConfig, PreTrainedTokenizerFast

from preforch_training.policy.base_model import match_as_written
from preforch_training.policy.checkpoint import PolicyInfo, save_policy
from preforch_training.policy.tokenizer import check_out_of_reach, load_tokenizer
from preforch_training.policy.turns import turns_for
from preforch_training.tuning.chat_templates import render

TEMPLATE_FILE = "chat_template.jinja"
_WEIGHTS = "*.safetensors"
_NO_WEIGHTS = "consolidated*"
"""The same weights once more, in Mistral's own format, which vLLM would prefer together with a tokenizer that
has no chat template."""
_SETTINGS = (
    "config.json",
    "generation_config.json",
    "*.safetensors.index.json",
    "*processor_config.json",
    "*quant*config.json",
)
_TURN_MARK = re.compile(r"\[/?[A-Z_]{3,}\]|<</?[A-Z_]{3,}>>")
"""Marks of turns that some tokenizers read as ordinary text: `[INST]`, `<<SYS>>`."""
_SAID = "blue-sky"


@dataclass(frozen=True)
class Untrained:
    """What to make. `descriptions`: of the objectives, in order. `max_model_len`: None for all that the model
    allows."""

    model: Path
    descriptions: dict[str, str]
    name: str
    max_model_len: int | None = None


def read_descriptions(given: Sequence[str]) -> dict[str, str]:
    """Of a bundle's objectives, or as they are given, `NAME=TEXT`. Raises ValueError."""
    if len(given) == 1 and "=" not in given[0]:
        return {o.name: o.description for o in read_bundle(Path(given[0])).info.objectives}
    bare = [item for item in given if "=" not in item]
    if bare:
        raise ValueError(
            f"--objectives: {bare[0]!r} has no '='; allowed is one bundle, or NAME=TEXT for each"
        )
    split = [item.partition("=") for item in given]
    try:
        objectives = [Objective(name=name, description=text.strip()) for name, _, text in split]
        return {o.name: o.description for o in check_objectives(tuple(objectives))}
    except ValidationError as error:
        raise ValueError(f"--objectives: {explain(error)}") from error


def write_policy(made: Untrained, target: Path) -> Place:
    """Make the folder; where the template puts the weights. Raises ValueError, before anything is written,
    for a model that will not do."""
    if target.exists():
        raise ValueError(f"{target}: is there already; delete it, or choose another --output")
    if not made.model.is_dir():
        raise ValueError(f"{made.model}: no such folder; a checkpoint with a chat template is needed")
    weights = [path for path in sorted(made.model.glob(_WEIGHTS)) if not path.match(_NO_WEIGHTS)]
    if not weights:
        raise ValueError(f"{made.model}: has no {_WEIGHTS}; weights in pickles are not served")
    max_model_len = made.max_model_len or _longest(made.model)
    tokenizer = load_tokenizer(made.model)
    place, conditioning = prepare(tokenizer, made.descriptions)
    with writing(target) as folder:
        for path in weights:
            _link(path.resolve(), folder / path.name)
        for pattern in _SETTINGS:
            for path in made.model.glob(pattern):
                shutil.copyfile(path, folder / path.name)
        save_policy(
            folder,
            None,
            tokenizer,
            PolicyInfo(name=made.name, kind=conditioning.kind, round=0),
            objectives=tuple(made.descriptions),
            conditioning=conditioning,
            max_model_len=max_model_len,
        )
        config = {
            "untrained": made.model.resolve().name,
            "conditioning": conditioning.model_dump(mode="json"),
        }
        write_manifest(folder, Manifest(kind="policy", config=config))
    return place


def prepare(
    tokenizer: PreTrainedTokenizerFast, descriptions: dict[str, str]
) -> tuple[Place, InstructionConditioning]:
    """Give a tokenizer our chat template, and its special tokens no look-alikes. Raises ValueError where it
    has no template, or one that prints no instruction."""
    where = tokenizer.name_or_path
    if tokenizer.chat_template is None:
        raise ValueError(f"{where}: has no chat template, so it is no instruct model")
    own = turns_for(tokenizer, "own")
    match_as_written(tokenizer)
    tokenizer.eos_token = own.end
    check_out_of_reach(tokenizer)
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    marks = sorted(set(_TURN_MARK.findall(own.template)) - set(special))
    try:
        conditioning = InstructionConditioning(descriptions=descriptions, turn_marks=tuple(marks))
    except ValidationError as error:
        raise ValueError(f"--objectives: {explain(error)}") from error
    weights = round_weights(uniform(tuple(descriptions)), 100)
    written = render_instruction(weights, descriptions)
    if (held := ControlStrings(special).find(written)) is not None:
        raise ValueError(f"--objectives: a description holds {held!r}, a special token of the model")
    told = [turns for turns in _conversations() if _prompt(tokenizer, own.template, turns) is not None]
    for place in get_args(Place):
        template = instruction_template(descriptions, own.template, place=place)
        prompts = [_prompt(tokenizer, template, turns, weights=weights) for turns in told]
        if all(prompt is not None and _is_told(prompt, written) for prompt in prompts):
            tokenizer.chat_template = template
            return place, conditioning
    raise ValueError(
        f"{where}: its chat template prints neither a system message nor the beginning of a user turn once "
        f"and as it is, in every conversation that it takes: {prompts[0]!r:.300}"
    )


def describe(folder: Path, place: Place) -> str:
    """What was made, and what to do with it."""
    stands: dict[Place, str] = {
        "system": "at the beginning of the system message",
        "last": "at the beginning of the system message, or of the last user turn where something follows it",
        "first": "at the beginning of the first user turn",
    }
    return f"""{folder}: the weights stand {stands[place]}; they are advice to an untrained model
serve it:                 preforch serve BUNDLE --policy {folder}
with a vLLM of your own:  start it with --chat-template {folder / TEMPLATE_FILE}, then
                          preforch serve BUNDLE --upstream URL --policy-card {folder / CARD_FILE}"""


def _longest(model: Path) -> int:
    """Tokens that a model can read."""
    settings = AutoConfig.from_pretrained(model).get_text_config()
    longest = getattr(settings, "max_position_embeddings", None)
    if not isinstance(longest, int):
        raise ValueError(f"{model / 'config.json'}: says no max_position_embeddings; give --max-model-len")
    return longest


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where there can be none."""
    with suppress(OSError):
        target.hardlink_to(source)
        return
    shutil.copyfile(source, target)


def _conversations() -> list[list[Message]]:
    """What chat templates treat differently: with a system message and without, one turn or more, and what
    stands at the end."""
    asked, answered = Message(role="user", content="question"), Message(role="assistant", content="answer")
    function = {"name": "look_up", "arguments": "{}"}
    call = {"id": "a12345678", "type": "function", "function": function}
    called = Message(role="assistant", content="", tool_calls=(call,))
    found = Message(role="tool", content="result", tool_call_id="a12345678")
    told = [[asked], [asked, answered, asked], [asked, answered], [asked, called, found]]
    return [[Message(role="system", content=_SAID), *turns] for turns in told] + told


def _prompt(
    tokenizer: PreTrainedTokenizerFast, template: str, turns: Sequence[Message], **variables: Any
) -> str | None:
    """What a template prints; None where it refuses the conversation."""
    try:
        return render(tokenizer, turns, chat_template=template, add_generation_prompt=True, **variables)
    except ValueError:
        return None


def _is_told(prompt: str, written: str) -> bool:
    """Whether the text is printed once, and above what a system message says."""
    return prompt.count(written) == prompt.count(MARK) == 1 and _SAID not in prompt.partition(written)[0]
