"""`kind = "soup"`: policies averaged in parameter space (Rewarded Soups, 2306.04488; METHOD 7)."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from preforch_training.policy.settings.base import PolicySettings
from preforch_training.policy.settings.fine_tuning import BASE


class SoupPolicy(PolicySettings):
    """A set of weighted means of policies, one for each point of a grid of weights."""

    kind: Literal["soup"]
    members: dict[str, str]
    """By objective the policy further up that was trained for it: all with LoRA, from the same start, in one
    run each."""
    step: float = Field(default=0.2, ge=0.01, le=1)
    """Step of the grid of weights; must divide 1."""

    start: ClassVar[str] = BASE

    @property
    def names_objectives(self) -> tuple[str, ...]:
        """Objectives that it names, which must be the run's."""
        return tuple(self.members)

    @property
    def reads(self) -> str:
        """Weights, by its conditioning."""
        return "members"

    @property
    def merges(self) -> dict[str, str]:
        """Its members."""
        return self.members

    @model_validator(mode="after")
    def _check(self) -> "SoupPolicy":
        if abs(round(1 / self.step) * self.step - 1) > 1e-9:
            raise ValueError(f"step is {self.step}: it must divide 1, as 0.1, 0.2 and 0.25 do")
        return self
