"""Training of a policy on preference pairs themselves, by TRL's DPOTrainer (METHOD 7).

In:  a policy folder, which is where the training starts and what it is compared with; rows of prompt, chosen
     and rejected token ids; a loss.
Out: the trained model with LoRA merged, the metrics of the training.

With h = log pi(y|x) - ref(y|x) of each response, ref = log pi_ref unless said otherwise, and |y| its tokens:

| loss    | per pair                                                           | source                  |
|---------|--------------------------------------------------------------------|-------------------------|
| `dpo`   | -log sigma(beta (h+ - h-))                                         | 2305.18290, Eq. 7       |
| `ipo`   | (h+/|y+| - h-/|y-| - 1 / (2 beta))^2                               | 2310.12036, Eq. 17      |
| `wpo`   | that of `dpo`, times how likely the policy is to say both          | 2406.11827, Eq. 2       |
| `simpo` | that of `dpo` with h/|y|; ref is 0, and gamma |y+| / beta for y+   | 2405.14734, Eq. 6       |

IPO goes by the mean over tokens, as TRL has it from the paper's authors. A margin that a pair must have is a
part of `ref`: so SimPO's gamma needs no trainer of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl import DPOConfig, DPOTrainer

from preforch_training.distributed.group import together
from preforch_training.distributed.training import RankTrainer, rank_options
from preforch_training.policy.fine_tuning import schedule_arguments
from preforch_training.policy.settings.preference import PreferenceLoss, PreferencePolicy
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.tuning.hf_trainer import run_trainer
from preforch_training.tuning.tracking import Tracking
from preforch_training.tuning.tuned_model import (
    finished,
    loading_dtype,
    lora_config,
    stored_dtype,
    train_in_32_bits,
)


@dataclass(frozen=True)
class PairRow:
    """One training example: ids of the prompt, and of both responses without the end token."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def length(self) -> int:
        """Of the longer side."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


LOSSES: Mapping[PreferenceLoss, Mapping[str, Any]] = MappingProxyType(
    {
        "dpo": {"loss_type": ["sigmoid"]},
        "ipo": {"loss_type": ["ipo"]},
        "wpo": {"loss_type": ["sigmoid"], "use_weighting": True},
        "simpo": {"loss_type": ["sigmoid_norm"]},
    }
)
"""How TRL is told of them."""


class PairTrainer(RankTrainer, DPOTrainer):  # type: ignore[misc]  # TRL is partly untyped
    """TRL's trainer on rows of token ids, which say themselves what `ref` is where there is no reference."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """As it is: nothing is decoded and encoded again."""
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any) -> Dataset:
        """Those of the rows."""
        return dataset


def train_on_pairs(
    policy: Path,
    rows: Sequence[PairRow],
    config: PreferencePolicy,
    *,
    seed: int,
    folder: Path,
    work: Path,
    tracking: Tracking = Tracking(),
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Train on all ranks, write metrics into `folder`. The model (LoRA merged) and last metrics. Raises
    TrainingError."""
    return together(
        _train_on_pairs, policy, rows, config, seed=seed, folder=folder, work=work, tracking=tracking
    )


def _train_on_pairs(
    policy: Path,
    rows: Sequence[PairRow],
    config: PreferencePolicy,
    *,
    seed: int,
    folder: Path,
    work: Path,
    tracking: Tracking,
) -> tuple[PreTrainedModel, dict[str, float]]:
    trainer = new_trainer(policy, rows, config, seed=seed, work=work)
    train_in_32_bits(trainer.model)
    history = run_trainer(trainer, work=work, folder=folder, tracking=tracking)
    trained = finished(trainer.model, stored_dtype(str(policy), config.training.saved_dtype))
    last = [entry for entry in history if "loss" in entry][-1]
    return trained, {"loss": last["loss"], "pair_accuracy": last["rewards/accuracies"]}


def new_trainer(
    policy: Path, rows: Sequence[PairRow], config: PreferencePolicy, *, seed: int, work: Path
) -> PairTrainer:
    """A trainer of the policy, whose reference is the policy as it is now."""
    reader, settings = PolicyTokenizer(policy), config.training
    examples = [_example(row, reader.end_id) for row in rows]
    if config.gamma is not None:
        for example in examples:
            # The mean over tokens makes gamma / beta of it.
            example["ref_chosen_logps"] = config.gamma / config.beta * len(example["chosen_ids"])
            example["ref_rejected_logps"] = 0.0
    arguments = DPOConfig(
        output_dir=str(work),
        **rank_options(settings.batch_size),
        **schedule_arguments(settings, seed=seed),
        **LOSSES[config.loss],
        beta=config.beta,
        precompute_ref_log_probs=not config.has_reference,
        # Rows that are too long are left out beforehand and counted.
        max_length=None,
    )
    return PairTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            policy, use_safetensors=True, dtype=loading_dtype(settings)
        ),
        args=arguments,
        train_dataset=Dataset.from_list(examples),
        processing_class=reader.tokenizer,
        peft_config=lora_config(settings, task="CAUSAL_LM"),
    )


def _example(row: PairRow, end_id: int) -> dict[str, Any]:
    return {
        "prompt_ids": list(row.prompt),
        "chosen_ids": [*row.chosen, end_id],
        "rejected_ids": [*row.rejected, end_id],
    }
