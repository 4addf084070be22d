"""A tiny run on the demo world for the policy stage: true rewards, a random orchestrator, a tiny policy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny
from preforch_models.manifest import Manifest, write_manifest, writing
from preforch_training.config import RunConfig
from preforch_training.demo.assistant.world import ASSISTANT
from preforch_training.orchestrator.artifact import OrchestratorInfo, write_orchestrator_info
from preforch_training.pipeline import open_run
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.run import Run
from preforch_training.sampling.vllm import Generation, SampleRequest
from small_world import build
from transformers import PreTrainedTokenizerFast

NAMES = ("helpful", "harmless", "humor")
FALLBACK = {"helpful": 0.5, "harmless": 0.2, "humor": 0.3}
"""The constant of the orchestrator."""
SFT = {"steps": 4, "learning_rate": 1e-3, "batch_size": 4, "save_steps": 2}


def helpful(prompts: list[str], responses: list[str]) -> list[float]:
    return _reward("helpful", prompts, responses)


def harmless(prompts: list[str], responses: list[str]) -> list[float]:
    return _reward("harmless", prompts, responses)


def humor(prompts: list[str], responses: list[str]) -> list[float]:
    return _reward("humor", prompts, responses)


def _reward(name: str, prompts: list[str], responses: list[str]) -> list[float]:
    return [
        ASSISTANT.true_rewards(prompt, response)[name]
        for prompt, response in zip(prompts, responses, strict=True)
    ]


class ScriptedSampler:
    """Answers every request with n fixed responses, the last of them unfinished; remembers whom it asked."""

    peak_memory_mib = 1.0
    texts: tuple[str, ...] = (
        "Thank you for asking.",
        "Please be careful and stay safe.",
        "Let me think about it.",
    )

    def __init__(self) -> None:
        self.policies: list[Path] = []

    @property
    def calls(self) -> int:
        return len(self.policies)

    def sample(
        self,
        policy: Path,
        requests: Sequence[SampleRequest],
        *,
        temperature: float,
        top_p: float,
        max_tokens: int,
    ) -> list[list[Generation]]:
        self.policies.append(policy)
        reader = PolicyTokenizer(policy)
        return [
            [
                Generation(tuple(reader.response_ids(text)), text, finished=text != self.texts[-1])
                for text in self.texts[: request.n]
            ]
            for request in requests
        ]

    def close(self) -> None:
        """There is nothing to give back."""


def write_inputs(folder: Path, config: RunConfig | None = None) -> tuple[Run, RunConfig]:
    """A run with everything that the policy stage reads, and its config, by default `make_config(folder)`."""
    config = config or make_config(folder)
    run = open_run(config)
    for stage in ("data", "reward", "scores"):
        build(stage, run, config)
    tokenizer = tiny.encoder_tokenizer()
    with writing(run.orchestrator) as target:
        tiny.orchestrator(NAMES, tokenizer.get_vocab_size()).save_pretrained(target)
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
        fast.save_pretrained(target)
        info = OrchestratorInfo(config=config.orchestrator, tau=1.0, fallback=FALLBACK, mean_weights=FALLBACK)
        write_orchestrator_info(target, info)
        write_manifest(target, Manifest(kind="orchestrator"))
    return run, config


def wic(
    *, offline: Mapping[str, Any] | None = None, online: Mapping[str, Any] | None = None, **settings: Any
) -> dict[str, Any]:
    """The table of a tiny policy of kind `wic`, with one online round."""
    return {
        "kind": "wic",
        "tau": 0.5,
        "offline": {**SFT, "responses": "chosen_and_filtered", **(offline or {})},
        "online_rounds": 1,
        "online": {
            **SFT,
            "prompts": 6,
            "samples_per_prompt": 3,
            "keep": "best_by_weights",
            "random_weight_share": 0.5,
            **(online or {}),
        },
        **settings,
    }


def sft(**training: Any) -> dict[str, Any]:
    """The table of a tiny policy of kind `sft`."""
    return {"kind": "sft", "training": {**SFT, **training}}


def preference(*, training: Mapping[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """The table of a tiny policy of kind `preference`, by default with the loss of DPO."""
    return {"kind": "preference", "loss": "dpo", "training": {**SFT, **(training or {})}, **settings}


def ric(*, online: Mapping[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """The table of a tiny policy of kind `ric`, with one online round."""
    return {
        "kind": "ric",
        "offline": SFT,
        "online_rounds": 1,
        "online": {**SFT, "prompts": 6, **(online or {})},
        **settings,
    }


def cpo(*, training: Mapping[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """The table of a tiny policy of kind `cpo`, by default from the offline round of one called `ric`."""
    return {"kind": "cpo", "start": "ric/round-0", "training": {**SFT, **(training or {})}, **settings}


def rl(*, training: Mapping[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """The table of a tiny policy of kind `rl`, by default under f(x)."""
    training = {**SFT, **(training or {})}
    return {
        "kind": "rl",
        "weights": "orchestrator",
        "samples_per_prompt": 2,
        "training": training,
        **settings,
    }


def make_config(
    folder: Path,
    *,
    shared: Mapping[str, Any] | None = None,
    policies: Mapping[str, Mapping[str, Any]] | None = None,
    **sections: Any,
) -> RunConfig:
    """A config whose rewards are the true ones, with one policy `wic` by default. `shared`: of `[policy]`."""
    base = {
        "base": "demo",
        "scratch": {"vocabulary": 400, "width": 32, "layers": 1, "heads": 1, "inner": 32},
        "max_model_len": 256,
        "max_response_tokens": 32,
    }
    policies = {"wic": wic()} if policies is None else policies
    return RunConfig.model_validate(
        {
            "preset": "recommended",
            "run": {"folder": folder, "seed": 1},
            "objectives": [{"name": name} for name in NAMES],
            "context": {"encoding": "levels"},
            "data": {"source": "demo", "train_prompts": 20, "validation_prompts": 8, "test_prompts": 8},
            "reward": {name: {"kind": "function", "function": f"policy_world:{name}"} for name in NAMES},
            "scores": {"calibration": "zscore"},
            "orchestrator": {
                "target": "advantage_softmax",
                "tau": 1.0,
                "loss": "forward",
                "confidence": "off",
            },
            "policy": {**base, **(shared or {})} if policies else None,
            "policies": policies,
            "serve": next(iter(policies), None),
            **sections,
        }
    )
