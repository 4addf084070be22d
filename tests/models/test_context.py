"""The context: Python and chat template print the same bytes, and no user text becomes a control token."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Template
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from preforch_models.context import (
    UNITS,
    ContextFormat,
    Encoding,
    begin_with,
    chat_template,
    context_tokens,
    objective_tokens,
    parse_context,
    render_context,
    turns_of,
)
from preforch_models.control_strings import ControlStrings
from preforch_models.weights import Weights, WeightsError, normalise, round_weights
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

NAMES = ("helpful", "harmless", "humor")
FORM = ContextFormat(objectives=NAMES)
EVEN = {"helpful": 0.34, "harmless": 0.33, "humor": 0.33}
QUESTION = [{"role": "user", "content": "Hi"}]


@st.composite
def rounded(draw: st.DrawFn) -> tuple[ContextFormat, Weights]:
    """A context format and weights on its grid."""
    names = tuple(f"o{i}" for i in range(draw(st.integers(2, 16))))
    encoding: Encoding = draw(st.sampled_from(list(UNITS)))
    values = draw(st.lists(st.floats(0, 1), min_size=len(names), max_size=len(names)).filter(any))
    context_format = ContextFormat(objectives=names, encoding=encoding)
    return context_format, round_weights(normalise(values, names), context_format.units)


@cache
def template(context_format: ContextFormat | None, turns: str | None = None) -> Template:
    """The chat template in the environment that transformers and vLLM give it."""

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(chat_template(context_format, turns))


def render(context_format: ContextFormat | None, messages: list[dict[str, Any]], **variables: Any) -> str:
    return template(context_format).render(messages=messages, **variables)


def byte_tokenizer(special: list[str]) -> Tokenizer:
    """A byte-level tokenizer that knows special tokens and single bytes, nothing else."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


# Rendering and parsing.


def test_a_context_is_written_as_in_the_paper() -> None:
    assert render_context(EVEN, FORM) == " <W1> 0.34 <W2> 0.33 <W3> 0.33"


@given(rounded())
def test_what_is_rendered_is_parsed_back_exactly(case: tuple[ContextFormat, Weights]) -> None:
    context_format, weights = case
    assert (
        parse_context("any text <W1> 0.50" + render_context(weights, context_format), context_format)
        == weights
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no context",
        " <W1> 0.34 <W2> 0.33",
        " <W1> 0.34 <W2> 0.33 <W3> 0.33.",
        " <W1> 0.3 <W2> 0.3 <W3> 0.4",
    ],
)
def test_a_text_that_does_not_end_with_a_context_cannot_be_parsed(text: str) -> None:
    with pytest.raises(ValueError, match="does not end with a context"):
        parse_context(text, FORM)


@pytest.mark.parametrize("weights", [{}, {"helpful": 1.0}, {**EVEN, "honest": 0.0}])
def test_a_context_needs_exactly_the_objectives_of_its_format(weights: Weights) -> None:
    with pytest.raises(WeightsError, match="context needs weights for"):
        render_context(weights, FORM)


def test_a_context_of_weights_that_are_not_rounded_to_one_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"sum to exactly 1\.00"):
        render_context({"helpful": 0.5, "harmless": 0.5, "humor": 0.01}, FORM)


def test_the_context_adds_one_token_per_objective_and_in_levels_one_per_level_too() -> None:
    assert context_tokens(FORM) == ["<W1>", "<W2>", "<W3>"]
    levels = context_tokens(ContextFormat(objectives=NAMES, encoding="levels"))
    assert levels[:5] == ["<W1>", "<W2>", "<W3>", "<W1> 0.00", "<W1> 0.05"]
    assert levels[-1] == "<W3> 1.00"
    assert len(set(levels)) == 3 + 3 * 21


# The chat template.


@given(rounded())
def test_template_and_python_are_byte_identical(case: tuple[ContextFormat, Weights]) -> None:
    context_format, weights = case
    text = render(context_format, QUESTION, weights=weights, add_generation_prompt=True)
    assert (
        text
        == f"<|im_start|>user\nHi{render_context(weights, context_format)}<|im_end|>\n<|im_start|>assistant\n"
    )


@given(st.integers(0, 100), st.integers(0, 100))
def test_template_and_python_agree_on_the_whole_grid(first: int, second: int) -> None:
    second = min(second, 100 - first)
    weights = {"helpful": first / 100, "harmless": second / 100, "humor": (100 - first - second) / 100}
    assert render_context(weights, FORM) in render(FORM, QUESTION, weights=weights)


@settings(max_examples=20)
@given(rounded())
def test_a_real_tokenizer_renders_the_same_bytes(case: tuple[ContextFormat, Weights]) -> None:
    context_format, weights = case
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer(["<|im_start|>", "<|im_end|>"]))
    tokenizer.chat_template = chat_template(context_format)
    text = tokenizer.apply_chat_template(
        QUESTION, tokenize=False, add_generation_prompt=True, weights=weights
    )
    assert (
        text
        == f"<|im_start|>user\nHi{render_context(weights, context_format)}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_order_of_the_given_weights_does_not_matter() -> None:
    assert render(FORM, QUESTION, weights=EVEN) == render(
        FORM, QUESTION, weights=dict(reversed(EVEN.items()))
    )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "weights are missing: a mapping with helpful, harmless, humor"),
        ({"weights": None}, "weights are missing"),
        ({"weights": [0.34, 0.33, 0.33]}, "weights are missing"),
        ({"weights": {"helpful": 0.5, "harmless": 0.5}}, "weight of humor is missing"),
        ({"weights": {}}, "weight of helpful is missing"),
        ({"weights": {**EVEN, "honest": 0.0}}, "unknown objective honest"),
    ],
)
def test_the_template_raises_without_weights_and_on_a_missing_or_unknown_name(
    variables: dict[str, Any], message: str
) -> None:
    with pytest.raises(TemplateError, match=message):
        render(FORM, QUESTION, **variables)


def test_the_template_raises_on_a_conversation_without_a_user_turn() -> None:
    with pytest.raises(TemplateError, match="needs a user turn"):
        render(FORM, [{"role": "system", "content": "s"}], weights=EVEN)


def test_the_context_sits_on_the_last_user_turn_also_after_tool_results() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "old"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "new"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "rain"},
    ]
    assert render(FORM, messages, weights=EVEN) == (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nold<|im_end|>\n"
        "<|im_start|>assistant\na<|im_end|>\n"
        "<|im_start|>user\nnew <W1> 0.34 <W2> 0.33 <W3> 0.33<|im_end|>\n"
        "<|im_start|>assistant\n<|im_end|>\n<|im_start|>tool\nrain<|im_end|>\n"
    )


@pytest.mark.parametrize("variables", [{}, {"weights": EVEN}, {"weights": {"other": 2}}, {"weights": "none"}])
@pytest.mark.parametrize("parts", [False, True])
def test_without_a_context_the_template_prints_the_same_but_for_the_weights_whatever_they_are(
    variables: dict[str, Any], parts: bool
) -> None:
    new: object = [{"type": "text", "text": "ne"}, {"type": "text", "text": "w"}] if parts else "new"
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "old"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": new},
        {"role": "tool", "content": "rain"},
    ]
    with_context = render(FORM, messages, weights=EVEN, add_generation_prompt=True)
    assert render(None, messages, add_generation_prompt=True, **variables) == with_context.replace(
        render_context(EVEN, FORM), ""
    )


def test_text_parts_are_joined_as_the_orchestrator_joins_them() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    joined = render(FORM, [{"role": "user", "content": parts}], weights=EVEN)
    assert joined == render(FORM, [{"role": "user", "content": "a b"}], weights=EVEN)


@given(st.text())
def test_content_is_printed_as_it_is(content: str) -> None:
    expected = f"<|im_start|>user\n{content}{render_context(EVEN, FORM)}<|im_end|>\n"
    assert render(FORM, [{"role": "user", "content": content}], weights=EVEN) == expected


# Turns of other templates.

OWN_TURNS = {
    "literal": "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}",
    "first text": " \n  {% for m in messages %}\n  {{ m['content'] }}\n {% endfor %} \n",
    "trims": "{{ '<s>' }}{% for m in messages %}{{ m['content'] | trim }}{{- m.role.strip() }}{% endfor %}",
    "looks around": (
        "{%- set ns = namespace(last='') %}{% if messages[0]['role'] == 'system' %}S{{ messages[0].content }}"
        "{% set messages = messages[1:] %}{% endif %}"
        "{% set users = messages | selectattr('role', 'equalto', 'user') | list %}"
        "{% for m in messages %}{% if loop.previtem is defined and loop.previtem.role == m.role %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{% if m == users[-1] %}LAST{% endif %}"
        "{{ m.content }}{% endfor %}{{ tools | tojson if tools }}{{ messages[-1].content }}"
    ),
    "parts": (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for part in m.content %}{{ part.text | trim }}{% endfor %}{% endif %}{% endfor %}"
    ),
}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " old "},
    {"role": "assistant", "content": "a"},
    {"role": "user", "content": "new\n"},
]


@pytest.mark.parametrize("name", OWN_TURNS)
@pytest.mark.parametrize(
    "messages", [QUESTION, CONVERSATION, [*CONVERSATION, {"role": "tool", "content": "r"}]]
)
def test_own_turns_print_a_user_turn_that_ends_with_the_context(
    name: str, messages: list[dict[str, Any]]
) -> None:
    turns, variables = OWN_TURNS[name], {"add_generation_prompt": True, "tools": [{"name": "rain"}]}
    last = max(i for i, message in enumerate(messages) if message["role"] == "user")
    told = [dict(message) for message in messages]
    told[last]["content"] += render_context(EVEN, FORM)
    printed = template(FORM, turns).render(messages=messages, weights=EVEN, **variables)
    assert printed == template(None, turns).render(messages=told, **variables)
    assert render_context(EVEN, FORM) in printed


def test_own_turns_still_refuse_what_they_refuse() -> None:
    twice = [*QUESTION, *QUESTION]
    with pytest.raises(TemplateError, match="roles must alternate"):
        template(FORM, OWN_TURNS["looks around"]).render(messages=twice, weights=EVEN)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "text", "text": "a"}, {"type": "image"}], "a"),
        ([], ""),
    ],
)
def test_the_context_ends_the_last_part_of_a_content_in_parts(
    parts: list[dict[str, str]], expected: str
) -> None:
    printed = template(FORM, OWN_TURNS["parts"]).render(
        messages=[{"role": "user", "content": parts}], weights=EVEN
    )
    assert printed.replace(" ", "") == (expected + render_context(EVEN, FORM)).replace(" ", "")


def test_the_turns_of_a_template_can_be_taken_out_and_put_to_another_use() -> None:
    for turns in [*OWN_TURNS.values(), chat_template(None)]:
        assert turns_of(chat_template(FORM, turns)) == turns
        assert turns_of(chat_template(None, turns)) == turns


def test_a_beginning_stands_before_the_turns_and_changes_nothing_else() -> None:
    for turns in OWN_TURNS.values():
        alone = template(None, turns).render(messages=CONVERSATION)
        begun = begin_with('<\uff5c"s">', turns)
        assert template(None, begun).render(messages=CONVERSATION) == '<\uff5c"s">' + alone
        assert turns_of(chat_template(FORM, begun)) == begun


# Control strings.

CONTROL = ["<W1>", "<W1> 0.70", "<W2>", "<|im_end|>", "<|im_start|>", "[INST]", "</s>", "ab", "abc", "abab"]
hostile = st.lists(
    st.one_of(st.sampled_from(CONTROL), st.text(alphabet="<>W1|[]abc#\u2060 0.7", max_size=4))
).map("".join)


def test_the_first_control_string_is_found_and_the_longest_at_its_place() -> None:
    control = ControlStrings(CONTROL)
    assert control.find("see <W1> 0.70 <|im_end|>") == "<W1> 0.70"
    assert control.find("see <W1> 0.7") == "<W1>"
    assert control.find("see <W3>") is None


def test_escaped_text_reads_the_same() -> None:
    assert ControlStrings(CONTROL).escape("x <W1> 0.70 y").replace("\u2060", "") == "x <W1> 0.70 y"


def test_text_without_control_strings_is_not_touched() -> None:
    assert ControlStrings(CONTROL).escape("5 < 7 and W1 > 3") == "5 < 7 and W1 > 3"


def test_without_control_strings_nothing_is_found_or_changed() -> None:
    control = ControlStrings([])
    assert control.find("<W1>") is None
    assert control.escape("<W1>") == "<W1>"


def test_a_token_that_begins_inside_another_one_is_defused_too() -> None:
    assert ControlStrings(["abab"]).find(ControlStrings(["abab"]).escape("ababab")) is None


def test_a_control_string_that_holds_the_joiner_is_refused() -> None:
    with pytest.raises(ValueError, match="U\\+2060"):
        ControlStrings(["<W1>", "<\u2060W1>"])


def test_a_token_that_begins_another_one_and_one_that_lies_inside_are_both_found() -> None:
    control = ControlStrings(["ab", "abcd", "bc"])
    assert [control.find(text) for text in ("xabcdx", "xabcx", "xbcd")] == ["abcd", "ab", "bc"]
    assert control.escape("abcd") == "a\u2060b\u2060cd"


def test_many_tokens_with_a_common_beginning_are_told_apart() -> None:
    control = ControlStrings(f"<|reserved_special_token_{i}|>" for i in range(1000))
    assert control.find("<|reserved_special_token_1000|>" * 3) is None
    assert (
        control.find("<|reserved_special_token_<|reserved_special_token_999|>")
        == "<|reserved_special_token_999|>"
    )


def test_a_special_token_of_one_character_is_ordinary_text() -> None:
    control = ControlStrings(["!", "</s>"])
    assert control.find("Hi!") is None
    assert control.escape("Hi!</s>!") == "Hi!<\u2060/s>!"


@given(hostile)
def test_escaped_text_holds_no_control_string_and_escaping_again_changes_nothing(text: str) -> None:
    control = ControlStrings(CONTROL)
    escaped = control.escape(text)
    assert control.find(escaped) is None
    assert control.escape(escaped) == escaped


@pytest.fixture(scope="module")
def encode() -> Callable[[str], tuple[list[int], set[int]]]:
    """Text -> (ids, ids of special tokens) by a real tokenizer."""
    special = CONTROL + objective_tokens(16)
    tokenizer = byte_tokenizer(special)
    ids = {tokenizer.encode(token, add_special_tokens=False).ids[0] for token in special}
    assert len(ids) == len(set(special))
    return lambda text: (tokenizer.encode(text, add_special_tokens=False).ids, ids)


@given(text=hostile)
def test_no_tokenizer_sees_a_special_token_in_escaped_text(
    encode: Callable[[str], tuple[list[int], set[int]]], text: str
) -> None:
    control = ControlStrings([*CONTROL, *objective_tokens(16)])
    ids, special = encode(text)
    # The tokenizer and the search agree on what is dangerous, so the next line cannot hold for want of an
    # attack.
    assert bool(special & set(ids)) == (control.find(text) is not None)
    ids, special = encode(control.escape(text))
    assert not special & set(ids)
