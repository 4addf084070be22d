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
| `adpo`  | that of `dpo` where |m| <= `query_margin`, m = beta (h+ - h-);     | 2402.09401, Alg. 2      |
|         | elsewhere -log sigma(|m|), whatever the label says                 |                         |
| `kto`   | per response: 1 - sigma(beta (h - z)) of y+, 1 - sigma(beta        | 2402.01306, Eq. 7       |
|         | (z - h)) of y-; z: mean h of responses to other prompts, >= 0      |                         |

IPO goes by the mean over tokens, as TRL has it from the paper's authors. A margin that a pair must have is a
part of `ref`: so SimPO's gamma and MODPO's other objectives need no trainer of their own. KTO has TRL's
KTOTrainer; a response is set beside the prompt two rows on, which is that of another pair. ADPO reads a batch
once before it trains on it, to find m; a pair that comes again is asked again, by the policy as it is then.
`selective_dpo` is `dpo` on the easiest rows, in the order that they come in (`kinds.difficulty`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from preforch_training.distributed.group import together
from preforch_training.distributed.training import RankTrainer, rank_options
from preforch_training.policy.fine_tuning import schedule_arguments
from preforch_training.policy.settings.fine_tuning import FineTuning
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
        "adpo": {"loss_type": ["sigmoid"]},
        # Its rows come from easy to difficult.
        "selective_dpo": {"loss_type": ["sigmoid"], "train_sampling_strategy": "sequential"},
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


_REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")
_ASKED = "labels/asked"


@dataclass
class ActiveConfig(DPOConfig):  # type: ignore[misc]  # TRL is partly untyped
    """DPO's, and where the policy is sure (METHOD 7)."""

    query_margin: float = 0.0


class ActivePairTrainer(PairTrainer):
    """Swaps the sides of a pair that the policy surely prefers the other way round, before anything reads
    which is which. Needs rows that say what `ref` is."""

    def compute_loss(self, model: Any, inputs: Mapping[str, torch.Tensor], *args: Any, **options: Any) -> Any:
        """Of pairs in the order of their labels where those are asked, else in the policy's own order."""
        margin_B = self.args.beta * self._log_ratio_differences(model, inputs)
        asked_B = margin_B.abs() <= self.args.query_margin
        share = self.accelerator.gather(asked_B.float()).mean().item()
        self._metrics["train" if self.model.training else "eval"][_ASKED].append(share)
        sorted_inputs = with_swapped(inputs, ~asked_B & (margin_B < 0))
        return super().compute_loss(model, sorted_inputs, *args, **options)

    def _log_ratio_differences(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """h+ - h-, (B,), of the policy as it is."""
        with torch.no_grad():
            log_probs_ST: torch.Tensor = model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                labels=inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100),
                use_cache=False,
                fused_lm_head=True,
            ).log_probs
        chosen_B, rejected_B = log_probs_ST.sum(dim=1).chunk(2)
        plus, minus = (inputs[name] for name in _REFERENCES)
        return (chosen_B - plus) - (rejected_B - minus)


def with_swapped(inputs: Mapping[str, torch.Tensor], swapped_B: torch.Tensor) -> dict[str, torch.Tensor]:
    """A batch of B pairs, first its chosen and then its rejected sides, with some of them exchanged."""
    own_B = torch.arange(len(swapped_B), device=swapped_B.device)
    other_B = own_B + len(swapped_B)
    order_S = torch.cat([torch.where(swapped_B, other_B, own_B), torch.where(swapped_B, own_B, other_B)])
    reference_S = torch.cat([inputs[name] for name in _REFERENCES])[order_S]
    sides = {name: value[order_S] for name, value in inputs.items() if name not in _REFERENCES}
    return sides | dict(zip(_REFERENCES, reference_S.chunk(2), strict=True))


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
    found = {ours: last[theirs] for theirs, ours in names.items() if theirs in last}
    return trained, found | labels_asked(history, config.training)


def labels_asked(history: Sequence[Mapping[str, float]], training: FineTuning) -> dict[str, float]:
    """How many labels `adpo` read, once for each time that it met a pair; nothing of other losses."""
    logged = [(entry["step"], entry[_ASKED]) for entry in history if _ASKED in entry]
    if not logged:
        return {}
    rows = training.batch_size * training.accumulation
    asked = sum((b - a) * rows * share for (a, _), (b, share) in pairwise([(0, 0.0), *logged]))
    return {"labels_asked": round(asked)}


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
            **({} if config.query_margin is None else {"query_margin": config.query_margin}),
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
    {
        "kto": (ResponseTrainer, KTOConfig, response_examples),
        "adpo": (ActivePairTrainer, ActiveConfig, pair_examples),
    }
)
