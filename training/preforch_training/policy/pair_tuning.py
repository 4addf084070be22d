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
| `modpo` | that of `dpo` with beta / w_k; ref of y plus                       | 2310.03708, Eq. 9       |
|         | sum over j != k of w_j r_j(y) / beta                               |                         |
| `kto`   | per response: 1 - sigma(beta (h - z)) of y+, 1 - sigma(beta        | 2402.01306, Eq. 7       |
|         | (z - h)) of y-; z: mean h of responses to other prompts, >= 0      |                         |

IPO goes by the mean over tokens, as TRL has it from the paper's authors. A margin that a pair must have is a
part of `ref`: so SimPO's gamma and MODPO's other objectives need no trainer of their own. KTO has TRL's
KTOTrainer; a response is set beside the prompt two rows on, which is that of another pair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from preforch_training.distributed.group import together
from preforch_training.distributed.training import RankTrainer, rank_options
from preforch_training.policy.fine_tuning import schedule_arguments
from preforch_training.policy.settings.preference import PreferenceLoss, PreferencePolicy
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import PreferencePair
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
    reference: tuple[float, float] | None = None
    """`ref` of both, where it is not the log-probability of the policy that the training starts from."""
    source: PreferencePair | None = None
    """The pair as it was read."""

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
        "modpo": {"loss_type": ["sigmoid"]},
        # TRL wants these rows as they come.
        "kto": {"loss_type": "kto", "train_sampling_strategy": "sequential"},
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


class ResponseTrainer(RankTrainer, KTOTrainer):  # type: ignore[misc]  # TRL is partly untyped
    """TRL's trainer of single responses on rows of token ids."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """As it is: nothing is decoded and encoded again."""
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
    names = {"loss": "loss", "rewards/accuracies": "pair_accuracy"}
    return trained, {ours: last[theirs] for theirs, ours in names.items() if theirs in last}


def new_trainer(
    policy: Path, rows: Sequence[PairRow], config: PreferencePolicy, *, seed: int, work: Path
) -> Any:
    """A trainer of the policy, whose reference is the policy as it is now."""
    reader, settings = PolicyTokenizer(policy), config.training
    trainer, arguments, examples_of = _TRAINERS.get(config.loss, (PairTrainer, DPOConfig, pair_examples))
    examples = examples_of(rows, config, reader.end_id, seed)
    return trainer(
        model=AutoModelForCausalLM.from_pretrained(
            policy, use_safetensors=True, dtype=loading_dtype(settings)
        ),
        args=arguments(
            output_dir=str(work),
            **rank_options(settings.batch_size),
            **{**schedule_arguments(settings, seed=seed), **LOSSES[config.loss]},
            beta=config.sharpness,
            precompute_ref_log_probs="ref_chosen_logps" in examples[0],
            # Rows that are too long are left out beforehand and counted.
            max_length=None,
        ),
        train_dataset=Dataset.from_list(examples),
        processing_class=reader.tokenizer,
        peft_config=lora_config(settings, task="CAUSAL_LM"),
    )


def pair_examples(
    rows: Sequence[PairRow], config: PreferencePolicy, end_id: int, _: int
) -> list[dict[str, Any]]:
    """One a pair, with `ref` where it is not what the reference says."""
    examples = []
    for row in rows:
        example: dict[str, Any] = {
            "prompt_ids": list(row.prompt),
            "chosen_ids": [*row.chosen, end_id],
            "rejected_ids": [*row.rejected, end_id],
        }
        if config.gamma is not None:
            # The mean over tokens makes gamma / beta of it.
            example["ref_chosen_logps"] = config.gamma / config.beta * len(example["chosen_ids"])
            example["ref_rejected_logps"] = 0.0
        elif row.reference is not None:
            example["ref_chosen_logps"], example["ref_rejected_logps"] = row.reference
        examples.append(example)
    return examples


def response_examples(
    rows: Sequence[PairRow], _: PreferencePolicy, end_id: int, seed: int
) -> list[dict[str, Any]]:
    """Two a pair, in the order of training, each beside a response to another prompt."""
    order = np.random.default_rng(seed).permutation(len(rows))
    sides = [
        (row, [*response, end_id], liked)
        for row in (rows[i] for i in order)
        for response, liked in ((row.chosen, True), (row.rejected, False))
    ]
    return [
        {
            "prompt_ids": list(row.prompt),
            "completion_ids": response,
            "KL_completion_ids": other,
            "label": liked,
        }
        for (row, response, liked), (_, other, _) in zip(sides, [*sides[2:], *sides[:2]], strict=True)
    ]


_TRAINERS: Mapping[PreferenceLoss, tuple[Any, Any, Any]] = MappingProxyType(
    {"kto": (ResponseTrainer, KTOConfig, response_examples)}
)
