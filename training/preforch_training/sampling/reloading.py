"""Other weights for a running vLLM engine, and the proof that it has them.

In:  an engine, and a policy folder of the same architecture and size as the one it was started on.
Out: the engine generates with that folder's weights, or ReloadError.

vLLM 0.32 raises no error where it loads less than everything, and on a CPU it computes with packed copies of
the weights: a tied output head keeps the packed copy of the old ones. Therefore
1. matrices of which the engine also keeps the plain weights (embedding, output head) are packed again;
2. every tensor of the checkpoint is then compared with what the engine computes with: it must equal the plain
   weights, and where packed ones are used, their products with a few random vectors must agree.
An engine whose modules are not named after the checkpoint's tensors cannot be compared; that is an error too.
vLLM's own "Failed to load weights" in the log is not: every tied head and rotary embedding causes it.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

if TYPE_CHECKING:
    # Importing vLLM takes seconds and reads the environment.
    from vllm import LLM

PROBES = 8
"""Random vectors by which a packed matrix is multiplied."""
TOLERANCE = 1e-5
"""Largest difference of a product, relative to the largest entry. An engine on a CPU runs in float32."""


class ReloadError(RuntimeError):
    """The engine's weights are not shown to be the checkpoint's; the message names the first that differs."""


def reload_in_place(engine: "LLM", policy: Path) -> None:
    """Load a checkpoint into a running engine. Raises ReloadError, after which the engine is of no use."""
    engine.collective_rpc("reload_weights", kwargs={"weights_path": str(policy)})
    engine.apply_model(partial(_finish, policy=policy))


@torch.inference_mode()
def _finish(model: torch.nn.Module, *, policy: Path) -> None:
    pack_again(model)
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(policy.glob("*.safetensors")):
        tensors |= load_file(file)
    compare(model, tensors)


def pack_again(model: torch.nn.Module) -> None:
    """Pack what the engine keeps plain as well; all other matrices were packed when they were loaded."""
    for module in model.modules():
        weight = module._parameters.get("weight")
        method = getattr(module, "quant_method", None)
        if weight is not None and weight.numel() and method is not None and hasattr(module, "cpu_linear"):
            method.process_weights_after_loading(module)


def compare(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise ReloadError unless the engine's model computes with these tensors, and with all of them."""
    joined: Mapping[str, Sequence[str]] = getattr(model, "packed_modules_mapping", {})
    sources_of: dict[int, list[str]] = {}
    seen: set[str] = set()
    for name, module, tensor in _parameters(model):
        sources = _sources(name, joined)
        if not tensors.keys() >= set(sources):
            # A tied head has the embedding's tensor and no name of its own in the checkpoint.
            sources = sources_of.get(id(tensor), sources)
        sources_of[id(tensor)] = sources
        missing = [source for source in sources if source not in tensors]
        if missing:
            raise ReloadError(f"the checkpoint lacks {missing[0]}, which the engine has")
        _check(name, module, tensor, torch.cat([tensors[source] for source in sources]))
        seen.update(sources)
    unknown = tensors.keys() - seen
    if unknown:
        raise ReloadError(f"the engine has no weight that is named after {min(unknown)} of the checkpoint")


def _parameters(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module, torch.Tensor]]:
    """Full name, module and tensor of every parameter; shared ones once for each of their modules."""
    for prefix, module in model.named_modules():
        for name, tensor in module._parameters.items():
            if tensor is not None:
                yield f"{prefix}.{name}", module, tensor


def _sources(name: str, joined: Mapping[str, Sequence[str]]) -> list[str]:
    """The checkpoint's names for a weight of the engine: several where it joins matrices (q, k and v)."""
    *path, module, leaf = name.split(".")
    return [".".join((*path, part, leaf)) for part in joined.get(module, (module,))]


def _check(name: str, module: torch.nn.Module, tensor: torch.Tensor, wanted: torch.Tensor) -> None:
    """Raise ReloadError unless a module computes with `wanted`; rows that pad a vocabulary are left out."""
    wanted = wanted.to(device=tensor.device, dtype=tensor.dtype)
    plain = tensor.numel() > 0
    if plain and not torch.equal(tensor[: len(wanted)], wanted):
        raise ReloadError(f"{name} of the engine is not what the checkpoint holds")
    multiply = getattr(module, "cpu_linear", None) if name.endswith(".weight") else None
    if multiply is not None:
        probes_PD = torch.randn(PROBES, wanted.shape[1], generator=torch.Generator().manual_seed(0)).to(
            wanted
        )
        wanted_PV = probes_PD @ wanted.T
        difference_PV = multiply(probes_PD, tensor, None)[:, : len(wanted)] - wanted_PV
        if not difference_PV.abs().max() <= TOLERANCE * wanted_PV.abs().max():
            raise ReloadError(f"{name} is packed with other values than the checkpoint holds")
    elif not plain:
        raise ReloadError(f"{name} is kept in a form that cannot be compared")
