"""What a run would fetch, and what this machine lacks for it.

In:  a configuration, sizes of its models. Out: `Fetch`es, and sentences.
"""

import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import torch
from huggingface_hub import constants, try_to_load_from_cache

from preforch_training.config import RunConfig
from preforch_training.plan.sizes import ModelSize, Use
from preforch_training.policy.config import DEMO

GIB = 2**30


@dataclass(frozen=True)
class Part:
    """One model of a run, and what it is for."""

    model: str
    revision: str
    use: Use

    @property
    def local(self) -> bool:
        """Whether nothing has to be fetched: a folder, or part of a package."""
        return Path(self.model).is_dir() or self.model.startswith("package:")


@dataclass(frozen=True)
class Fetch:
    """A model or data set from the hub. `there`: in the hub's cache already."""

    what: str
    revision: str
    size: float | None
    there: bool


def parts(config: RunConfig) -> list[Part]:
    """The models of a run, each once; rewards by function or endpoint have none."""
    found = []
    for reward in config.reward.rewards.values():
        if reward.base_model:
            use: Use = "encoder" if reward.cross_fitted else "reward"
            found.append(Part(reward.base_model, getattr(reward, "revision", "main"), use))
    found.append(Part(config.orchestrator.encoder, config.orchestrator.revision, "encoder"))
    if config.policy is not None and config.policy.base != DEMO:
        found.append(Part(config.policy.base, config.policy.revision, "policy"))
    return list({(part.model, part.revision): part for part in found}.values())


def fetches(config: RunConfig, sizes: Mapping[str, ModelSize | None]) -> Iterator[Fetch]:
    """What comes from the hub: models, and the data sets of `[data]`."""
    for part in parts(config):
        if not part.local:
            size = sizes[part.model]
            file = try_to_load_from_cache(part.model, "model.safetensors", revision=part.revision)
            shards = try_to_load_from_cache(
                part.model, "model.safetensors.index.json", revision=part.revision
            )
            there = isinstance(file, str) or isinstance(shards, str)
            yield Fetch(part.model, part.revision, None if size is None else size.stored, there)
    # One that several sources read is fetched once.
    for name, revision in dict.fromkeys((source.dataset, source.revision) for source in config.data.sources):
        if name is not None and not (config.data.root / name).is_dir():
            cache = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"
            yield Fetch(f"dataset {name}", revision, None, cache.is_dir())


def hub_reachable() -> bool:
    """Whether the hub answers within seconds; not asked where HF_HUB_OFFLINE says so."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        httpx.head(constants.ENDPOINT, timeout=3, follow_redirects=True)
    except (httpx.HTTPError, OSError):
        return False
    return True


def missing(
    config: RunConfig,
    wanted: Sequence[Fetch],
    *,
    disk: float,
    nproc: int,
    gpu_gib: float,
    reachable: bool,
) -> list[str]:
    """What is not here, a sentence each: packages, GPUs, disk, and a hub for what must be fetched.

    `disk`: bytes that the run will write.
    """
    found = [f"package {name}: {why}" for name, why in packages(config) if not _installed(name)]
    found += missing_gpus(
        [torch.cuda.mem_get_info(i)[1] / GIB for i in range(torch.cuda.device_count())],
        nproc=nproc,
        gpu_gib=gpu_gib,
    )
    place = next(
        p for p in (config.run.folder.absolute(), *config.run.folder.absolute().parents) if p.is_dir()
    )
    free = shutil.disk_usage(place).free
    if disk > free:
        found.append(
            f"disk: {disk / GIB:.0f} GiB are needed for {config.run.folder}, {free / GIB:.0f} are free"
        )
    absent = [entry.what for entry in wanted if not entry.there]
    if absent and not reachable:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} does not answer"
        found.append(f"hub: {why}, and {len(absent)} are not in its cache: {', '.join(absent)}")
    if absent and reachable and "HF_TOKEN" not in os.environ and not Path(constants.HF_TOKEN_PATH).is_file():
        found.append("a hub token (HF_TOKEN): gated models, such as LLaMA's, cannot be fetched without one")
    return found


def packages(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Packages that a run imports, and what for."""
    yield from (("torch", "models"), ("transformers", "models"), ("trl", "rewards and policies"))
    if any(source.dataset for source in config.data.sources):
        yield "datasets", "data from the hub"
    if any(
        training.lora_rank for policy in config.policies.values() for training in policy.trainings.values()
    ):
        yield "peft", "LoRA"
    if config.policies:
        yield "vllm", "responses of the online rounds and of the report"


def missing_gpus(have: Sequence[float], *, nproc: int, gpu_gib: float) -> list[str]:
    """Where there are fewer GPUs than processes, or smaller ones than planned with; `have`: GiB of each."""
    if len(have) < nproc:
        return [f"GPUs: {nproc} are planned with, {len(have)} are visible"]
    small = [f"{gib:.0f}" for gib in have[:nproc] if gib < 0.95 * gpu_gib]
    return [f"GPUs of {gpu_gib:.0f} GiB: there are some of {', '.join(small)}"] if small else []


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
