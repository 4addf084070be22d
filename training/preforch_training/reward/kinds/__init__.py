"""The kinds of reward: how each is fitted, where it is trained, and how it scores. Nothing else tells them
apart.

`config.Reward` has the settings of each kind, under the same name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from preforch_training.records import Prompt
from preforch_training.reward.fit_task import FitTask
from preforch_training.reward.kinds import bradley_terry, classifier, endpoint, function, pair_head
from preforch_training.reward.kinds.pair_head import CrossFit

# Each function takes the settings of its own kind first, which no common type can say.
Score = Callable[[Any, Path, Path, Sequence[Prompt], Sequence[str]], np.ndarray]
"""(settings, model folder, vector cache, prompts, responses) -> raw rewards, (N,)."""
Fit = Callable[[Any, FitTask], None]
Prepare = Callable[[Any, Path, Iterable[str]], None]


@dataclass(frozen=True)
class Kind:
    """`by_rows`: whether `score` is a model's work on rows that processes can share. `fit`: where the
    reward is trained. `prepare`: (settings, vector cache, all texts), once before every fit. `cross_fit`:
    models that are fitted in memory, for the study. `reads`: prompts and responses apart, or joined in one
    text, where a number of tokens limits them."""

    score: Score
    reads: Literal["apart", "joined"] | None = None
    by_rows: bool = False
    fit: Fit | None = None
    prepare: Prepare | None = None
    cross_fit: Callable[[Any, Path, Sequence[str], Sequence[str]], CrossFit] | None = None


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "pair_head": Kind(
            pair_head.score,
            reads="apart",
            fit=pair_head.fit,
            prepare=pair_head.prepare,
            cross_fit=pair_head.cross_fit,
        ),
        "bradley_terry": Kind(bradley_terry.score, reads="joined", by_rows=True, fit=bradley_terry.fit),
        "classifier": Kind(classifier.score, reads="joined", by_rows=True),
        "function": Kind(function.score),
        "endpoint": Kind(endpoint.score),
    }
)
