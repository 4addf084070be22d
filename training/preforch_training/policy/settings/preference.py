"""`kind = "preference"`: a loss on pairs (METHOD 7)."""

from typing import Literal

from pydantic import Field, model_validator

from preforch_training.policy.settings.base import PolicySettings
from preforch_training.policy.settings.fine_tuning import BASE, FineTuning

PreferenceLoss = Literal["dpo", "ipo", "wpo", "simpo"]


class PreferencePolicy(PolicySettings):
    """A loss on the overall pairs themselves: baselines that know neither rewards nor weights (METHOD 7)."""

    kind: Literal["preference"]
    loss: PreferenceLoss
    """`dpo`, `ipo`, `wpo`: against the policy that it starts from; `simpo` without a reference."""
    beta: float = Field(default=0.1, gt=0)
    """How much the policy is held to its reference. 0.1, SimPO 2.5 [paper]"""
    gamma: float | None = Field(default=None, ge=0)
    """`simpo`: the margin that the better response must have, in units of its loss."""
    start: str = BASE
    """What it starts from: "base", or the name of a policy further up that reads no weights either."""
    training: FineTuning

    @property
    def sides(self) -> int:
        """Both responses of a pair."""
        return 2

    @property
    def has_reference(self) -> bool:
        """Whether a model that stays as it is reads every row as well."""
        return self.loss != "simpo"

    @property
    def trainings(self) -> dict[str, FineTuning]:
        """Its training, by its key."""
        return {"training": self.training}

    @model_validator(mode="after")
    def _check(self) -> "PreferencePolicy":
        if (self.loss == "simpo") != (self.gamma is not None):
            raise ValueError(f"gamma is {self.gamma}: loss 'simpo' needs it, {self.loss!r} is given")
        return self
