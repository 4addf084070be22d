"""How much the served weights of a prompt move when it is worded another way (METHOD 4).

In:  held-out prompts, their weights, and a function that gives the weights of texts.
Out: `Stability` of every rewording that changes a prompt at all, and, to compare, of pairs of different
     prompts.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from preforch_training.report.facts import Facts
from preforch_training.report.records import Stability
from preforch_training.report.robustness.rewordings import SURFACE, reword
from preforch_training.statistics.bootstrap import Bootstrap, Interval, interval_of, mean_interval

if TYPE_CHECKING:
    from preforch_training.demo.truth import WorldTruth

Weigh = Callable[[Sequence[str]], np.ndarray]
"""(N) texts -> (N, K) weights as they are served."""

PROMPTS = 200
PHRASING = "another phrasing"
UNRELATED = "unrelated prompts"


def report_stability(
    facts: Facts, f_PK: np.ndarray, weigh: Weigh, truth: "WorldTruth | None", *, bootstrap: Bootstrap
) -> tuple[Stability, ...]:
    """Over at most `PROMPTS` test prompts, or validation prompts where there are none, drawn at random."""
    held_out_P = np.flatnonzero(np.isin(facts.split_P, facts.tests or facts.held_out))
    drawn = np.random.default_rng(bootstrap.seed).permutation(held_out_P)[:PROMPTS].tolist()
    ways = dict(SURFACE) if truth is None else {**SURFACE, PHRASING: truth.rephrase}
    reworded = [
        (kind, place, text)
        for kind, how in ways.items()
        for place in drawn
        if (text := reword(facts.prompts[place], how, seed=bootstrap.seed)) != facts.prompts[place].text
    ]
    place_N, kind_N = np.array([row[1] for row in reworded]), np.array([row[0] for row in reworded])
    moved_NK = weigh([text for _, _, text in reworded])
    distance_N = _distance(f_PK[place_N], moved_NK)
    same_N = f_PK[place_N].argmax(axis=-1) == moved_NK.argmax(axis=-1)

    def over_prompts(values_N: np.ndarray) -> Interval:
        return mean_interval(values_N, np.arange(len(values_N)), bootstrap=bootstrap)

    found = []
    for kind in dict.fromkeys(kind_N.tolist()):
        rows = np.flatnonzero(kind_N == kind)
        true = None
        if truth is not None and facts.true_PK is not None and kind == PHRASING:
            true_NK = np.stack([truth.weights(reworded[row][2]) for row in rows])
            true = over_prompts(_distance(facts.true_PK[place_N[rows]], true_NK))
        same = over_prompts(same_N[rows].astype(float))
        found.append(
            Stability(kind=kind, distance=over_prompts(distance_N[rows]), same_top=same, true_distance=true)
        )
    return (*found, *([_unrelated(facts, f_PK, drawn, bootstrap)] if len(drawn) > 1 else []))


def _unrelated(facts: Facts, f_PK: np.ndarray, drawn: Sequence[int], bootstrap: Bootstrap) -> Stability:
    """All pairs of different prompts."""

    def over_pairs(values_GG: np.ndarray) -> Interval:
        other_GG = 1 - np.eye(len(drawn))

        def mean(counts_BG: np.ndarray) -> np.ndarray:
            # No other prompt may be left in a redraw of very few.
            pairs_B = np.maximum((counts_BG @ other_GG * counts_BG).sum(axis=1), 1)
            return np.asarray((counts_BG @ (values_GG * other_GG) * counts_BG).sum(axis=1) / pairs_B)

        return interval_of(mean, groups=len(drawn), bootstrap=bootstrap)

    f_GK, true_GK = f_PK[drawn], None if facts.true_PK is None else facts.true_PK[drawn]
    top_G = f_GK.argmax(axis=-1)
    return Stability(
        kind=UNRELATED,
        distance=over_pairs(_distance(f_GK[:, None], f_GK)),
        same_top=over_pairs((top_G[:, None] == top_G).astype(float)),
        true_distance=None if true_GK is None else over_pairs(_distance(true_GK[:, None], true_GK)),
    )


def _distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Total variation, half of the summed differences: (..., K), (..., K) -> (...)."""
    return np.asarray(0.5 * np.abs(first - second).sum(axis=-1))
