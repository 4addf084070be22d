"""The orchestrator's graph in 8 bits, and how far its answers are from those of the graph that it was made
of.

In:  an ONNX file. Out: a second one, about a quarter of the size, and an `Int8` that says what it costs.

Weights of the encoder are quantised ahead, one scale per column; activations while it runs, one scale per
batch. What comes after the encoder (head, familiarity) stays as it is: it is small, and distances magnify
rounding.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from preforch_models.bundle import GOLDEN_TOLERANCE, Int8

from preforch_training.bundle.onnx_export import serve_onnx
from preforch_training.orchestrator.prediction import Served

ENCODER = "model.encoder."
BATCH_TOKENS = 512
"""Padded tokens of a batch, the service's default on CPUs."""
MARGIN = 2.0
"""Golden answers may be this many times as far off as measured: another batch, another processor."""


def quantise(source: Path, target: Path) -> None:
    """Write the int8 graph.

    7 of the 8 bits are used (`reduce_range`): processors without VNNI add products in 16 bits and would
    overflow, and a bundle is made on one machine and served on another.
    """
    model = onnx.load(source)
    # Shapes that the exporter noted contradict those of the new operators.
    model.graph.ClearField("value_info")
    named = {initializer.name for initializer in model.graph.initializer}
    after = [node.name for node in model.graph.node if _is_after_encoder(node, named)]
    # A Gemm is first split into a MatMul of this name and an Add.
    after += [f"{name}_MatMul" for name in after]
    quantize_dynamic(
        model,
        str(target),
        op_types_to_quantize=["MatMul", "Gather"],
        nodes_to_exclude=after,
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )


def _is_after_encoder(node: Any, named: set[str]) -> bool:
    """Whether a node multiplies with a parameter of ours. The exporter renames those of the encoder
    (`val_17`)."""
    return any(name.startswith("model.") and not name.startswith(ENCODER) for name in named & set(node.input))


@dataclass(frozen=True)
class Measured:
    """`speed_ratio` is that of this machine now: seconds of the first graph / seconds of the int8 one, in
    batches."""

    info: Int8
    speed_ratio: float


def measure(
    exact: Path, int8: Path, tokenizer: Any, golden: Sequence[str], others: Sequence[str], *, max_tokens: int
) -> Measured:
    """Compare both graphs over golden and other texts, alone and in batches."""
    texts = list(dict.fromkeys([*golden, *others]))
    differences, seconds = [], []
    for tokens in (1, BATCH_TOKENS):
        answers = []
        for path in (exact, int8):
            started = time.perf_counter()
            answers.append(serve_onnx(path, tokenizer, texts, max_tokens=max_tokens, tokens=tokens))
            seconds.append(time.perf_counter() - started)
        differences.append(_Differences.between(*answers))
    weights_WNK = np.stack([difference.weights_NK for difference in differences])
    confidence_WN = np.stack([difference.confidence_N for difference in differences])
    rows = [texts.index(text) for text in golden]
    info = Int8(
        prompts=len(texts),
        largest_difference=float(weights_WNK.max()),
        mean_difference=float(weights_WNK.mean()),
        largest_confidence_difference=float(confidence_WN.max()),
        mean_confidence_difference=float(confidence_WN.mean()),
        changed_largest=float(np.mean([difference.changed_N for difference in differences])),
        tolerance=GOLDEN_TOLERANCE + MARGIN * float(weights_WNK[:, rows].max()),
        confidence_tolerance=GOLDEN_TOLERANCE + MARGIN * float(confidence_WN[:, rows].max()),
        size_ratio=int8.stat().st_size / exact.stat().st_size,
    )
    return Measured(info, speed_ratio=seconds[2] / seconds[3])


@dataclass(frozen=True)
class _Differences:
    """Absolute differences by text, and whether the largest weight is another one."""

    weights_NK: np.ndarray
    confidence_N: np.ndarray
    changed_N: np.ndarray

    @classmethod
    def between(cls, one: Served, other: Served) -> "_Differences":
        return cls(
            np.abs(one.weights_NK - other.weights_NK),
            np.abs(one.confidence_N - other.confidence_N),
            one.weights_NK.argmax(axis=1) != other.weights_NK.argmax(axis=1),
        )
