"""`kind = "cpo"`: controllable preference optimisation (2402.19085; METHOD 7)."""

from typing import Literal

from pydantic import Field, model_validator

from preforch_training.policy.settings.base import PolicySettings
from preforch_training.policy.settings.fine_tuning import BASE, FineTuning


class CpoPolicy(PolicySettings):
    """DPO on known responses under desired scores: better is what comes nearest to them."""

    kind: Literal["cpo"]
    start: str
    """A policy further up that reads scores: "ric/round-0", a first step that is CPO's as well (fine-tuning
    on every known response under its own scores)."""
    beta: float = Field(default=0.1, gt=0)
    """How much the policy is held to its start. 0.1 [DPO]"""
    free_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the objectives that are free, asked for at their highest score; the others are asked for at
    random ones. [ours]"""
    draws: int = Field(default=4, ge=1)
    """How many desired scores are drawn for two responses. [ours]"""
    training: FineTuning

    @property
    def reads(self) -> str:
        """Weights, by its conditioning."""
        return "scores"

    @property
    def sides(self) -> int:
        """Both responses."""
        return 2

    @property
    def has_reference(self) -> bool:
        """Its start."""
        return True

    @property
    def trainings(self) -> dict[str, FineTuning]:
        """Its training, by its key."""
        return {"training": self.training}

    @model_validator(mode="after")
    def _check(self) -> "CpoPolicy":
        if self.start == BASE:
            raise ValueError(
                f"start is {self.start!r}, which reads no scores: allowed is a policy of kind 'ric' further "
                'up, or one of its rounds ("ric/round-0")'
            )
        return self
