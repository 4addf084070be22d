"""`kind = "sft"`: supervised fine-tuning on chosen responses (METHOD 7)."""

from typing import ClassVar, Literal

from preforch_models.objectives import Record

from preforch_training.policy.settings.fine_tuning import BASE, FineTuning


class SftPolicy(Record):
    """Supervised fine-tuning on the chosen responses alone: a baseline that knows no weights (METHOD 7)."""

    kind: Literal["sft"]
    training: FineTuning

    start: ClassVar[str] = BASE
    reads_weights: ClassVar[bool] = False
    sides: ClassVar[int] = 1
    """Texts of a row."""
    has_reference: ClassVar[bool] = False
    names_objectives: ClassVar[tuple[str, ...]] = ()

    @property
    def rounds(self) -> int:
        """There is only an offline round."""
        return 1

    @property
    def trainings(self) -> dict[str, FineTuning]:
        """Its fine-tuning, by its key."""
        return {"training": self.training}

    @property
    def repeats(self) -> dict[str, int]:
        """How often it is carried out."""
        return {"training": 1}
