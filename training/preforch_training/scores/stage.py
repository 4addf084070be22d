"""Stage `scores`: rewards of every response of the overall pairs, out-of-fold on training prompts, and
calibration.

In:  overall pairs, reward models; for `log_odds` the validation pairs of each objective.
Out: `scores.parquet` (ScoredResponse, raw rewards), `calibration.json`.
"""

from pathlib import Path

import numpy as np

from preforch_training.records import OVERALL, ScoredResponse, by_id
from preforch_training.reward.scoring import RunRewards
from preforch_training.run import Outcome, Run
from preforch_training.scores.calibration import fit_calibration
from preforch_training.scores.config import Config
from preforch_training.scores.table import write_scores


def build(run: Run, config: Config) -> None:
    """Make `scores/`."""

    def make(folder: Path, work: Path) -> Outcome:
        del work
        rewards = RunRewards(run)
        scored = score_pairs(run, rewards)
        # A response that occurs in several pairs counts once.
        train = {(s.prompt_id, s.response): s.rewards for s in scored if s.split == "train"}
        rows_NK = np.array([[found[name] for name in run.names] for found in train.values()])
        margins = held_out_margins(run, rewards) if config.calibration == "log_odds" else {}
        calibration = fit_calibration(rows_NK, run.names, method=config.calibration, margins=margins)
        write_scores(folder, scored, calibration)
        counts = {"responses": len(scored), "train_responses": len(rows_NK)}
        pairs = {f"calibration_pairs/{name}": len(found) for name, found in margins.items()}
        return Outcome(counts=counts | pairs)

    recipe = config.recipe | {"objectives": list(run.names)}
    run.make(run.scores, kind="scores", config=recipe, inputs={"data": run.data} | run.rewards, build=make)


def score_pairs(run: Run, rewards: RunRewards) -> list[ScoredResponse]:
    """Both sides of every overall pair. A training prompt is scored by the models that never saw its fold."""
    prompts = by_id(run.prompts())
    sides = [
        (pair, side, getattr(pair, side)) for pair in run.pairs(OVERALL) for side in ("chosen", "rejected")
    ]
    asked = [prompts[pair.prompt_id] for pair, _, _ in sides]
    folds = rewards.own_folds(asked)
    rewards_NK = rewards.raw(asked, [response for _, _, response in sides], folds=folds)
    return [
        ScoredResponse(
            prompt_id=pair.prompt_id,
            pair_id=pair.id,
            side=side,
            response=response,
            rewards=dict(zip(run.names, rewards_K.tolist(), strict=True)),
            fold=fold,
            split=pair.split,
        )
        for (pair, side, response), fold, rewards_K in zip(sides, folds, rewards_NK, strict=True)
    ]


def held_out_margins(run: Run, rewards: RunRewards) -> dict[str, np.ndarray]:
    """Raw r(y+) - r(y-) of each objective's validation pairs, (M,), by its full model, which never saw
    them."""
    prompts = by_id(run.prompts())
    return {name: rewards.margins(name, prompts, run.pairs(name, "validation")) for name in run.names}
