"""Reinforcement of a policy by TRL's RLOO or GRPO trainer (METHOD 6; paper, Eq. 9).

In:  a policy folder, which is where the training starts and what it is held to; prompts with weights; the
     rewards of the run.
Out: the trained model with LoRA merged, the metrics of the training.

`rloo`: advantage of response g = R_g - mean of the other R, where R_g = reward - beta log pi(y_g|x) /
pi_start(y_g|x) (2402.14740). `grpo`: (reward - mean) / deviation in the group, and the KL is a part of the
loss (2402.03300).

Rows are in the order of training, one for each time that a prompt is asked, so that a continued training
finds its place. Noise comes from torch's own generator, whose state is a part of every checkpoint; each rank
draws by itself, so another number of ranks draws other responses.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from accelerate.data_loader import DataLoaderShard
from datasets import Dataset
from preforch_models.conversation import Message
from preforch_models.weights import Weights
from transformers import AutoModelForCausalLM, PreTrainedModel

from preforch_training.distributed.group import rank, together
from preforch_training.distributed.shares import check_batch_size
from preforch_training.distributed.training import RankTrainer, rank_options
from preforch_training.policy.checkpoint import Writer
from preforch_training.policy.fine_tuning import schedule_arguments
from preforch_training.policy.merged.adapters import keep_adapter
from preforch_training.policy.reinforced.combine import combiner
from preforch_training.policy.reinforced.reward import GroupReward
from preforch_training.policy.reinforced.snapshots import Snapshots
from preforch_training.policy.settings.rl import Algorithm, RlPolicy
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import Prompt
from preforch_training.run import Run
from preforch_training.scores.calibration import CalibratedRewards
from preforch_training.tuning.hf_trainer import run_trainer
from preforch_training.tuning.resident import models_stay
from preforch_training.tuning.tracking import Tracking
from preforch_training.tuning.tuned_model import (
    finished,
    loading_dtype,
    lora_config,
    stored_dtype,
    train_in_32_bits,
)


@dataclass(frozen=True)
class Ask:
    """One time that a prompt is asked. `messages`: as the policy reads them; `weights`: what the prompt's
    rewards are weighed by; `context`: what the policy reads of them, the same on the grid, or nothing."""

    prompt: Prompt
    messages: tuple[Message, ...]
    weights: tuple[float, ...]
    context: Weights


@dataclass(frozen=True)
class Reference:
    """What rewards are set beside: calibrated ones of known responses, (N, K), and their usual number of
    sentences."""

    rewards_NK: np.ndarray
    usual: int


class _OnTokens(RankTrainer):
    """Before one of TRL's trainers: prompts are written already, and come in groups."""

    def get_train_dataloader(self) -> DataLoaderShard:
        """TRL's own: a batch is whole groups of one prompt's responses."""
        loader: DataLoaderShard = super(RankTrainer, self).get_train_dataloader()
        return loader

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Without the token that begins a text: the template has printed it."""
        return self.processing_class(text=prompts, add_special_tokens=False)["input_ids"], None, {}


_NAMES: Mapping[Algorithm, str] = MappingProxyType({"rloo": "RLOO", "grpo": "GRPO"})
_LOSSES: Mapping[Algorithm, Mapping[str, str]] = MappingProxyType(
    {"rloo": {}, "grpo": {"loss_type": "grpo"}}  # that of the paper; TRL's default is another
)


def trainer_class(algorithm: Algorithm) -> tuple[Any, Any]:
    """TRL's trainer, on tokens, and the class of its arguments."""
    with warnings.catch_warnings():
        # TRL imports vLLM, for a use that is none here, and says which versions it would support.
        warnings.simplefilter("ignore")
        import trl

        name = _NAMES[algorithm]
        base, arguments = getattr(trl, f"{name}Trainer"), getattr(trl, f"{name}Config")
    return type(f"{name}OnTokens", (_OnTokens, base), {}), arguments


def reinforce(
    run: Run,
    policy: Path,
    asks: Sequence[Ask],
    reference: Reference,
    config: RlPolicy,
    *,
    reader: PolicyTokenizer,
    max_tokens: int,
    seed: int,
    write: Writer,
    folder: Path,
    work: Path,
    tracking: Tracking = Tracking(),
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Train on all ranks, write metrics and snapshots into `folder`, these with `write`. `max_tokens`: of a
    response. The model (LoRA merged) and the means of the last tenth of its steps. Raises TrainingError."""
    return together(
        _reinforce,
        run,
        policy,
        asks,
        reference,
        config,
        reader,
        max_tokens,
        seed,
        write,
        folder,
        work,
        tracking,
    )


def _reinforce(
    run: Run,
    policy: Path,
    asks: Sequence[Ask],
    reference: Reference,
    config: RlPolicy,
    reader: PolicyTokenizer,
    max_tokens: int,
    seed: int,
    write: Writer,
    folder: Path,
    work: Path,
    tracking: Tracking,
) -> tuple[PreTrainedModel, dict[str, float]]:
    trainer = new_trainer(
        run, policy, asks, reference, config, reader=reader, max_tokens=max_tokens, seed=seed, work=work
    )
    train_in_32_bits(trainer.model)
    dtype = stored_dtype(str(policy), config.training.saved_dtype)
    snapshots = Snapshots(tuple(config.snapshots_at), write, dtype=dtype, work=work)
    trainer.add_callback(snapshots)
    with models_stay():
        history = run_trainer(trainer, work=work, folder=folder, tracking=tracking)
    if rank() == 0:
        keep_adapter(trainer.model, folder)
    snapshots.copy_to(folder)
    trained = finished(trainer.model, dtype)
    return trained, summary(history)


def new_trainer(
    run: Run,
    policy: Path,
    asks: Sequence[Ask],
    reference: Reference,
    config: RlPolicy,
    *,
    reader: PolicyTokenizer,
    max_tokens: int,
    seed: int,
    work: Path,
) -> Any:
    """A trainer of the policy in that folder, which is its reference as well."""
    settings = config.training
    check_groups(config)
    model = AutoModelForCausalLM.from_pretrained(policy, use_safetensors=True, dtype=loading_dtype(settings))
    ends = model.generation_config.eos_token_id
    reward = GroupReward(
        config=config,
        names=run.names,
        prompts={ask.prompt.id: ask.prompt for ask in asks},
        score=CalibratedRewards(run),
        combine=combiner(config.combine, reference.rewards_NK),
        usual=reference.usual,
        reader=reader,
        end_ids=frozenset([reader.end_id, *(ends if isinstance(ends, list) else [ends])]),
    )
    trainer, arguments = trainer_class(config.algorithm)
    return trainer(
        model=model,
        reward_funcs=reward,
        args=arguments(
            output_dir=str(work),
            **rank_options(settings.batch_size),
            **schedule_arguments(settings, seed=seed),
            beta=config.beta,
            num_generations=config.samples_per_prompt,
            max_completion_length=max_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=0,
            shuffle_dataset=False,
            # Old and new log-probabilities of a response are compared.
            disable_dropout=True,
            **_LOSSES[config.algorithm],
        ),
        train_dataset=Dataset.from_list([row_of(ask, reader) for ask in asks]),
        processing_class=reader.tokenizer,
        peft_config=lora_config(settings, task="CAUSAL_LM"),
    )


def row_of(ask: Ask, reader: PolicyTokenizer) -> dict[str, Any]:
    """What TRL is given: the prompt as it is written, and what the reward function wants to know."""
    return {
        "prompt": reader.prompt_text(ask.messages, ask.context),
        "prompt_id": ask.prompt.id,
        "weights": list(ask.weights),
    }


def check_groups(config: RlPolicy) -> None:
    """Raise ValueError where a rank would have parts of groups."""
    batch, group = config.training.batch_size, config.samples_per_prompt
    mine = check_batch_size(batch, name="batch_size")
    if mine % group:
        raise ValueError(
            f"batch_size is {batch} responses, of which this rank has {mine}: "
            f"not whole groups of samples_per_prompt = {group}"
        )


def summary(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of what was logged in the last tenth of the steps. `kl`: of the policy from its start, nats a
    response."""
    logged = [entry for entry in history if "utility" in entry]
    last = logged[-max(1, len(logged) // 10) :]
    names = [name for name in last[-1] if name.startswith(("utility", "reward.", "stray_", "unfinished"))]
    found = {name: float(np.mean([entry[name] for entry in last])) for name in names}
    if "kl" in last[-1]:  # logged by token
        found["kl"] = float(np.mean([entry["kl"] * entry["completions/mean_length"] for entry in last]))
    return found
