"""Kinds of conditioning: which there are, which of them read weights, and how."""

import json
from typing import Any

import pytest
from preforch_models.conditioning import Conditioning
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_models.conditioning.scores import ScoresConditioning
from preforch_models.context import ContextFormat, context_tokens
from pydantic import TypeAdapter, ValidationError

NAMES = ("humor", "helpful")
CONTEXT = ContextConditioning(encoding="levels")
FIXED = FixedConditioning()
SCORES = ScoresConditioning(encoding="digits", mapping="l2", low=(-1.0, 0.0), high=(1.0, 2.0))
WRITTEN: list[tuple[Conditioning, dict[str, Any]]] = [
    (CONTEXT, {"kind": "context", "encoding": "levels"}),
    (FIXED, {"kind": "fixed"}),
    (
        SCORES,
        {"kind": "scores", "encoding": "digits", "mapping": "l2", "low": [-1.0, 0.0], "high": [1.0, 2.0]},
    ),
]


def read(text: str) -> Conditioning:
    adapter: TypeAdapter[Conditioning] = TypeAdapter(Conditioning)
    return adapter.validate_json(text)


@pytest.mark.parametrize(("conditioning", "written"), WRITTEN, ids=["context", "fixed", "scores"])
def test_a_card_holds_the_kind_and_its_settings_alone(
    conditioning: Conditioning, written: dict[str, Any]
) -> None:
    assert json.loads(conditioning.model_dump_json()) == written
    assert read(json.dumps(written)) == conditioning


def test_an_unknown_kind_is_told_which_there_are() -> None:
    with pytest.raises(ValidationError, match=r"'heads'.*: 'context', 'scores', 'members', 'fixed'"):
        read('{"kind": "heads"}')


def test_a_kind_is_never_guessed() -> None:
    with pytest.raises(ValidationError, match="discriminator 'kind'"):
        read('{"encoding": "levels"}')


def test_a_kind_says_whether_its_policy_reads_weights() -> None:
    assert [kind.reads_weights for kind in (CONTEXT, SCORES, FIXED)] == [True, True, False]


def test_only_a_policy_that_reads_a_context_has_a_format_of_it() -> None:
    assert CONTEXT.context_format(NAMES) == ContextFormat(objectives=NAMES, encoding="levels")
    assert FIXED.context_format(NAMES) is None
    assert context_tokens(SCORES.context_format(NAMES)) == ["<R1>", "<R2>"]
