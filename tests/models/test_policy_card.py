"""The policy card: read from file or folder, and refused where it is damaged or belongs to another bundle."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from preforch_models.bundle import Bundle
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_models.context import ContextFormat
from preforch_models.manifest import ArtifactError
from preforch_models.policy_card import (
    CARD_FILE,
    PolicyCard,
    check_control_strings,
    check_match,
    control_token_ids,
    parse_policy_card,
    read_policy_card,
)
from pydantic import ValidationError

CARD = PolicyCard(
    objectives=("a", "b"),
    conditioning=ContextConditioning(encoding="digits"),
    control_strings=("<W1>", "<W2>", "<|im_end|>"),
    max_model_len=64,
    revision="r1",
)
FIXED = PolicyCard(
    objectives=("a", "b"),
    conditioning=FixedConditioning(),
    control_strings=("<|im_end|>",),
    max_model_len=64,
    revision="r2",
    name="dpo",
)
# As written before there were kinds of conditioning.
FORMAT_1: dict[str, object] = {
    "context": {"objectives": ["a", "b"], "encoding": "digits"},
    "control_strings": ["<W1>", "<W2>", "<|im_end|>"],
    "max_model_len": 64,
    "revision": "r1",
    "name": "policy",
}


def changed(card: PolicyCard, **fields: object) -> str:
    """The JSON of a card in which some fields are others."""
    return json.dumps(card.model_dump(mode="json") | fields)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / CARD_FILE).write_text(CARD.model_dump_json(), encoding="utf-8")
    return tmp_path


def test_a_card_is_read_from_its_file_and_from_its_folder(folder: Path) -> None:
    assert read_policy_card(folder) == read_policy_card(folder / CARD_FILE) == CARD


def test_a_card_that_is_not_there_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=f"{CARD_FILE}: cannot be read: No such file"):
        read_policy_card(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid JSON"),
        ("", "Invalid JSON"),
        ("[]", "valid dictionary|object"),
        ("{}", "context: Field required"),
        (changed(CARD, colour="blue"), "colour: Extra inputs"),
        (changed(CARD, max_model_len=3), "max_model_len: .*16"),
        (json.dumps(FORMAT_1 | {"max_model_len": 3}), "max_model_len: .*16"),
        (json.dumps(FORMAT_1 | {"objectives": ["a"]}), "objectives: Extra inputs"),
        (changed(CARD, format_version=3), "format_version 3 is not known; known are 2, and 1"),
        (changed(CARD, format_version="new"), "format_version: .*integer"),
        (
            changed(CARD, conditioning={"kind": "heads"}),
            "conditioning: .*'heads'.*'members', 'mixture', 'fixed'",
        ),
        (changed(CARD, conditioning={"encoding": "digits"}), "conditioning: .*discriminator 'kind'"),
        (changed(CARD, conditioning={"kind": "context"}), "conditioning.context.encoding: Field required"),
        (changed(FIXED, conditioning={"kind": "fixed", "encoding": "digits"}), "encoding: Extra inputs"),
    ],
)
def test_a_damaged_card_is_an_error_that_names_file_and_field(folder: Path, text: str, message: str) -> None:
    (folder / CARD_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"{CARD_FILE}: .*({message})"):
        read_policy_card(folder)


def test_a_card_that_is_no_text_is_an_error_that_names_the_file(folder: Path) -> None:
    (folder / CARD_FILE).write_bytes(b"\xff\xfe{")
    with pytest.raises(ArtifactError, match=CARD_FILE):
        read_policy_card(folder)


@pytest.mark.parametrize("card", [CARD, FIXED])
def test_what_is_written_is_format_2_and_is_read_back(tmp_path: Path, card: PolicyCard) -> None:
    text = card.model_dump_json()
    assert json.loads(text)["format_version"] == 2
    (tmp_path / CARD_FILE).write_text(text, encoding="utf-8")
    assert read_policy_card(tmp_path) == card


def test_a_card_of_format_1_becomes_the_same_card_of_format_2() -> None:
    assert parse_policy_card(json.dumps(FORMAT_1).encode()) == CARD
    strings = [f"<W{k}>" for k in (1, 2)] + [f"<W{k}> {n / 20:.2f}" for k in (1, 2) for n in range(21)]
    levels = FORMAT_1 | {
        "context": {"objectives": ["a", "b"], "encoding": "levels"},
        "control_strings": strings,
    }
    card = parse_policy_card(json.dumps(levels).encode())
    assert card.conditioning == ContextConditioning(encoding="levels")
    assert card.context_format == ContextFormat(objectives=("a", "b"), encoding="levels")


def test_only_a_policy_that_reads_a_context_has_a_context_format() -> None:
    assert CARD.context_format == ContextFormat(objectives=("a", "b"), encoding="digits")
    assert FIXED.context_format is None


def test_control_strings_must_hold_every_context_token() -> None:
    with pytest.raises(ValidationError, match="lack the context token '<W2>'"):
        PolicyCard.model_validate_json(changed(CARD, control_strings=["<W1>"]))
    levels = {"kind": "context", "encoding": "levels"}
    with pytest.raises(ValidationError, match=r"lack the context token '<W1> 0\.00'"):
        PolicyCard.model_validate_json(changed(CARD, conditioning=levels))
    one_token = FORMAT_1 | {"control_strings": ["<W1>"]}
    with pytest.raises(ValidationError, match="lack the context token '<W2>'"):
        parse_policy_card(json.dumps(one_token).encode())


def test_a_policy_that_reads_what_the_bundle_writes_matches(bundle: Bundle, run_folder: Path) -> None:
    check_match(bundle, read_policy_card(run_folder / "policy" / "wic" / "round-0"))


@pytest.mark.parametrize(
    "change", [{"encoding": "levels"}, {"objectives": ("a", "b", "c")}, {"order": "reversed"}]
)
def test_a_policy_with_other_objectives_another_order_or_encoding_is_refused(
    bundle: Bundle, change: dict[str, object]
) -> None:
    if "order" in change:
        change = {"objectives": bundle.names[::-1]}
    context_format = ContextFormat.model_validate(bundle.info.context.model_dump() | change)
    strings = tuple(f"<W{k}>" for k in (1, 2, 3)) + tuple(
        f"<W{k}> {level / 20:.2f}" for k in (1, 2, 3) for level in range(21)
    )
    card = PolicyCard(
        objectives=context_format.objectives,
        conditioning=ContextConditioning(encoding=context_format.encoding),
        control_strings=strings,
        max_model_len=64,
        revision="r",
        name="other",
    )
    with pytest.raises(ArtifactError, match="policy 'other' do not belong together"):
        check_match(bundle, card)


def test_a_fixed_policy_needs_the_objectives_of_the_bundle_and_no_context(bundle: Bundle) -> None:
    check_match(bundle, FIXED.model_copy(update={"objectives": bundle.names}))
    for objectives in (("a", "b"), bundle.names[::-1]):
        with pytest.raises(ArtifactError, match="policy 'dpo' do not belong together: the objectives are"):
            check_match(bundle, FIXED.model_copy(update={"objectives": objectives}))


NORMALIZED = {"id": 7, "content": "<W1>", "special": True, "normalized": True}


@pytest.mark.parametrize(
    ("token", "normalizer", "refused"),
    [
        (NORMALIZED, {"type": "NFKC"}, True),
        (NORMALIZED, None, False),
        (NORMALIZED | {"normalized": False}, {"type": "NFKC"}, False),
        (NORMALIZED | {"content": "<think>", "special": False}, {"type": "NFKC"}, False),
    ],
)
def test_special_tokens_with_look_alikes_are_refused(
    tmp_path: Path, token: dict[str, object], normalizer: dict[str, object] | None, refused: bool
) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({"added_tokens": [token], "normalizer": normalizer}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="look-alikes") if refused else nullcontext():
        check_control_strings(tmp_path, CARD)


SPECIAL = {
    token: {"id": number, "content": token, "special": special}
    for number, (token, special) in enumerate(
        {"<|endoftext|>": True, "<|im_end|>": True, "<think>": False, "<W2>": True, "<W1>": True}.items()
    )
}


@pytest.mark.parametrize(
    ("settings", "generation", "expected"),
    [
        (None, None, (0, 1, 3, 4)),
        ({"eos_token": "<|im_end|>"}, None, (0, 3, 4)),
        ({"eos_token": {"content": "<|im_end|>"}}, {"eos_token_id": None}, (0, 3, 4)),
        ({}, {"eos_token_id": [1, 0]}, (3, 4)),
        ({"eos_token": None}, {"eos_token_id": 1}, (0, 3, 4)),
    ],
)
def test_control_tokens_are_the_special_ones_at_which_no_answer_ends(
    tmp_path: Path, settings: object, generation: object, expected: tuple[int, ...]
) -> None:
    files = {"tokenizer": {"added_tokens": list(SPECIAL.values())}, "tokenizer_config": settings}
    for name, content in (files | {"generation_config": generation}).items():
        if content is not None:
            (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    assert control_token_ids(tmp_path) == expected
    card = CARD.model_copy(update={"control_strings": tuple(SPECIAL), "control_token_ids": expected})
    check_control_strings(tmp_path, card)
    check_control_strings(tmp_path, card.model_copy(update={"control_token_ids": (*expected, 99)}))
    check_control_strings(tmp_path, card.model_copy(update={"control_token_ids": None}))
    with pytest.raises(ArtifactError, match="control_token_ids lack 4, a special token"):
        check_control_strings(tmp_path, card.model_copy(update={"control_token_ids": expected[:-1]}))


def test_a_policy_of_a_run_has_the_ids_of_its_context_on_its_card(run_folder: Path) -> None:
    folder = run_folder / "policy" / "wic" / "round-0"
    card = read_policy_card(folder)
    tokens = {
        t["content"]: t["id"] for t in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    }
    assert card.control_token_ids is not None
    assert {tokens[f"<W{k}>"] for k in (1, 2, 3)} <= set(card.control_token_ids)
    assert tokens["<|im_end|>"] not in card.control_token_ids
