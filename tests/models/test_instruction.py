"""The instruction: Python and chat template write the same text, where a model's own template finds it."""

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from preforch_models.conditioning.instruction import InstructionConditioning
from preforch_models.context import turns_of
from preforch_models.instruction import MARK, Place, instruction_template, render_instruction
from preforch_models.policy_card import PolicyCard
from preforch_models.weights import WeightsError, normalise, round_weights

DESCRIPTIONS = {
    "helpful": "serves what was asked",
    "harmless": "",
    "humor": 'is "funny" {{ 1 }} %} \\d 🙂 für alle',
}
WEIGHTS = {"helpful": 0.7, "harmless": 0.29, "humor": 0.01}
TEXT = render_instruction(WEIGHTS, DESCRIPTIONS)
TURNS = """\
{%- for message in messages %}
    {{- '<' + message.role + '>' }}
    {%- if message.content is string %}{{- message.content }}
    {%- else %}{%- for part in message.content %}{{- part.text }}{%- endfor %}{%- endif %}
{%- endfor %}"""


def render(messages: list[dict[str, Any]], *, place: Place = "system", **variables: Any) -> str:
    """In the environment that transformers and vLLM give a chat template."""

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    template = environment.from_string(instruction_template(DESCRIPTIONS, TURNS, place=place))
    return template.render(messages=messages, **({"weights": WEIGHTS} | variables))


def turn(role: str, content: object) -> dict[str, Any]:
    return {"role": role, "content": content}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def test_the_text_says_the_weights_in_one_line_and_what_they_mean_in_the_next() -> None:
    line, explanation = TEXT.split("\n")
    assert line == "[preference weights] helpful 70%, harmless 29%, humor 1%"
    assert "(helpful: serves what was asked; harmless; humor: is " in explanation
    with pytest.raises(WeightsError, match=r"needs weights for .*'humor'.*got \['helpful'\]"):
        render_instruction({"helpful": 1.0}, DESCRIPTIONS)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(any), st.sampled_from([20, 100]))
def test_python_and_template_write_the_same(values: list[float], units: int) -> None:
    weights = round_weights(normalise(values, tuple(DESCRIPTIONS)), units)
    # A request may name the objectives in any order.
    given = dict(reversed(weights.items()))
    printed = render([turn("user", "Hi")], weights=given)
    assert printed == f"<system>{render_instruction(given, DESCRIPTIONS)}<user>Hi"


CONVERSATIONS: dict[str, tuple[Place, list[dict[str, Any]], str]] = {
    "no system message": (
        "system",
        [turn("user", "a"), turn("assistant", "b"), turn("user", "c")],
        f"<system>{TEXT}<user>a<assistant>b<user>c",
    ),
    "a system message": (
        "system",
        [turn("system", "Be brief."), turn("user", "a")],
        f"<system>{TEXT}\n\nBe brief.<user>a",
    ),
    "an empty one": ("system", [turn("system", ""), turn("user", "a")], f"<system>{TEXT}<user>a"),
    "a developer's": (
        "system",
        [turn("developer", "Be brief."), turn("user", "a")],
        f"<system>{TEXT}<developer>Be brief.<user>a",
    ),
    "a later one": (
        "system",
        [turn("user", "a"), turn("system", "Be brief."), turn("user", "b")],
        f"<system>{TEXT}<user>a<system>Be brief.<user>b",
    ),
    "parts": ("system", [turn("user", parts("a", "b"))], f"<system>{TEXT}<user>ab"),
    "parts of a system message": (
        "system",
        [turn("system", parts("Be ", "brief.")), turn("user", parts("a"))],
        f"<system>{TEXT}\n\nBe brief.<user>a",
    ),
    "first user turn": (
        "first",
        [turn("assistant", "z"), turn("user", "a"), turn("assistant", "b"), turn("user", "c")],
        f"<assistant>z<user>{TEXT}\n\na<assistant>b<user>c",
    ),
    "first user turn in parts": ("first", [turn("user", parts("a", "b"))], f"<user>{TEXT}\n\nab"),
    "ends with a user turn": (
        "last",
        [turn("system", "Be brief."), turn("user", "a"), turn("assistant", "b"), turn("user", "c")],
        f"<system>{TEXT}\n\nBe brief.<user>a<assistant>b<user>c",
    ),
    "ends with another": (
        "last",
        [turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("tool", "d")],
        f"<user>a<assistant>b<user>{TEXT}\n\nc<tool>d",
    ),
    "a part without text": (
        "first",
        [turn("user", [{"type": "image"}, *parts("a")])],
        f"<user>{TEXT}\n\na",
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_text_comes_first_and_what_a_user_says_below(name: str) -> None:
    place, messages, expected = CONVERSATIONS[name]
    before = [dict(message) for message in messages]
    assert render(messages, place=place) == expected
    assert messages == before


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (None, "weights are missing"),
        ({"helpful": 1.0, "harmless": 0.0}, "weight of humor is missing"),
        (WEIGHTS | {"other": 0.0}, "unknown objective other"),
    ],
)
def test_nothing_is_generated_without_weights(weights: object, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        render([turn("user", "a")], weights=weights)


@pytest.mark.parametrize("place", get_args(Place))
def test_a_conversation_needs_a_user_turn(place: Place) -> None:
    with pytest.raises(TemplateError, match="needs a user turn"):
        render([turn("system", "a")], place=place)


def test_the_models_own_template_is_found_again() -> None:
    assert turns_of(instruction_template(DESCRIPTIONS, TURNS, place="first")) == TURNS


def card(**changes: Any) -> PolicyCard:
    given = {
        "objectives": tuple(DESCRIPTIONS),
        "conditioning": InstructionConditioning(descriptions=DESCRIPTIONS, turn_marks=("[INST]",)),
        "control_strings": ("</s>", MARK, "[INST]"),
        "max_model_len": 64,
        "revision": "x",
    }
    return PolicyCard.model_validate(given | changes)


def test_a_card_says_that_weights_are_advice_and_guards_the_line() -> None:
    written = card().model_dump_json()
    assert "the weights are advice to a model that was not trained to follow them" in written
    assert PolicyCard.model_validate_json(written) == card()
    assert card().context_format is None
    with pytest.raises(ValueError, match=r"control_strings lack the mark '\[preference weights\]'"):
        card(control_strings=("</s>", "[INST]"))
    with pytest.raises(ValueError, match=r"lack the mark '\[INST\]'"):
        card(control_strings=("</s>", MARK))
    with pytest.raises(ValueError, match="conditioning names"):
        card(objectives=("helpful", "harmless"))


@pytest.mark.parametrize("text", ["two\nlines", f"is {MARK} good", "[INST]", "\u2060"])
def test_a_description_is_one_line_without_marks(text: str) -> None:
    with pytest.raises(ValueError, match="the description of 'humor' holds"):
        InstructionConditioning(descriptions=DESCRIPTIONS | {"humor": text}, turn_marks=("[INST]",))
