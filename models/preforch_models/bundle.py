"""The bundle: everything the service needs to recommend weights.

No torch, no ONNX Runtime here, only the format.

Folder: `manifest.json` (hashes), `bundle.json` (below), `orchestrator.onnx` (input_ids, attention_mask (B, L)
int64 -> weights (B, K) float32, softmax and shrinkage inside, and confidence (B,) float32), perhaps
`orchestrator.int8.onnx` (the same graph in 8 bits), `tokenizer.json`, `golden.jsonl` (prompts with the
weights and the confidence expected of them).
"""

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from preforch_models.calibration import Calibration
from preforch_models.context import ContextFormat
from preforch_models.conversation import SERIALISATION, Message
from preforch_models.manifest import ArtifactError, digest, verify
from preforch_models.objectives import Objectives, Record, explain, names_of
from preforch_models.weights import Weights, normalise

BUNDLE_FILE = "bundle.json"
ONNX_FILE = "orchestrator.onnx"
INT8_FILE = "orchestrator.int8.onnx"
TOKENIZER_FILE = "tokenizer.json"
GOLDEN_FILE = "golden.jsonl"
OUTPUTS = ("weights", "confidence")
"""What the graph gives, in order."""
GOLDEN_TOLERANCE = 1e-3
"""Largest difference between a golden answer and its replay: float noise of other machines and runtime
versions."""

Precision = Literal["fp32", "int8"]

R = TypeVar("R", bound=Record)


class Int8(Record):
    """How far `orchestrator.int8.onnx` is from `orchestrator.onnx`, over golden and other held-out prompts.

    8 bits scale all activations of a batch alike, so an answer also depends on its batch: each prompt was
    measured alone and among others. `tolerance` and `confidence_tolerance` are for replays of the golden
    prompts.
    """

    prompts: int = Field(ge=1)
    largest_difference: float = Field(ge=0.0, description="of a weight")
    mean_difference: float = Field(ge=0.0, description="of a weight")
    largest_confidence_difference: float = Field(ge=0.0)
    mean_confidence_difference: float = Field(ge=0.0)
    changed_largest: float = Field(
        ge=0.0, le=1.0, description="share of answers whose largest weight is another one"
    )
    tolerance: float = Field(gt=0.0)
    confidence_tolerance: float = Field(gt=0.0)
    size_ratio: float = Field(gt=0.0, description="size of the int8 file / size of the other")


class BundleInfo(Record):
    """Contents of `bundle.json`.

    `max_tokens` counts special tokens; `mean_weights` are those on training prompts.
    """

    objectives: Objectives
    context: ContextFormat
    serialisation: Literal["newest-user-first/1"] = SERIALISATION
    max_tokens: int = Field(ge=8)
    pad_token_id: int = 0
    fallback: Weights
    mean_weights: Weights
    calibration: Calibration
    preset: str
    method: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    onnx_difference: float = Field(ge=0.0, description="largest |torch - ONNX| over the golden prompts")
    onnx_opset: int
    int8: Int8 | None = Field(default=None, description="None: the bundle has no int8 graph")

    @model_validator(mode="after")
    def _check(self) -> "BundleInfo":
        names = names_of(self.objectives)
        if self.context.objectives != names:
            raise ValueError(f"context objectives {self.context.objectives} differ from objectives {names}")
        for weights in (self.fallback, self.mean_weights):
            normalise(weights, names)
        return self


class Golden(Record):
    """A prompt, and the weights and the confidence that the exported orchestrator gives it."""

    messages: tuple[Message, ...]
    weights: Weights
    confidence: float = Field(ge=0.0, le=1.0)


class Bundle(Record):
    """A verified bundle. `revision` is a hash over all its files."""

    path: Path
    revision: str
    info: BundleInfo
    golden: tuple[Golden, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Objective names, in order."""
        return names_of(self.info.objectives)

    def onnx_file(self, precision: Precision) -> Path:
        """The graph of a precision. Raises ArtifactError where the bundle has none."""
        if precision == "fp32":
            return self.path / ONNX_FILE
        if self.info.int8 is None:
            raise ArtifactError(
                f"{self.path}: has no {INT8_FILE}, so it serves with precision 'fp32' only; "
                "make the bundle again with int8 = true in [bundle]"
            )
        return self.path / INT8_FILE

    def golden_tolerances(self, precision: Precision) -> tuple[float, float]:
        """Largest difference between a golden answer and its replay: of a weight, of the confidence."""
        if precision == "fp32" or self.info.int8 is None:
            return GOLDEN_TOLERANCE, GOLDEN_TOLERANCE
        return self.info.int8.tolerance, self.info.int8.confidence_tolerance


def read_bundle(path: Path) -> Bundle:
    """Verify all hashes and read a bundle. Raises ArtifactError naming the file that is wrong."""
    manifest = verify(path, kind="bundle")
    for name in (BUNDLE_FILE, ONNX_FILE, TOKENIZER_FILE, GOLDEN_FILE):
        if name not in manifest.files:
            raise ArtifactError(f"{path / name}: missing, a bundle needs it")
    info = _parse((path / BUNDLE_FILE).read_bytes(), BundleInfo, where=path / BUNDLE_FILE)
    if (info.int8 is None) == (INT8_FILE in manifest.files):
        says = "says nothing of it" if info.int8 is None else "says that it is there"
        raise ArtifactError(
            f"{path / INT8_FILE}: {'missing' if info.int8 else 'unexpected'}, {BUNDLE_FILE} {says}"
        )
    # Lines of bytes end with a line feed only; those of a string also end with U+2028, which a prompt may
    # hold.
    lines = (path / GOLDEN_FILE).read_bytes().splitlines()
    golden = tuple(_parse(line, Golden, where=path / GOLDEN_FILE) for line in lines)
    if not golden:
        raise ArtifactError(f"{path / GOLDEN_FILE}: empty, at least one golden prompt is needed")
    return Bundle(path=path, revision=digest(manifest.files)[:16], info=info, golden=golden)


def _parse(data: bytes, model: type[R], *, where: Path) -> R:
    """A record from JSON. Raises ArtifactError that starts with the file."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise ArtifactError(f"{where}: {explain(error)}") from error


def write_bundle_files(folder: Path, info: BundleInfo, golden: list[Golden]) -> None:
    """Write `bundle.json` and `golden.jsonl`; the caller has put the ONNX file and the tokenizer there."""
    (folder / BUNDLE_FILE).write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    lines = [json.dumps(entry.model_dump(), ensure_ascii=False) for entry in golden]
    (folder / GOLDEN_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
