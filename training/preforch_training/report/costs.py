"""What the stages cost and how training went: manifests and `metrics.jsonl` of a run.

Paths come from the caller; artifacts are named by their stage.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from preforch_models.manifest import read_manifest

from preforch_training.report.records import StageCost
from preforch_training.tuning.hf_trainer import METRICS_FILE

Curve = list[tuple[float, float]]
"""(step, value)."""


def stage_costs(artifacts: Mapping[str, Path]) -> list[StageCost]:
    """Seconds and peak memory of each artifact, from its manifest."""
    manifests = {name: read_manifest(folder) for name, folder in artifacts.items()}
    return [
        StageCost(stage=name, seconds=manifest.seconds, peak_memory_mib=manifest.peak_memory_mib)
        for name, manifest in manifests.items()
    ]


def training_curves(artifacts: Mapping[str, Path]) -> dict[str, dict[str, Curve]]:
    """By stage, losses in training and on validation data; stages that log nothing are left out."""
    curves: dict[str, dict[str, Curve]] = {}
    for name, folder in artifacts.items():
        path = folder / METRICS_FILE
        if not path.is_file():
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            for key in entry:
                if key in ("loss", "eval_loss"):
                    curves.setdefault(name, {}).setdefault(key, []).append((entry["step"], entry[key]))
    return curves
