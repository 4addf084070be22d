"""`[study]`: which alternatives of METHOD 2 to 4 are compared."""

from typing import Annotated

from preforch_models.calibration import Method as CalibrationMethod
from preforch_models.objectives import Record
from preforch_models.orchestrator_options import LAST, Layers, Pooling
from pydantic import Field

from preforch_training.data.config import Source
from preforch_training.orchestrator.config import Loss, Target

Share = Annotated[float, Field(gt=0, le=1)]


class Features(Record):
    """Pooling and layers of the frozen encoder."""

    pooling: Pooling
    layers: Layers = LAST

    def __str__(self) -> str:
        return f"{self.pooling} of layers {', '.join(map(str, self.layers))}"


class Config(Record):
    """`[study]`. The table of alternatives crosses `targets`, `losses` and `taus`."""

    folds: int = Field(default=5, ge=3, le=20)
    seeds: int = Field(default=3, ge=1)
    replicates: int = Field(default=1000, ge=100)
    """Of every bootstrap interval."""
    calibrations: tuple[CalibrationMethod, ...] = ("zscore", "log_odds")
    targets: tuple[Target, ...] = ("chosen_softmax", "advantage_softmax", "margin_softmax")
    losses: tuple[Loss, ...] = ("reverse", "forward", "regress")
    taus: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0)
    entropy_priors: tuple[float, ...] = (0.0, 0.01, 0.1)
    """Each makes a `bt_gate`."""
    features: tuple[Features, ...] = (Features(pooling="mean"), Features(pooling="cls"))
    """Of prompts, tried with the recommended choice besides those of the orchestrator."""
    shares: tuple[Share, ...] = (0.125, 0.25, 0.5, 1.0)
    """Of the training prompts, on which the recommended choice and the rewards are fitted again."""
    by_category: bool = False
    """Also hold out whole categories."""
    gap: bool = False
    """Also the closed-form alignment gap; needs prompts with many responses in overall pairs."""
    transfers: tuple[Source, ...] = ()
    """Other sources of overall pairs on which everything fitted here is judged."""
