"""What a kind of reward is given to fit one model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from preforch_training.records import PreferencePair, Prompt
from preforch_training.tuning.tracking import Tracking


@dataclass(frozen=True)
class FitTask:
    """One model to fit: the full one, or that of a fold, which sees only the other folds' `pairs`.

    `target` is the folder to write, `work` survives a kill, `cache` holds the run's text vectors, `prompts`
    go by id. A kind that trains by a Hugging Face trainer reports to `tracking`.
    """

    target: Path
    work: Path
    cache: Path
    prompts: Mapping[str, Prompt]
    pairs: Sequence[PreferencePair]
    seed: int
    label: str
    tracking: Tracking = field(default_factory=Tracking)
