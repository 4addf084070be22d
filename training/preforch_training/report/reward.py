"""How good the reward models are: held-out pair accuracy, agreement with the truth, correlation of margins
(METHOD 1).

Scores of training pairs come from the score table only, where they are out-of-fold unless the rewards have no
fold models; training pairs that are not in it are left out.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from preforch_models.calibration import Calibration

from preforch_training.demo.truth import Truth
from preforch_training.records import OVERALL, PreferencePair, Prompt, ScoredResponse, by_id
from preforch_training.report.facts import Facts
from preforch_training.report.records import PairAccuracy, RewardReport
from preforch_training.statistics.bootstrap import Bootstrap, mean_interval
from preforch_training.statistics.metrics import margin_correlations, pair_hits

RawScorer = Callable[[Sequence[Prompt], Sequence[str]], np.ndarray]
"""(prompts, responses) -> raw rewards by the full models, (N, K)."""

Rewards = Mapping[tuple[str, str], np.ndarray]
"""Raw rewards, (K,), by (prompt id, response)."""

CORRELATED = 0.95


def report_rewards(
    facts: Facts,
    pairs: Sequence[PreferencePair],
    rewards: Rewards,
    calibration: Calibration,
    truth: Truth | None,
    bootstrap: Bootstrap,
) -> RewardReport:
    """Accuracies of every objective in every split."""
    prompts = by_id(facts.prompts)
    accuracies = []
    for k, name in enumerate(facts.names):
        for split in ("train", *facts.held_out):
            rows = [
                pair
                for pair in pairs
                if pair.objective == name
                and pair.split == split
                and all(key in rewards for key in _keys(pair))
            ]
            if rows:
                accuracies.append(_accuracy(rows, k, name, split, prompts, rewards, truth, bootstrap))
    held_out_NK = facts.margin_NK[facts.split_P[facts.prompt_N] != "train"]
    return RewardReport(
        accuracies=tuple(accuracies),
        correlations=margin_correlations(held_out_NK, facts.names),
        calibration=calibration,
    )


def collect_rewards(
    prompts: Sequence[Prompt],
    pairs: Sequence[PreferencePair],
    scores: Sequence[ScoredResponse],
    names: tuple[str, ...],
    score: RawScorer,
) -> dict[tuple[str, str], np.ndarray]:
    """Rewards of the score table, and those of held-out pairs' responses that are not in it."""
    rewards = {
        (entry.prompt_id, entry.response): np.array([entry.rewards[name] for name in names])
        for entry in scores
    }
    known = by_id(prompts)
    held_out = [pair for pair in pairs if pair.split != "train" and pair.objective != OVERALL]
    missing = list(dict.fromkeys(key for pair in held_out for key in _keys(pair) if key not in rewards))
    if missing:
        scored_NK = score(
            [known[prompt_id] for prompt_id, _ in missing], [response for _, response in missing]
        )
        rewards |= dict(zip(missing, scored_NK, strict=True))
    return rewards


def in_sample_warnings(objectives: Sequence[str]) -> list[str]:
    """What a reader must know of rewards without fold models."""
    if not objectives:
        return []
    return [
        f'scores of training prompts are in-sample for {", ".join(objectives)} ([reward] folds = "off"): a '
        "reward model overfits its own pairs, which makes the targets of f(x) too sure, and the accuracy on "
        "training pairs says nothing"
    ]


def correlation_warnings(report: RewardReport) -> list[str]:
    """Objectives that cannot be traded off, since their margins go together."""
    names = list(report.correlations)
    return [
        f"margins of {first} and {second} correlate at {report.correlations[first][second]:.2f}: "
        "the two cannot be traded off"
        for i, first in enumerate(names)
        for second in names[i + 1 :]
        if report.correlations[first][second] >= CORRELATED
    ]


def _accuracy(
    pairs: Sequence[PreferencePair],
    k: int,
    name: str,
    split: str,
    prompts: Mapping[str, Prompt],
    rewards: Rewards,
    truth: Truth | None,
    bootstrap: Bootstrap,
) -> PairAccuracy:
    margin_N = np.array(
        [
            rewards[pair.prompt_id, pair.chosen][k] - rewards[pair.prompt_id, pair.rejected][k]
            for pair in pairs
        ]
    )
    prompt_N = np.array([pair.prompt_id for pair in pairs])
    true_order = None
    if truth is not None:
        texts = [prompts[pair.prompt_id].text for pair in pairs]
        true_N = np.array(
            [
                truth.rewards(text, pair.chosen)[k] - truth.rewards(text, pair.rejected)[k]
                for text, pair in zip(texts, pairs, strict=True)
            ]
        )
        agrees_N = pair_hits(margin_N * true_N)
        true_order = mean_interval(agrees_N, prompt_N, bootstrap=bootstrap)
    return PairAccuracy(
        objective=name,
        split=split,
        pairs=len(pairs),
        accuracy=mean_interval(pair_hits(margin_N), prompt_N, bootstrap=bootstrap),
        true_order=true_order,
    )


def _keys(pair: PreferencePair) -> tuple[tuple[str, str], tuple[str, str]]:
    return (pair.prompt_id, pair.chosen), (pair.prompt_id, pair.rejected)
