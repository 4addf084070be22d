"""`[scores]`: how raw rewards are put on one scale, and what computes many of them."""

from typing import Any

from preforch_models.calibration import Method
from preforch_models.objectives import Record
from pydantic import Field

from preforch_training.distributed.config import Scorer, ScoringEngine


class Config(Record):
    """`[scores]` (METHOD 2)."""

    calibration: Method
    engine: ScoringEngine = "local"
    """Of rewards that are classifiers, wherever a run scores many responses. `local`: the ranks of this run;
    `ray`: Ray Data, on the cluster that RAY_ADDRESS names, or one on this machine for the time it takes."""
    workers: int = Field(default=1, ge=1)
    """`ray`: processes that score, each with a GPU where the cluster has some."""

    @property
    def scoring(self) -> Scorer:
        """What computes rewards."""
        return Scorer(engine=self.engine, workers=self.workers)

    @property
    def recipe(self) -> dict[str, Any]:
        """What scores depend on."""
        return self.model_dump(mode="json", include={"calibration"})
