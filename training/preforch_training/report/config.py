"""`[report]`: how much is sampled and redrawn to judge a run."""

from preforch_models.objectives import Record
from pydantic import Field


class BestOf(Record):
    """The best of several responses by the calibrated rewards under a prompt's weights: what sampler and
    rewards are worth without any training for weights."""

    policy: str
    """Which policy of the run they are drawn from; one that reads no weights."""
    samples: int = Field(default=8, ge=2)
    """Responses to each prompt."""


class Config(Record):
    """`[report]`. The defaults keep the demo's sampling near a minute on two cores."""

    replicates: int = Field(default=1000, ge=100)
    """Replicates of every bootstrap interval."""
    grid_step: float = Field(default=0.2, gt=0, le=0.5)
    """Step of the grid of weights for control, sweep and best constant; must divide 1."""
    sweep_prompts: int = Field(default=50, ge=2)
    """Prompts of each swept split that answer for every point of the grid."""
    utility_prompts: int = Field(default=150, ge=2)
    """Prompts of each test split that answer for recommended, uniform, shuffled and true weights."""
    best_of: BestOf | None = None
    """A row of best-of-n beside the policies."""
    reference: str | None = None
    """The policy of the run that KL divergences are from: one that reads no weights. None: there are none."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Policies whose true utilities are compared prompt by prompt, besides the served one with each other
    one; for generated worlds, whose truth is known."""
