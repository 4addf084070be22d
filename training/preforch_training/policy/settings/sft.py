"""`kind = "sft"`: supervised fine-tuning on chosen responses (METHOD 7)."""

from typing import ClassVar, Literal

from preforch_training.policy.settings.base import PolicySettings
from preforch_training.policy.settings.fine_tuning import BASE, FineTuning


class SftPolicy(PolicySettings):
    """Supervised fine-tuning on the chosen responses alone: a baseline that knows no weights (METHOD 7)."""

    kind: Literal["sft"]
    training: FineTuning

    start: ClassVar[str] = BASE

    @property
    def trainings(self) -> dict[str, FineTuning]:
        """Its fine-tuning, by its key."""
        return {"training": self.training}
