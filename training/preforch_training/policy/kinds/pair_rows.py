"""Rows of preference pairs, for the losses on pairs.

In:  the pairs of training prompts, the policy that the training starts from.
Out: `PairRow`s, those that fit, and what `ref` is where it is not the reference as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from preforch_models.conditioning.fixed import FixedConditioning

from preforch_training.policy.log_probabilities import log_probabilities
from preforch_training.policy.pair_tuning import PairRow
from preforch_training.policy.settings.preference import PreferencePolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import OVERALL
from preforch_training.scores.calibration import CalibratedRewards


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


def fitting(rows: Sequence[PairRow], *, max_tokens: int) -> list[PairRow]:
    """Rows that fit with their end token. Raises ValueError when none does."""
    found = [row for row in rows if row.length < max_tokens]
    if not found:
        raise ValueError(
            f"none of {len(rows)} pairs fits into {max_tokens} tokens; raise policy.max_model_len"
        )
    return found


def with_reference(
    task: PolicyTask, start: Path, rows: Sequence[PairRow], config: PreferencePolicy
) -> list[PairRow]:
    """Rows of `adpo`, whose `ref` is log pi_start(y|x), and of `modpo`, where it has what the other
    objectives want as well: sum over j != k of w_j r_j(x, y) / beta. Rows of other losses as they are."""
    if config.weights is None and config.query_margin is None:
        return list(rows)
    reference_M = side_log_probabilities(start, rows, end_id=PolicyTokenizer(start).end_id).ravel()
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


def side_log_probabilities(model: Path, rows: Sequence[PairRow], *, end_id: int) -> np.ndarray:
    """log p of y+ and y- with their end token, (N, 2)."""
    found_M = log_probabilities(
        model,
        [row.prompt for row in rows for _ in range(2)],
        [(*side, end_id) for row in rows for side in (row.chosen, row.rejected)],
    )
    return found_M.reshape(-1, 2)
