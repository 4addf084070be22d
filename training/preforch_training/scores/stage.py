"""Stage `scores`: rewards of every response of the overall pairs, out-of-fold on training prompts, and
calibration.

In:  overall pairs, reward models; for `log_odds` the validation pairs of each objective.
Out: `scores.parquet` (ScoredResponse, raw rewards), `calibration.json`. Where a run has the one overall
     reward, the same of that in `scores-overall/`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from preforch_training.records import (
    OVERALL,
    Numbers,
    PreferencePair,
    ScoredResponse,
    StoredPrompts,
    by_id,
    in_batches,
)
from preforch_training.reward.scoring import RunRewards
from preforch_training.run import Outcome, Run
from preforch_training.scores.calibration import fit_calibration
from preforch_training.scores.config import Config
from preforch_training.scores.table import write_calibration, write_scores

PAIRS_AT_ONCE = 20_000
"""Whose texts are in memory; ten times as many where a reward is a model that is loaded for them."""


def build(run: Run, config: Config) -> None:
    """Make `scores/`, or `scores-overall/` of `run.overall`."""

    def make(folder: Path, work: Path) -> Outcome:
        del work
        rewards, prompts = RunRewards(run), run.stored_prompts()
        known = _TrainingRewards(run.names)
        write_scores(folder, known.seen(score_pairs(run, rewards, prompts)), run.names)
        rows_NK = known.distinct()
        margins = held_out_margins(run, rewards, prompts) if config.calibration == "log_odds" else {}
        calibration = fit_calibration(rows_NK, run.names, method=config.calibration, margins=margins)
        write_calibration(folder, calibration)
        counts = {"responses": known.responses, "train_responses": len(rows_NK)}
        pairs = {f"calibration_pairs/{name}": len(found) for name, found in margins.items()}
        return Outcome(counts=counts | pairs)

    recipe = config.recipe | {"objectives": list(run.names)}
    run.make(run.scores, kind="scores", config=recipe, inputs={"data": run.data} | run.rewards, build=make)


class _TrainingRewards:
    """Raw rewards of the training responses that went by: what the constants are fitted to."""

    def __init__(self, names: Sequence[str]) -> None:
        self.responses = 0
        self._names, self._keys, self._raw = names, Numbers("q"), Numbers("d")

    def seen(self, scores: Iterator[ScoredResponse]) -> Iterator[ScoredResponse]:
        """The same, noted."""
        for score in scores:
            self.responses += 1
            if score.split == "train":
                self._keys.add(hash((score.prompt_id, score.response)))
                self._raw.add(*(score.rewards[name] for name in self._names))
            yield score

    def distinct(self) -> np.ndarray:
        """(N, K); a response that occurs in several pairs counts once."""
        first_N = np.sort(np.unique(self._keys.array(), return_index=True)[1])
        raw_SK = self._raw.array().reshape(-1, len(self._names))
        # Most often none occurs twice, and no copy is needed.
        return raw_SK if len(first_N) == len(raw_SK) else np.asarray(raw_SK[first_N])


def score_pairs(run: Run, rewards: RunRewards, prompts: StoredPrompts) -> Iterator[ScoredResponse]:
    """Both sides of every overall pair. A training prompt is scored by the models that never saw its fold."""
    at_once = PAIRS_AT_ONCE * (10 if rewards.load_models else 1)
    for pairs in in_batches(run.each_pair(OVERALL), at_once):
        yield from _score(run.names, rewards, prompts, pairs)


def _score(
    names: Sequence[str], rewards: RunRewards, prompts: StoredPrompts, pairs: Sequence[PreferencePair]
) -> Iterator[ScoredResponse]:
    sides = [(pair, side) for pair in pairs for side in ("chosen", "rejected")]
    asked = [prompt for prompt in prompts.of(pair.prompt_id for pair in pairs) for _ in range(2)]
    responses = [getattr(pair, side) for pair, side in sides]
    folds = rewards.own_folds(asked)
    rewards_NK = rewards.raw(asked, responses, folds=folds)
    for (pair, side), response, fold, rewards_K in zip(sides, responses, folds, rewards_NK, strict=True):
        yield ScoredResponse(
            prompt_id=pair.prompt_id,
            pair_id=pair.id,
            side=side,
            response=response,
            rewards=dict(zip(names, rewards_K.tolist(), strict=True)),
            fold=fold,
            split=pair.split,
        )


def held_out_margins(run: Run, rewards: RunRewards, prompts: StoredPrompts) -> dict[str, np.ndarray]:
    """Raw r(y+) - r(y-) of each objective's validation pairs, (M,), by its full model, which never saw
    them."""
    found: dict[str, list[np.ndarray]] = {name: [np.empty(0)] for name in run.names}
    for name, parts in found.items():
        for pairs in in_batches(run.each_pair(name, "validation"), PAIRS_AT_ONCE):
            asked = by_id(prompts.of(pair.prompt_id for pair in pairs))
            parts.append(rewards.margins(name, asked, pairs))
    return {name: np.concatenate(parts) for name, parts in found.items()}
