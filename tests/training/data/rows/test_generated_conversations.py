"""Generated conversations: what is accepted is what was written, whatever the form."""

import json
import re
from typing import Any

import pytest
from conversation_rows import CHATML, as_chatml, openai, read, turns
from hypothesis import given, settings
from hypothesis import strategies as st
from preforch_training.data.config import Transcript
from preforch_training.data.rows.conversations import prompt_of, split_off_response
from preforch_training.data.rows.record import BadRow

WORDS = st.text(
    st.characters(
        exclude_categories=("Cs", "Cc", "Cf", "Zs", "Zl", "Zp", "Cn", "Co", "Mn"), exclude_characters="[{'\""
    )
    | st.sampled_from(" \n"),
    min_size=1,
    max_size=30,
).map(lambda text: f"x{text}".strip())
SAFE = WORDS.filter(lambda text: not re.search(r"Human:|Assistant:|USER|ASSISTANT|<|###", text))
HISTORY = st.lists(st.tuples(SAFE, SAFE), max_size=3)


def as_openai(conversation: list[tuple[str, str]]) -> Any:
    return openai(*conversation)


def as_sharegpt(conversation: list[tuple[str, str]]) -> Any:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[role], "value": text} for role, text in conversation]


def as_parts(conversation: list[tuple[str, str]]) -> Any:
    return [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in conversation]


def as_hh(conversation: list[tuple[str, str]]) -> Any:
    names = {"user": "Human", "assistant": "Assistant"}
    return "".join(f"\n\n{names[role]}: {text}" for role, text in conversation)


FORMS = {"openai": as_openai, "sharegpt": as_sharegpt, "parts": as_parts, "hh": as_hh, "chatml": as_chatml}


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=150, deadline=None)
@given(history=HISTORY, question=SAFE, chosen=SAFE, rejected=SAFE, system=st.none() | SAFE)
def test_a_conversation_of_any_form_is_read_as_it_was_written(
    form: str, history: list[tuple[str, str]], question: str, chosen: str, rejected: str, system: str | None
) -> None:
    asked = [(role, text) for pair in history for role, text in zip(("user", "assistant"), pair, strict=True)]
    if system is not None and form not in ("hh", "chatml"):
        asked = [("system", system), *asked]
    asked.append(("user", question))
    options: dict[str, Any] = {"transcript": CHATML} if form == "chatml" else {}
    write = FORMS[form]
    sides = {
        name: write([*asked, ("assistant", text)])
        for name, text in (("chosen", chosen), ("rejected", rejected))
    }
    rows = [
        sides,
        {"prompt": write(asked), **sides},
        {"prompt": write(asked), "chosen": chosen, "rejected": rejected},
    ]
    for row in map(json.loads, map(json.dumps, rows)):
        if chosen == rejected:
            with pytest.raises(BadRow, match="the same response"):
                read(row, **options)
        else:
            assert read(row, **options) == (turns(*asked), chosen, [rejected])


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=60, deadline=None)
@given(history=HISTORY, question=SAFE, answer=SAFE)
def test_a_prompt_with_its_answer_in_it_is_never_taken(
    form: str, history: list[tuple[str, str]], question: str, answer: str
) -> None:
    asked = [(role, text) for pair in history for role, text in zip(("user", "assistant"), pair, strict=True)]
    whole = FORMS[form]([*asked, ("user", question), ("assistant", answer)])
    transcript = Transcript.model_validate(CHATML) if form == "chatml" else None
    with pytest.raises(BadRow, match="ends with an assistant turn"):
        prompt_of(whole, column="p", marks=transcript)
    prompt, response = split_off_response(whole, column="p", marks=transcript)
    assert (prompt, response) == (turns(*asked, ("user", question)), answer)
