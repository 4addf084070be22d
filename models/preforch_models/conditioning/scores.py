"""`scores`: the policy reads the rewards that a response should obtain, ` <R1> 1.2 <R2> -0.3` (RiC)."""

from typing import ClassVar, Literal

from preforch_models.conditioning.base import ConditioningSettings
from preforch_models.context import Encoding
from preforch_models.score_format import ScoreFormat, ScoreMapping


class ScoresConditioning(ConditioningSettings):
    """Its chat template makes scores of weights, by `mapping` within `low` and `high`."""

    reads_weights: ClassVar[bool] = True
    kind: Literal["scores"] = "scores"
    encoding: Encoding
    mapping: ScoreMapping
    low: tuple[float, ...]
    high: tuple[float, ...]

    def context_format(self, objectives: tuple[str, ...]) -> ScoreFormat:
        """How scores are written for these objectives, in this order."""
        return ScoreFormat(
            objectives=objectives,
            encoding=self.encoding,
            mapping=self.mapping,
            low=self.low,
            high=self.high,
        )
