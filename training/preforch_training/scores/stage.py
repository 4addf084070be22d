"""Stage `scores`: rewards of every response of the overall pairs, out-of-fold on training prompts, and calibration.

In:  overall pairs, reward models; for `log_odds` the validation pairs of each objective.
Out: `scores.parquet` (ScoredResponse, raw rewards), `calibration.json`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from preforch_models.calibration import Method, fit_calibration
from preforch_models.objectives import Record
from pydantic import Field

from preforch_training.data.splits import fold_of
from preforch_training.records import OVERALL, PreferencePair, Prompt, ScoredResponse, by_id, read_records
from preforch_training.reward.scoring import TRAINED, open_scorer, pair_margins
from preforch_training.run import Outcome, Run
from preforch_training.scores.table import write_scores

if TYPE_CHECKING:
    from preforch_training.config import RunConfig


class Config(Record):
    """`[scores]`. `folds`: how many fold models the reward stage trains; 1 would be in-sample and is refused."""

    calibration: Method
    folds: int = Field(default=5, ge=2, le=20)


def build(run: Run, config: "RunConfig") -> None:
    """Make `scores/`."""

    def make(folder: Path, work: Path) -> Outcome:
        del work
        scored = score_pairs(run, config)
        # A response that stands in several pairs counts once.
        train = {(s.prompt_id, s.response): s.rewards for s in scored if s.split == "train"}
        rows_NK = np.array([[rewards[name] for name in config.names] for rewards in train.values()])
        method = config.scores.calibration
        margins = held_out_margins(run, config) if method == "log_odds" else {}
        calibration = fit_calibration(rows_NK, config.names, method=method, margins=margins)
        write_scores(folder, scored, calibration)
        counts = {"responses": len(scored), "train_responses": len(rows_NK)}
        return Outcome(
            counts=counts | {f"calibration_pairs/{name}": len(found) for name, found in margins.items()}
        )

    inputs = {"data": run.data} | {f"reward/{name}": run.reward(name) for name in config.names}
    recipe = config.scores.model_dump(mode="json") | {"objectives": list(config.names)}
    run.make(run.scores, kind="scores", config=recipe, inputs=inputs, build=make)


def score_pairs(run: Run, config: "RunConfig") -> list[ScoredResponse]:
    """Both sides of every overall pair. A training prompt is scored by the models that never saw its fold."""
    prompts = by_id(read_records(run.data / "prompts.jsonl", Prompt))
    pairs = [
        pair for pair in read_records(run.data / "pairs.jsonl", PreferencePair) if pair.objective == OVERALL
    ]
    sides = [(pair, side, getattr(pair, side)) for pair in pairs for side in ("chosen", "rejected")]
    trained = any(reward.kind in TRAINED for reward in config.reward.values())
    folds = [
        fold_of(prompts[pair.prompt_id].messages, config.scores.folds)
        if trained and pair.split == "train"
        else None
        for pair, _, _ in sides
    ]
    rewards_NK = open_scorer(run, config).raw(
        [prompts[pair.prompt_id] for pair, _, _ in sides], [response for _, _, response in sides], folds=folds
    )
    return [
        ScoredResponse(
            prompt_id=pair.prompt_id,
            pair_id=pair.id,
            side=side,
            response=response,
            rewards=dict(zip(config.names, rewards_K.tolist(), strict=True)),
            fold=fold,
            split=pair.split,
        )
        for (pair, side, response), fold, rewards_K in zip(sides, folds, rewards_NK, strict=True)
    ]


def held_out_margins(run: Run, config: "RunConfig") -> dict[str, np.ndarray]:
    """Raw r(y+) - r(y-) of each objective's validation pairs, (M,), by its full model, which never saw them."""
    prompts = by_id(read_records(run.data / "prompts.jsonl", Prompt))
    every = [
        pair for pair in read_records(run.data / "pairs.jsonl", PreferencePair) if pair.split == "validation"
    ]
    own = {name: [pair for pair in every if pair.objective == name] for name in config.names}
    return {
        name: pair_margins(config.reward[name], run.reward(name), run.encoder_cache, prompts, pairs)
        for name, pairs in own.items()
    }
