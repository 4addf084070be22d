"""Stage `bundle`: the orchestrator as the service loads it (format: `preforch_models.bundle`).

In:  orchestrator checkpoint, calibration. Out: `bundle/`, whose golden answers ONNX Runtime gave and torch agrees with.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from preforch_models.bundle import ONNX_FILE, OUTPUTS, TOKENIZER_FILE, BundleInfo, Golden, write_bundle_files
from preforch_models.objectives import Record
from preforch_models.orchestrator_model import OrchestratorModel
from pydantic import Field
from transformers import AutoTokenizer

from preforch_training.onnx_export import OPSET, export_onnx
from preforch_training.prediction import Served, serve
from preforch_training.records import Prompt, read_records
from preforch_training.run import Outcome, Run
from preforch_training.score_table import read_calibration

if TYPE_CHECKING:
    from preforch_training.config import RunConfig


class Config(Record):
    """`[bundle]`. Parity is measured on `golden_prompts` held-out prompts; a larger difference is an error."""

    golden_prompts: int = Field(default=32, ge=1)
    max_difference: float = 1e-4


def build(run: Run, config: "RunConfig") -> None:
    """Make `bundle/`."""

    def make(folder: Path, work: Path) -> Outcome:
        del work
        model = OrchestratorModel.from_pretrained(run.orchestrator).eval()
        tokenizer = AutoTokenizer.from_pretrained(run.orchestrator)
        export_onnx(model, folder / ONNX_FILE, max_tokens=model.config.max_tokens)
        write_tokenizer(tokenizer, folder)
        prompts = golden_prompts(run, config.bundle.golden_prompts)
        found = serve_onnx(folder / ONNX_FILE, tokenizer, prompts, max_tokens=model.config.max_tokens)
        expected = serve(model, tokenizer, [prompt.text for prompt in prompts])
        difference = float(
            max(
                np.abs(found.weights_NK - expected.weights_NK).max(),
                np.abs(found.confidence_N - expected.confidence_N).max(),
            )
        )
        if difference > config.bundle.max_difference:
            raise ValueError(
                f"torch and ONNX differ by {difference:.2e}, allowed is {config.bundle.max_difference:.0e}"
            )
        golden = [
            Golden(
                messages=prompt.messages,
                weights=dict(zip(config.names, weights_K.tolist(), strict=True)),
                confidence=confidence,
            )
            for prompt, weights_K, confidence in zip(
                prompts, found.weights_NK, found.confidence_N.tolist(), strict=True
            )
        ]
        write_bundle_files(folder, bundle_info(run, config, tokenizer.pad_token_id, difference), golden)
        return Outcome(counts={"golden": len(golden)}, metrics={"onnx_difference": difference})

    recipe = config.bundle.model_dump(mode="json") | {
        "objectives": [objective.model_dump() for objective in config.objectives],
        "context": config.context.model_dump(),
        "preset": config.preset,
    }
    run.make(
        run.bundle,
        kind="bundle",
        config=recipe,
        inputs={"data": run.data, "scores": run.scores, "orchestrator": run.orchestrator},
        build=make,
    )


def bundle_info(run: Run, config: "RunConfig", pad_token_id: int, difference: float) -> BundleInfo:
    """Everything about the bundle that is not in its files."""
    weights = json.loads((run.orchestrator / "weights.json").read_text(encoding="utf-8"))
    return BundleInfo(
        objectives=config.objectives,
        context=config.form,
        max_tokens=config.orchestrator.max_tokens,
        pad_token_id=pad_token_id,
        fallback=weights["fallback"],
        mean_weights=weights["mean_weights"],
        calibration=read_calibration(run.scores),
        preset=config.preset,
        method=config.orchestrator.model_dump(include={"target", "tau", "loss", "confidence"}),
        onnx_difference=difference,
        onnx_opset=OPSET,
    )


def write_tokenizer(tokenizer: object, folder: Path) -> None:
    """`tokenizer.json` without truncation and padding: the service sets both."""
    backend = tokenizer.backend_tokenizer  # type: ignore[attr-defined]  # a fast transformers tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.save(str(folder / TOKENIZER_FILE))


def golden_prompts(run: Run, count: int) -> list[Prompt]:
    """Held-out prompts, evenly spaced, so that every kind is there; training prompts where there are no others."""
    prompts = read_records(run.data / "prompts.jsonl", Prompt)
    held_out = [prompt for prompt in prompts if prompt.split != "train"] or prompts
    step = max(1, len(held_out) // count)
    return held_out[::step][:count]


def serve_onnx(path: Path, tokenizer: object, prompts: list[Prompt], *, max_tokens: int) -> Served:
    """What ONNX Runtime on the CPU gives prompts, one at a time, as a golden answer is replayed."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    weights_NK, confidence_N = [], []
    for prompt in prompts:
        batch = tokenizer(prompt.text, truncation=True, max_length=max_tokens, return_tensors="np")  # type: ignore[operator]
        feed = {name: batch[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
        weights_1K, confidence_1 = session.run(list(OUTPUTS), feed)
        weights_NK.append(weights_1K[0])
        confidence_N.append(confidence_1[0])
    return Served(np.array(weights_NK, dtype=np.float64), np.array(confidence_N, dtype=np.float64))
