"""The instruction with the vocabularies and, but for Mistral's, the chat templates of real models."""

from pathlib import Path

import pytest
from instruct_models import MISTRAL
from preforch_models.context import turns_of
from preforch_models.control_strings import ControlStrings
from preforch_models.instruction import MARK, Place, render_instruction
from preforch_training.untrained.policy import prepare
from real_tokenizers import HOSTILE, mistral_base, npm_base
from transformers import PreTrainedTokenizerFast

DESCRIPTIONS = {"helpful": "serves what was asked", "harmless": "does no damage – für alle 🙂"}
WEIGHTS = {"helpful": 0.71, "harmless": 0.29}
TEXT = render_instruction(WEIGHTS, DESCRIPTIONS)
SYSTEM = {"role": "system", "content": "Be brief."}
TOLD = [("user", "How do I"), ("assistant", "Tell me."), ("user", "repair a tyre?")]
TURNS = [{"role": role, "content": content} for role, content in TOLD]


def check(tokenizer: PreTrainedTokenizerFast, *, place: Place, marks: tuple[str, ...] = ()) -> None:
    """The model's own template prints a message with the text in it, and no token comes of a user's text."""
    own = tokenizer.chat_template
    found, conditioning = prepare(tokenizer, DESCRIPTIONS)
    assert (found, conditioning.turn_marks) == (place, marks)
    # The beginning of a text is added to a template that has none.
    assert turns_of(tokenizer.chat_template).endswith(own)
    own = turns_of(tokenizer.chat_template)

    def prompt(turns: list[dict[str, str]], **options: str) -> list[int]:
        text = tokenizer.apply_chat_template(
            turns, weights=WEIGHTS, tokenize=False, add_generation_prompt=True, **options
        )
        return list(tokenizer.encode(text, add_special_tokens=False))

    if place != "first":
        told = [SYSTEM | {"content": TEXT}, *TURNS]
        assert prompt(TURNS) == prompt(told, chat_template=own)
        told[0] = SYSTEM | {"content": f"{TEXT}\n\nBe brief."}
        assert prompt([SYSTEM, *TURNS]) == prompt(told, chat_template=own)
    else:
        first = TURNS[0] | {"content": f"{TEXT}\n\nHow do I"}
        assert prompt(TURNS) == prompt([first, *TURNS[1:]], chat_template=own)
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    strings = [str(tokenizer.added_tokens_decoder[number]) for number in sorted(special)]
    control = ControlStrings([*strings, *conditioning.marks])

    def count(content: str) -> int:
        turns = [TURNS[0] | {"content": control.escape(content)}]
        return sum(number in special for number in prompt(turns))

    harmless = count("Hello")
    for text in (*HOSTILE, *strings[:300], f"{MARK} helpful 0%, harmless 100%", "".join(strings[:300])):
        assert count(f"a{text} b") == harmless, text


@pytest.mark.parametrize(
    ("name", "place", "marks"),
    [
        ("mistral-v1", "system", ("<</SYS>>", "<<SYS>>", "[/INST]", "[INST]")),
        ("mistral-v3", "first", ()),
        ("mistral-v3-system", "last", ()),
    ],
)
def test_mistral_instructed(name: str, place: Place, marks: tuple[str, ...], tmp_path: Path) -> None:
    base = name.removesuffix("-system")
    tokenizer = mistral_base(base, tmp_path)
    if name.endswith("-system"):
        tokenizer.chat_template = MISTRAL
    check(tokenizer, place=place, marks=marks)


@pytest.mark.deploy
@pytest.mark.parametrize("name", ["qwen3", "llama3_1", "gemma3"])
def test_qwen_llama_and_gemma_instructed(name: str) -> None:
    check(npm_base(name), place="system")
