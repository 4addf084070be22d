"""Policy kind `cpo`: controllable preference optimisation (2402.19085; METHOD 7), a baseline.

In:  known responses of training prompts with calibrated rewards; a policy that reads scores, which it starts
     from and is held to.
Out: `<name>/round-0`, whose conditioning is `scores`, as that of its start.

Two known responses to a prompt are compared under desired scores p, which the policy reads: y+ is the one of
larger value, and the loss is DPO's. With rewards r(x, y)

    value(y) = sum_k g_k,    g_k = -|p_k - r_k(x, y)| where k is conditioned, r_k(x, y) where it is free

Departures:
1. A free objective is asked for at its highest score, since our context has a score for every objective. At
   the top, -|p_k - r_k| is r_k less a constant: one formula has both, and what weights ask for at serving
   needs no sign for "free".
2. Scores are calibrated rewards of one decimal, where the paper has ratings of a few levels.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from preforch_models.score_format import ScoreFormat

from preforch_training.policy.kinds.pair_rows import fitting
from preforch_training.policy.kinds.ric import score_format
from preforch_training.policy.known_responses import Known
from preforch_training.policy.pair_tuning import PairRow, train_on_pairs
from preforch_training.policy.settings.cpo import CpoPolicy
from preforch_training.policy.settings.preference import PreferencePolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import Prompt
from preforch_training.run import Outcome
from preforch_training.tuning.device_memory import free_memory


def build(task: PolicyTask, config: CpoPolicy) -> None:
    """Make the only round."""
    start = task.start(config.start)

    def make(folder: Path, work: Path) -> Outcome:
        known, reader = task.known(tau=1.0), PolicyTokenizer(start)
        pairs = np.repeat(known_pairs(known), config.draws, axis=0)
        context, seed = score_format(reader), task.seed(0, "scores")
        desired = desired_scores(context, len(pairs), free_share=config.free_share, seed=seed)
        rows = preferred_rows(known, pairs, desired, task.prompts(), reader)
        fit = fitting(rows, max_tokens=task.shared.max_model_len)
        model, metrics = train_on_pairs(
            start,
            fit,
            PreferencePolicy(kind="preference", loss="dpo", beta=config.beta, training=config.training),
            seed=task.seed(0, "preference"),
            folder=folder,
            work=work,
            tracking=task.run.tracking("policy", task.name, "round-0"),
        )
        conditioning = reader.card.conditioning
        task.save(0, model, start, kind=config.kind, conditioning=conditioning, folder=folder)
        del model
        free_memory()
        counts = {"pairs": len(fit), "too_long": len(rows) - len(fit), "as_near": len(pairs) - len(rows)}
        return Outcome(counts=counts, metrics=metrics)

    task.run.make(
        task.round(0),
        kind="policy",
        config=task.recipe | config.model_dump(mode="json"),
        inputs={"data": task.run.data, "scores": task.run.scores, "previous": start},
        build=make,
    )


def known_pairs(known: Known) -> np.ndarray:
    """Numbers of every two known responses to one prompt, (M, 2). Raises ValueError where none has
    two."""
    places: dict[str, list[int]] = {}
    for number, prompt_id in enumerate(known.prompt_ids):
        places.setdefault(prompt_id, []).append(number)
    pairs = [pair for numbers in places.values() for pair in combinations(numbers, 2)]
    if not pairs:
        raise ValueError(f"none of {len(places)} training prompts has two known responses to compare")
    return np.array(pairs)


def desired_scores(
    context: ScoreFormat, count: int, *, free_share: float, seed: int
) -> list[tuple[str, ...]]:
    """So many, as they are written: of each objective the highest, or one drawn from its range."""
    low_K, high_K = np.array(context.low), np.array(context.high)
    rng = np.random.default_rng(seed)
    free_NK = rng.random((count, len(low_K))) < free_share
    share_NK = np.where(free_NK, 1.0, rng.random((count, len(low_K))))
    return [context.write_scores(scores) for scores in (low_K + share_NK * (high_K - low_K)).tolist()]


def values(desired_MK: np.ndarray, rewards_MK: np.ndarray) -> np.ndarray:
    """How near responses come to what was desired, (M,), at most 0."""
    return np.asarray(-np.abs(desired_MK - rewards_MK).sum(axis=1))


def preferred_rows(
    known: Known,
    pairs_M2: np.ndarray,
    desired: Sequence[tuple[str, ...]],
    prompts: Mapping[str, Prompt],
    reader: PolicyTokenizer,
) -> list[PairRow]:
    """Rows (x, p, y+, y-), one for each two responses and the scores desired of them; none of two that come
    as near."""
    desired_MK = np.array(desired, dtype=float)
    first_M, second_M = (values(desired_MK, known.rewards_NK[pairs_M2[:, side]]) for side in (0, 1))
    rows = []
    for pair, written, first, second in zip(pairs_M2.tolist(), desired, first_M, second_M, strict=True):
        if first == second:
            continue
        better, worse = pair if first > second else reversed(pair)
        rows.append(
            PairRow(
                tuple(reader.written_ids(prompts[known.prompt_ids[better]].messages, written)),
                tuple(reader.response_ids(known.responses[better])),
                tuple(reader.response_ids(known.responses[worse])),
            )
        )
    return rows
