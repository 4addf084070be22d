"""Policy kind `preference`: a loss on pairs themselves (METHOD 7).

In:  the overall pairs of training prompts, or, for `modpo`, those of one objective and the calibrated rewards
     of the others; the policy that it starts from, which is its reference as well.
Out: `<name>/round-0`, whose conditioning is `fixed`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from preforch_models.conditioning.fixed import FixedConditioning

from preforch_training.policy.log_probabilities import log_probabilities
from preforch_training.policy.pair_tuning import PairRow, train_on_pairs
from preforch_training.policy.settings.preference import PreferencePolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import OVERALL
from preforch_training.run import Outcome
from preforch_training.scores.calibration import CalibratedRewards
from preforch_training.tuning.device_memory import free_memory


def build(task: PolicyTask, config: PreferencePolicy) -> None:
    """Make the only round."""
    start = task.start(config.start)
    rewards = {"scores": task.run.scores, **task.run.rewards} if config.weights else {}

    def make(folder: Path, work: Path) -> Outcome:
        rows = pair_rows(task, start, objective=config.objective)
        # With their end token.
        fitting = [row for row in rows if row.length < task.shared.max_model_len]
        if not fitting:
            raise ValueError(
                f"none of {len(rows)} pairs fits into {task.shared.max_model_len} tokens; "
                "raise policy.max_model_len"
            )
        model, metrics = train_on_pairs(
            start,
            with_reference(task, start, fitting, config),
            config,
            seed=task.seed(0, "preference"),
            folder=folder,
            work=work,
            tracking=task.run.tracking("policy", task.name, "round-0"),
        )
        task.save(0, model, start, kind=config.kind, conditioning=FixedConditioning(), folder=folder)
        del model
        free_memory()
        return Outcome(counts={"pairs": len(fitting), "too_long": len(rows) - len(fitting)}, metrics=metrics)

    task.run.make(
        task.round(0),
        kind="policy",
        config=task.recipe | config.model_dump(mode="json"),
        inputs={"data": task.run.data, "previous": start, **rewards},
        build=make,
    )


def pair_rows(task: PolicyTask, start: Path, *, objective: str | None = None) -> list[PairRow]:
    """Rows (x, y+, y-) of pairs of training prompts, the overall ones or an objective's, written without any
    context."""
    prompts, reader = task.prompts(), PolicyTokenizer(start, FixedConditioning())
    return [
        PairRow(
            tuple(reader.prompt_ids(prompts[pair.prompt_id].messages, weights={})),
            tuple(reader.response_ids(pair.chosen)),
            tuple(reader.response_ids(pair.rejected)),
            source=pair,
        )
        for pair in task.run.each_pair(objective or OVERALL, "train")
    ]


def with_reference(
    task: PolicyTask, start: Path, rows: Sequence[PairRow], config: PreferencePolicy
) -> list[PairRow]:
    """Rows of `adpo`, whose `ref` is log pi_start(y|x), and of `modpo`, where it has what the other
    objectives want as well: sum over j != k of w_j r_j(x, y) / beta. Rows of other losses as they are."""
    if config.weights is None and config.query_margin is None:
        return list(rows)
    end_id = PolicyTokenizer(start).end_id
    reference_M = log_probabilities(
        start,
        [row.prompt for row in rows for _ in range(2)],
        [(*side, end_id) for row in rows for side in (row.chosen, row.rejected)],
    )
    if config.weights is not None:
        reference_M += others_want(task, rows, config.weights, str(config.objective)) / config.beta
    return [
        replace(row, reference=(float(plus), float(minus)))
        for row, (plus, minus) in zip(rows, reference_M.reshape(-1, 2), strict=True)
    ]


def others_want(
    task: PolicyTask, rows: Sequence[PairRow], weights: Mapping[str, float], objective: str
) -> np.ndarray:
    """Sum of w_j r_j(x, y) over all objectives but one, of both sides of every row in turn, (2 rows,)."""
    weights_K = np.array([weights.get(name, 0.0) if name != objective else 0.0 for name in task.run.names])
    prompts = task.prompts()
    pairs = [row.source for row in rows if row.source is not None]
    texts = [text for pair in pairs for text in (pair.chosen, pair.rejected)]
    asked = [prompts[pair.prompt_id] for pair in pairs for _ in range(2)]
    return np.asarray(CalibratedRewards(task.run)(asked, texts) @ weights_K)
