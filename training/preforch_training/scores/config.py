"""`[scores]`: how raw rewards are put on one scale."""

from preforch_models.calibration import Method
from preforch_models.objectives import Record


class Config(Record):
    """`[scores]` (METHOD 2)."""

    calibration: Method
