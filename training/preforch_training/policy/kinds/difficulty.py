"""Which pairs are easy for a policy: the validation losses of SelectiveDPO (2502.09650; METHOD 7).

In:  the pairs of a policy with `seeds`; what it starts from.
Out: `<name>/run-1..n`, n = 2 `seeds`, each the `losses.jsonl` of one DPO training; its model is not kept.
     `easiest_first`: the pairs to train on, in that order.

Every seed draws two halves. A DPO training on one, with the policy's own settings, judges the pairs of the
other by their loss -log sigma(beta (h+ - h-)); a pair's difficulty is the mean over the seeds.

Departure: the halves are of prompts, not of pairs, so that no pair is judged by a model that saw its prompt.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from preforch_models.objectives import Record

from preforch_training.policy.kinds.pair_rows import fitting, pair_rows, side_log_probabilities
from preforch_training.policy.pair_tuning import PairRow, train_on_pairs
from preforch_training.policy.settings.preference import PreferencePolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import read_records, write_records
from preforch_training.run import Outcome
from preforch_training.tuning.device_memory import free_memory

LOSSES_FILE = "losses.jsonl"


class PairLoss(Record):
    """The validation loss of one pair."""

    pair_id: str
    loss: float


def judge_difficulty(task: PolicyTask, config: PreferencePolicy, start: Path) -> dict[str, Path]:
    """Make all runs, each an artifact of its own, and give them by name; none without `seeds`."""
    recipe = task.recipe | config.model_dump(mode="json", exclude={"seeds", "share"})
    runs = [task.run.policy_run(task.name, number) for number in range(1, config.runs_apart + 1)]
    for number, target in enumerate(runs, 1):
        task.run.make(
            target,
            kind="difficulty",
            config=recipe | {"run": number},
            inputs={"data": task.run.data, "previous": start},
            build=partial(make_losses, task, config, start, number),
        )
    return {target.name: target for target in runs}


def make_losses(
    task: PolicyTask, config: PreferencePolicy, start: Path, number: int, folder: Path, work: Path
) -> Outcome:
    """Train on one half of the pairs, judge those of the other."""
    seed, half = divmod(number - 1, 2)
    rows = fitting(pair_rows(task, start), max_tokens=task.shared.max_model_len)
    in_first_N = first_half(rows, seed=task.seed(seed, "halves"))
    mine, others = (
        [row for row, first in zip(rows, in_first_N, strict=True) if first == wanted]
        for wanted in (half == 0, half == 1)
    )
    model, metrics = train_on_pairs(
        start,
        mine,
        config.model_copy(update={"loss": "dpo"}),
        seed=task.seed(number, "difficulty"),
        folder=folder,
        work=work,
        tracking=task.run.tracking("policy", task.name, folder.name),
    )
    trained = work / "trained"
    model.save_pretrained(trained)
    del model
    free_memory()
    losses_N = validation_losses(start, trained, others, beta=config.beta)
    pairs = [row.source.id for row in others if row.source is not None]
    found = [PairLoss(pair_id=i, loss=loss) for i, loss in zip(pairs, losses_N.tolist(), strict=True)]
    write_records(folder / LOSSES_FILE, found)
    counts = {"pairs": len(mine), "judged": len(others)}
    return Outcome(counts=counts, metrics=metrics | {"validation_loss": float(losses_N.mean())})


def first_half(rows: Sequence[PairRow], *, seed: int) -> np.ndarray:
    """Which rows belong to the first of two random halves of the prompts, (N,) bool. Raises ValueError where
    there is only one prompt."""
    asked = [row.source.prompt_id for row in rows if row.source is not None]
    prompts = list(dict.fromkeys(asked))
    if len(prompts) < 2:
        raise ValueError(
            f"loss 'selective_dpo' divides the prompts of its {len(rows)} pairs into two halves, and "
            f"there is {len(prompts)} prompt; at least 2 are needed"
        )
    order = np.random.default_rng(seed).permutation(len(prompts))
    first = {prompts[i] for i in order[: len(prompts) // 2]}
    return np.array([prompt_id in first for prompt_id in asked])


def validation_losses(start: Path, trained: Path, rows: Sequence[PairRow], *, beta: float) -> np.ndarray:
    """DPO's loss of pairs under a trained model, with the one that it started from as reference, (N,)."""
    end_id = PolicyTokenizer(start).end_id
    trained_N2, start_N2 = (side_log_probabilities(m, rows, end_id=end_id) for m in (trained, start))
    ratios_N2 = trained_N2 - start_N2
    return np.asarray(np.logaddexp(0.0, -beta * (ratios_N2[:, 0] - ratios_N2[:, 1])))


def easiest_first(rows: Sequence[PairRow], judged: Sequence[Path], *, share: float) -> list[PairRow]:
    """The easiest share of pairs, at least one, from the least mean loss on."""
    losses: dict[str, list[float]] = {}
    for folder in judged:
        for found in read_records(folder / LOSSES_FILE, PairLoss):
            losses.setdefault(found.pair_id, []).append(found.loss)
    difficulty_N = np.array([np.mean(losses[row.source.id]) for row in rows if row.source is not None])
    order_N = np.argsort(difficulty_N, kind="stable")
    return [rows[i] for i in order_N[: max(1, round(share * len(rows)))]]
