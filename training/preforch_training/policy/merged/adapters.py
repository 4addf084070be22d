"""LoRA adapters of trained policies: kept beside the merged checkpoint, and merged with each other.

In:  a model that was trained with LoRA; adapters of one start with weights.
Out: `adapter/` of a policy; one adapter whose change is the weighted sum of the changes of several.

A change of a matrix is (alpha / r) B A. Its weighted sum over k is B' A' with A' all A_k one below the other
and B' all w_k (alpha_k / r_k) B_k side by side: exact, of rank sum r_k, with alpha' = rank.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

FOLDER = "adapter"
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Adapter:
    """`matrices`: by PEFT's names, `...lora_A.weight` (r, in) and `...lora_B.weight` (out, r), the latter
    times alpha / r. `settings`: PEFT's, for what is neither rank nor alpha."""

    matrices: dict[str, torch.Tensor]
    rank: int
    settings: dict[str, object]


def keep_adapter(model: torch.nn.Module, folder: Path) -> None:
    """Write what LoRA trained into `adapter/` of a policy in the making; nothing without LoRA."""
    if isinstance(model, PeftModel):
        model.save_pretrained(folder / FOLDER)
        # PEFT's card and settings name the folder that the training started from.
        (folder / FOLDER / "README.md").unlink(missing_ok=True)
        file = folder / FOLDER / _CONFIG
        settings = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": ""}
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def read_adapter(policy: Path) -> Adapter:
    """The adapter of a policy. Raises ValueError where it has none, or trains more than matrices."""
    folder = policy / FOLDER
    if not (folder / _CONFIG).exists():
        raise ValueError(f"{policy}: it has no adapter; only what was trained with lora_rank can be merged")
    settings = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    matrices = load_file(folder / _WEIGHTS)
    other = [name for name in matrices if not name.endswith(("lora_A.weight", "lora_B.weight"))]
    if other:
        raise ValueError(f"{folder}: it holds {other[0]}, which no weighted sum of adapters can hold")
    scale = settings["lora_alpha"] / settings["r"]
    return Adapter(
        {name: (m * scale if name.endswith("lora_B.weight") else m).float() for name, m in matrices.items()},
        settings["r"],
        settings,
    )


def weighted_sum(adapters: Sequence[Adapter], weights: Sequence[float]) -> Adapter:
    """The adapter of the weighted sum of changes. Raises ValueError where adapters change other matrices."""
    first = adapters[0]
    for adapter in adapters[1:]:
        if differing := first.matrices.keys() ^ adapter.matrices.keys():
            raise ValueError(f"adapters of one set change the same matrices, but {min(differing)}")
    matrices = {}
    for name in first.matrices:
        parts = [adapter.matrices[name] for adapter in adapters]
        if name.endswith("lora_B.weight"):
            scaled = [weight * part for weight, part in zip(weights, parts, strict=True)]
            matrices[name] = torch.cat(scaled, dim=1)
        else:
            matrices[name] = torch.cat(parts, dim=0)
    return Adapter(matrices, sum(adapter.rank for adapter in adapters), first.settings)


def write_adapter(adapter: Adapter, folder: Path) -> None:
    """As PEFT and vLLM read it."""
    folder.mkdir(parents=True)
    save_file({name: matrix.contiguous() for name, matrix in adapter.matrices.items()}, folder / _WEIGHTS)
    settings = adapter.settings | {"r": adapter.rank, "lora_alpha": adapter.rank, "lora_dropout": 0.0}
    (folder / _CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
