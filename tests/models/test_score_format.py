"""Scores in the place of weights: mappings by hand, and the chat template writes the same bytes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from preforch_models.context import chat_template, context_tokens, render_context
from preforch_models.score_format import ScoreFormat, ScoreMapping
from preforch_models.weights import normalise, round_weights
from pydantic import ValidationError

NAMES = ("helpful", "harmless", "humor")
LOW, HIGH = (-1.0, -2.0, 0.0), (1.0, 2.0, 3.0)


def form(mapping: ScoreMapping = "l2", **settings: Any) -> ScoreFormat:
    given_ = {"objectives": NAMES, "low": LOW, "high": HIGH, "mapping": mapping, **settings}
    return ScoreFormat.model_validate(given_)


@pytest.mark.parametrize(
    ("mapping", "weights", "expected"),
    [
        # 0.6 and 0.8 of a vector of length 1 have the shares 0.6 and 0.8 of the way up.
        ("l2", (0.6 / 1.4, 0.8 / 1.4, 0.0), ("0.2", "1.2", "0.0")),
        ("l2", (1.0, 0.0, 0.0), ("1.0", "-2.0", "0.0")),
        # Of equal weights each has 1 / sqrt(3) = 0.577.
        ("l2", (1 / 3, 1 / 3, 1 / 3), ("0.2", "0.3", "1.7")),
        ("linf", (1.0, 0.0, 0.0), ("1.0", "-2.0", "0.0")),
        ("linf", (1 / 3, 1 / 3, 1 / 3), ("1.0", "2.0", "3.0")),
        # Three times 0.5 is more than all the way, three times 0.2 are 0.6 of it.
        ("linf", (0.5, 0.2, 0.3), ("1.0", "0.4", "2.7")),
    ],
)
def test_scores_by_hand(mapping: ScoreMapping, weights: tuple[float, ...], expected: tuple[str, ...]) -> None:
    assert form(mapping).written(dict(zip(NAMES, weights, strict=True))) == expected


def test_a_context_of_scores() -> None:
    weights = {"helpful": 1.0, "harmless": 0.0, "humor": 0.0}
    assert render_context(weights, form()) == " <R1> 1.0 <R2> -2.0 <R3> 0.0"


def test_scores_beyond_the_range_are_written_as_its_ends_and_none_as_minus_zero() -> None:
    assert form().write_scores([-9.0, 9.0, 0.04]) == ("-1.0", "2.0", "0.0")
    assert form().write_scores([-0.04, -0.0, 0.0]) == ("0.0", "0.0", "0.0")


def test_levels_have_a_token_for_every_tenth() -> None:
    tokens = context_tokens(form(encoding="levels"))
    assert tokens[:3] == ["<R1>", "<R2>", "<R3>"]
    assert tokens[3:6] == ["<R1> -1.0", "<R1> -0.9", "<R1> -0.8"]
    assert "<R1> 0.0" in tokens
    assert not [token for token in tokens if "-0.0" in token]
    assert len(tokens) == 3 + 21 + 41 + 31 == len(set(tokens))
    assert context_tokens(form()) == tokens[:3]


@given(
    st.sampled_from(["l2", "linf"]),
    st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(any),
    st.lists(st.tuples(st.integers(-99, 99), st.integers(1, 99)), min_size=3, max_size=3),
)
def test_a_template_writes_what_python_does(
    mapping: ScoreMapping, values: list[float], spans: list[tuple[int, int]]
) -> None:
    low, high = [low / 10 for low, _ in spans], [(low + span) / 10 for low, span in spans]
    context_format = form(mapping, low=low, high=high, encoding="levels")
    weights = round_weights(normalise(values, NAMES), context_format.units)
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(chat_template(context_format)).render(
        messages=[{"role": "user", "content": "Hi"}], weights=weights
    )
    written = render_context(weights, context_format)
    assert f"user\nHi{written}<|im_end|>" in text
    # Every part is a token, so that a policy of levels reads each score as one.
    parts = [f"<R{part}" for part in written.split(" <R")[1:]]
    assert set(parts) <= set(context_tokens(context_format))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": (0.0, 0.0)}, "a number for each objective"),
        ({"high": (1.0, -2.0, 3.0)}, "'harmless' go from low -2.0 to high -2.0"),
        ({"mapping": "l1"}, "'l2' or 'linf'"),
    ],
)
def test_scores_that_cannot_be_written_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        form(**settings)
