"""Stage `bundle`: the orchestrator as the service loads it (format: `preforch_models.bundle`).

In:  orchestrator checkpoint, calibration. Out: `bundle/`, whose golden answers ONNX Runtime gave and torch agrees with.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from preforch_models.bundle import ONNX_FILE, TOKENIZER_FILE, BundleInfo, Golden, write_bundle_files
from preforch_models.objectives import Record
from preforch_models.orchestrator_model import OrchestratorModel
from pydantic import Field
from transformers import AutoTokenizer

from preforch_training.onnx_export import OPSET, export_onnx
from preforch_training.prediction import weights_of
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
        onnx_NK = onnx_weights(folder / ONNX_FILE, tokenizer, prompts, max_tokens=model.config.max_tokens)
        torch_NK = weights_of(model, tokenizer, [prompt.text for prompt in prompts])
        difference = float(np.abs(onnx_NK - torch_NK).max())
        if difference > config.bundle.max_difference:
            raise ValueError(
                f"torch and ONNX differ by {difference:.2e}, allowed is {config.bundle.max_difference:.0e}"
            )
        golden = [
            Golden(messages=prompt.messages, weights=dict(zip(config.names, weights_K.tolist(), strict=True)))
            for prompt, weights_K in zip(prompts, onnx_NK, strict=True)
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
        method={"target": config.orchestrator.target, "tau": config.orchestrator.tau, "loss": config.orchestrator.loss},
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


def onnx_weights(path: Path, tokenizer: object, prompts: list[Prompt], *, max_tokens: int) -> np.ndarray:
    """Weights of prompts by ONNX Runtime on the CPU, one at a time, as a golden answer is replayed, (N, K)."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = []
    for prompt in prompts:
        batch = tokenizer(prompt.text, truncation=True, max_length=max_tokens, return_tensors="np")  # type: ignore[operator]
        feed = {name: batch[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
        rows.append(session.run(["weights"], feed)[0][0])
    return np.array(rows, dtype=np.float64)
