"""The bundle's format: what is read back, and what is not a bundle."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from preforch_models.bundle import (
    BUNDLE_FILE,
    GOLDEN_FILE,
    GOLDEN_TOLERANCE,
    INT8_FILE,
    ONNX_FILE,
    TOKENIZER_FILE,
    Bundle,
    BundleInfo,
    Golden,
    Int8,
    read_bundle,
    write_bundle_files,
)
from preforch_models.conversation import Message
from preforch_models.manifest import MANIFEST, ArtifactError, Manifest, verify, write_manifest
from pydantic import ValidationError


@pytest.fixture
def copy(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle to harm."""
    return Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))


def seal(folder: Path) -> None:
    """Make the hashes right again, so that only the contents are wrong."""
    (folder / MANIFEST).unlink()
    write_manifest(folder, Manifest(kind="bundle"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / BUNDLE_FILE
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_a_bundle_is_read_back_as_it_was_written(bundle_folder: Path, bundle: Bundle) -> None:
    assert bundle == read_bundle(bundle_folder)
    assert bundle.names == bundle.info.context.objectives
    assert len(bundle.golden) > 0
    assert all(abs(sum(golden.weights.values()) - 1) < 1e-6 for golden in bundle.golden)


def test_the_revision_changes_with_any_file(bundle: Bundle, copy: Path) -> None:
    assert read_bundle(copy).revision == bundle.revision
    (copy / ONNX_FILE).write_bytes((copy / ONNX_FILE).read_bytes() + b"\0")
    seal(copy)
    assert read_bundle(copy).revision != bundle.revision


@pytest.mark.parametrize("name", [BUNDLE_FILE, ONNX_FILE, TOKENIZER_FILE, GOLDEN_FILE])
def test_a_bundle_without_one_of_its_files_is_refused_by_name(copy: Path, name: str) -> None:
    (copy / name).unlink()
    seal(copy)
    with pytest.raises(ArtifactError, match=f"{name}: missing, a bundle needs it"):
        read_bundle(copy)


@pytest.mark.parametrize("name", [BUNDLE_FILE, ONNX_FILE, TOKENIZER_FILE, GOLDEN_FILE])
def test_a_flipped_byte_in_any_file_is_found(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{name}: sha256 is"):
        read_bundle(copy)


CORRUPTIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no JSON": (lambda f: (f / BUNDLE_FILE).write_text("{", encoding="utf-8"), "Invalid JSON"),
    "another serialisation": (
        lambda f: edit(f, serialisation="oldest-first/1"),
        "serialisation: .*oldest-first/1",
    ),
    "an unknown key": (lambda f: edit(f, colour="blue"), "colour: Extra inputs"),
    "foreign fallback": (lambda f: edit(f, fallback={"a": 1.0}), "unknown objective 'a'"),
    "foreign context": (
        lambda f: edit(f, context={"objectives": ["a", "b"]}),
        "context objectives .* differ",
    ),
    "no golden prompts": (lambda f: (f / GOLDEN_FILE).write_text(""), "golden.jsonl: empty"),
    "half a golden prompt": (
        lambda f: (f / GOLDEN_FILE).write_text('{"messages": []}\n'),
        "weights: Field required",
    ),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_wrong_contents_under_right_hashes_are_an_error_that_says_what_is_wrong(
    copy: Path, corruption: str
) -> None:
    harm, message = CORRUPTIONS[corruption]
    harm(copy)
    seal(copy)
    with pytest.raises(ArtifactError, match=message):
        read_bundle(copy)


def test_an_int8_graph_and_what_is_said_of_it_come_together_or_not_at_all(copy: Path) -> None:
    assert read_bundle(copy).info.int8 is None
    (copy / INT8_FILE).write_bytes(b"graph")
    seal(copy)
    with pytest.raises(ArtifactError, match=f"{INT8_FILE}: unexpected"):
        read_bundle(copy)
    (copy / INT8_FILE).unlink()
    numbers = dict.fromkeys(set(Int8.model_fields) - {"prompts"}, 0.5)
    edit(copy, int8={"prompts": 3, **numbers})
    seal(copy)
    with pytest.raises(ArtifactError, match=f"{INT8_FILE}: missing"):
        read_bundle(copy)
    (copy / INT8_FILE).write_bytes(b"graph")
    seal(copy)
    bundle = read_bundle(copy)
    assert bundle.onnx_file("int8") == copy / INT8_FILE
    assert bundle.golden_tolerances("int8") == (0.5, 0.5)
    assert bundle.golden_tolerances("fp32") == (GOLDEN_TOLERANCE, GOLDEN_TOLERANCE)


def test_a_golden_prompt_may_hold_any_character(copy: Path) -> None:
    info = read_bundle(copy).info
    messages = (Message(role="user", content="a\u2028b\x85c\nd\x0be"),)
    golden = Golden(messages=messages, weights=info.fallback, confidence=0.5)
    write_bundle_files(copy, info, [golden])
    seal(copy)
    assert read_bundle(copy).golden == (golden,)


def test_an_artifact_of_another_kind_is_no_bundle(copy: Path) -> None:
    write_manifest(copy, Manifest(kind="scores"))
    assert verify(copy).kind == "scores"
    with pytest.raises(ArtifactError, match="this is a 'scores', expected a 'bundle'"):
        read_bundle(copy)


@pytest.mark.parametrize("field", ["fallback", "mean_weights"])
def test_fallback_and_mean_weights_must_name_every_objective(bundle: Bundle, field: str) -> None:
    values = bundle.info.model_dump() | {field: {bundle.names[0]: 1.0}}
    with pytest.raises(ValidationError, match="is missing"):
        BundleInfo.model_validate(values)
