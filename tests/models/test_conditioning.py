"""Kinds of conditioning: which there are, which of them read weights, and how."""

import json
from pathlib import Path
from typing import Any

import pytest
from preforch_models.conditioning import Conditioning
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_models.conditioning.instruction import InstructionConditioning
from preforch_models.conditioning.mixture import MixedPolicy, MixtureConditioning
from preforch_models.conditioning.scores import ScoresConditioning
from preforch_models.context import ContextFormat, context_tokens
from preforch_models.manifest import ArtifactError
from preforch_models.policy_card import PolicyCard, check_servable
from pydantic import TypeAdapter, ValidationError

NAMES = ("humor", "helpful")
CONTEXT = ContextConditioning(encoding="levels")
FIXED = FixedConditioning()
INSTRUCTION = InstructionConditioning(descriptions={"humor": "is funny", "helpful": ""})
SCORES = ScoresConditioning(encoding="digits", mapping="l2", low=(-1.0, 0.0), high=(1.0, 2.0))
MIXTURE = MixtureConditioning(
    members={name: MixedPolicy(folder=f"../../best-{name}/round-0", revision=name[:2]) for name in NAMES}
)
WRITTEN: list[tuple[Conditioning, dict[str, Any]]] = [
    (CONTEXT, {"kind": "context", "encoding": "levels"}),
    (FIXED, {"kind": "fixed"}),
    (
        SCORES,
        {"kind": "scores", "encoding": "digits", "mapping": "l2", "low": [-1.0, 0.0], "high": [1.0, 2.0]},
    ),
    (
        INSTRUCTION,
        {
            "kind": "instruction",
            "note": "the weights are advice to a model that was not trained to follow them",
            "descriptions": {"humor": "is funny", "helpful": ""},
            "turn_marks": [],
        },
    ),
    (
        MIXTURE,
        {
            "kind": "mixture",
            "members": {
                "humor": {"folder": "../../best-humor/round-0", "revision": "hu"},
                "helpful": {"folder": "../../best-helpful/round-0", "revision": "he"},
            },
        },
    ),
]


def read(text: str) -> Conditioning:
    adapter: TypeAdapter[Conditioning] = TypeAdapter(Conditioning)
    return adapter.validate_json(text)


@pytest.mark.parametrize(("conditioning", "written"), WRITTEN, ids=[kind.kind for kind, _ in WRITTEN])
def test_a_card_holds_the_kind_and_its_settings_alone(
    conditioning: Conditioning, written: dict[str, Any]
) -> None:
    assert json.loads(conditioning.model_dump_json()) == written
    assert read(json.dumps(written)) == conditioning


def test_an_unknown_kind_is_told_which_there_are() -> None:
    known = "'context', 'scores', 'instruction', 'members', 'mixture', 'fixed'"
    with pytest.raises(ValidationError, match=f"'heads'.*: {known}"):
        read('{"kind": "heads"}')


def test_a_kind_is_never_guessed() -> None:
    with pytest.raises(ValidationError, match="discriminator 'kind'"):
        read('{"encoding": "levels"}')


def test_a_kind_says_whether_its_policy_reads_weights() -> None:
    assert [kind.reads_weights for kind in (CONTEXT, SCORES, INSTRUCTION, MIXTURE, FIXED)] == [
        *[True] * 4,
        False,
    ]


def test_only_a_policy_that_reads_a_context_has_a_format_of_it() -> None:
    assert CONTEXT.context_format(NAMES) == ContextFormat(objectives=NAMES, encoding="levels")
    assert FIXED.context_format(NAMES) is None
    assert MIXTURE.context_format(NAMES) is None
    assert context_tokens(SCORES.context_format(NAMES)) == ["<R1>", "<R2>"]


def test_a_mixture_s_members_lie_where_they_lie_from_its_folder() -> None:
    folders = MIXTURE.folders(Path("/run/policy/mod/round-0"))
    assert folders == {name: Path(f"/run/policy/best-{name}/round-0") for name in NAMES}


def test_only_a_policy_that_an_engine_can_hold_is_servable() -> None:
    card = PolicyCard(
        objectives=NAMES, conditioning=FIXED, control_strings=(), max_model_len=64, revision="r", name="mod"
    )
    check_servable(card)
    mixed = card.model_copy(update={"conditioning": MIXTURE})
    with pytest.raises(ArtifactError, match=r"policy 'mod' can be neither served .*several models at once"):
        check_servable(mixed)
