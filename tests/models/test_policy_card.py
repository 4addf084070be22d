"""The policy card: read from file or folder, and refused where it is damaged or belongs to another bundle."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from preforch_models.bundle import Bundle
from preforch_models.context import ContextFormat
from preforch_models.manifest import ArtifactError
from preforch_models.policy_card import (
    CARD_FILE,
    PolicyCard,
    check_control_strings,
    check_match,
    read_policy_card,
)
from pydantic import ValidationError

FORM = ContextFormat(objectives=("a", "b"))
CARD = PolicyCard(
    context=FORM, control_strings=("<W1>", "<W2>", "<|im_end|>"), max_model_len=64, revision="r1"
)


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
        (json.dumps(CARD.model_dump(mode="json") | {"colour": "blue"}), "colour: Extra inputs"),
        (json.dumps(CARD.model_dump(mode="json") | {"max_model_len": 3}), "max_model_len: .*16"),
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


def test_control_strings_must_hold_every_context_token() -> None:
    with pytest.raises(ValidationError, match="lack the context token '<W2>'"):
        PolicyCard(context=FORM, control_strings=("<W1>",), max_model_len=64, revision="r")
    with pytest.raises(ValidationError, match=r"lack the context token '<W1> 0\.00'"):
        PolicyCard(
            context=ContextFormat(objectives=("a", "b"), encoding="levels"),
            control_strings=("<W1>", "<W2>"),
            max_model_len=64,
            revision="r",
        )


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
        context=context_format, control_strings=strings, max_model_len=64, revision="r", name="other"
    )
    with pytest.raises(ArtifactError, match="policy 'other' do not belong together"):
        check_match(bundle, card)


NORMALIZED = {"content": "<W1>", "special": True, "normalized": True}


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
