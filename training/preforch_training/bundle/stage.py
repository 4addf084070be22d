"""Stage `bundle`: the orchestrator as the service loads it (format: `preforch_models.bundle`).

In:  orchestrator checkpoint, calibration. Out: `bundle/`, whose golden answers ONNX Runtime gave and torch
     agrees with, and unless switched off the same graph in 8 bits with its measured error.
"""

from pathlib import Path

import numpy as np
from preforch_models.bundle import (
    INT8_FILE,
    ONNX_FILE,
    TOKENIZER_FILE,
    BundleInfo,
    Golden,
    Int8,
    write_bundle_files,
)
from preforch_models.orchestrator_model import OrchestratorModel
from transformers import AutoTokenizer

from preforch_training.bundle.config import Config
from preforch_training.bundle.onnx_export import OPSET, export_onnx, serve_onnx
from preforch_training.bundle.quantisation import Measured, measure, quantise
from preforch_training.orchestrator.artifact import read_orchestrator_info
from preforch_training.orchestrator.prediction import Served, serve
from preforch_training.records import Prompt
from preforch_training.run import Outcome, Run
from preforch_training.scores.table import read_calibration

COMPARED = 128
"""Held-out prompts over which the int8 graph is measured, besides the golden ones."""


def build(run: Run, config: Config) -> None:
    """Make `bundle/`."""

    def make(folder: Path, work: Path) -> Outcome:
        del work
        model = OrchestratorModel.from_pretrained(run.orchestrator).eval()
        tokenizer = AutoTokenizer.from_pretrained(run.orchestrator)
        export_onnx(model, folder / ONNX_FILE, max_tokens=model.config.max_tokens)
        write_tokenizer(tokenizer, folder)
        prompts = golden_prompts(run, config.golden_prompts)
        texts = [prompt.text for prompt in prompts]
        found = serve_onnx(folder / ONNX_FILE, tokenizer, texts, max_tokens=model.config.max_tokens)
        difference = check_parity(found, serve(model, tokenizer, texts), allowed=config.max_difference)
        measured = None
        if config.int8:
            measured = int8_variant(run, folder, tokenizer, texts, model.config.max_tokens)
        info = bundle_info(run, tokenizer.pad_token_id, difference, measured.info if measured else None)
        golden = golden_answers(prompts, found, run.names)
        write_bundle_files(folder, info, golden)
        metrics: dict[str, object] = {"onnx_difference": difference}
        if measured is not None:
            metrics["int8"] = measured.info.model_dump() | {"speed_ratio": round(measured.speed_ratio, 2)}
        return Outcome(counts={"golden": len(golden)}, metrics=metrics)

    recipe = config.model_dump(mode="json") | {
        "objectives": [objective.model_dump() for objective in run.objectives],
        "context": run.context_format.model_dump(mode="json"),
        "preset": run.preset,
    }
    run.make(
        run.bundle,
        kind="bundle",
        config=recipe,
        inputs={"data": run.data, "scores": run.scores, "orchestrator": run.orchestrator},
        build=make,
    )


def check_parity(found: Served, expected: Served, *, allowed: float) -> float:
    """Largest difference between ONNX and torch. Raises ValueError where it is more than allowed."""
    difference = float(
        max(
            np.abs(found.weights_NK - expected.weights_NK).max(),
            np.abs(found.confidence_N - expected.confidence_N).max(),
        )
    )
    if difference > allowed:
        raise ValueError(f"torch and ONNX differ by {difference:.2e}, allowed is {allowed:.0e}")
    return difference


def int8_variant(run: Run, folder: Path, tokenizer: object, golden: list[str], max_tokens: int) -> Measured:
    """Write the graph in 8 bits and compare it over golden and other held-out prompts."""
    exact, int8 = folder / ONNX_FILE, folder / INT8_FILE
    quantise(exact, int8)
    others = [prompt.text for prompt in golden_prompts(run, COMPARED)]
    return measure(exact, int8, tokenizer, golden, others, max_tokens=max_tokens)


def golden_answers(prompts: list[Prompt], found: Served, names: tuple[str, ...]) -> list[Golden]:
    """Prompts with what ONNX Runtime gave them."""
    answers = zip(prompts, found.weights_NK.tolist(), found.confidence_N.tolist(), strict=True)
    return [
        Golden(
            messages=prompt.messages, weights=dict(zip(names, weights_K, strict=True)), confidence=confidence
        )
        for prompt, weights_K, confidence in answers
    ]


def bundle_info(run: Run, pad_token_id: int, difference: float, int8: Int8 | None = None) -> BundleInfo:
    """Everything about the bundle that is not in its files."""
    fitted = read_orchestrator_info(run.orchestrator)
    return BundleInfo(
        objectives=run.objectives,
        context=run.context_format,
        max_tokens=fitted.config.max_tokens,
        pad_token_id=pad_token_id,
        fallback=fitted.fallback,
        mean_weights=fitted.mean_weights,
        calibration=read_calibration(run.scores),
        preset=run.preset,
        method=fitted.config.model_dump(include={"target", "tau", "loss", "confidence"}),
        onnx_difference=difference,
        onnx_opset=OPSET,
        int8=int8,
    )


def write_tokenizer(tokenizer: object, folder: Path) -> None:
    """`tokenizer.json` without truncation and padding: the service sets both."""
    backend = tokenizer.backend_tokenizer  # type: ignore[attr-defined]  # a fast transformers tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.save(str(folder / TOKENIZER_FILE))


def golden_prompts(run: Run, count: int) -> list[Prompt]:
    """Held-out prompts, evenly spaced, so that every kind is there; training prompts where there are no
    others."""
    prompts = run.prompts()
    held_out = [prompt for prompt in prompts if prompt.split != "train"] or prompts
    step = max(1, len(held_out) // count)
    return held_out[::step][:count]
