"""`kind = "mod"`: policies mixed at decoding (Multi-Objective Decoding, 2406.18853; METHOD 7)."""

from typing import ClassVar, Literal

from preforch_training.policy.settings.base import PolicySettings
from preforch_training.policy.settings.fine_tuning import BASE


class ModPolicy(PolicySettings):
    """A policy whose every token is drawn from all members together, weighed as the request asks."""

    kind: Literal["mod"]
    members: dict[str, str]
    """By objective the policy further up that was trained for it, whole or with LoRA; none reads weights
    itself. One reference and one beta for all make the mixture what the weights ask for."""

    start: ClassVar[str] = BASE

    @property
    def names_objectives(self) -> tuple[str, ...]:
        """Objectives that it names, which must be the run's."""
        return tuple(self.members)

    @property
    def reads(self) -> str:
        """Weights, by its conditioning."""
        return "mixture"

    @property
    def can_be_served(self) -> bool:
        """No engine draws a token from several models."""
        return False

    @property
    def checkpoints(self) -> int:
        """None: its members have theirs."""
        return 0

    @property
    def mixes(self) -> dict[str, str]:
        """Its members."""
        return self.members
