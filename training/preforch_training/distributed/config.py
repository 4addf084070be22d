"""`[distributed]`: what several processes do with a model that they train together; and what scores."""

from typing import Literal

from preforch_models.objectives import Record
from pydantic import Field

Sharding = Literal["ddp", "fsdp2"]
ScoringEngine = Literal["local", "ray"]


class Config(Record):
    """No part of any artifact's recipe: results do not depend on it. One process alone ignores it."""

    sharding: Sharding = "ddp"
    """`ddp`: every rank holds the whole model. `fsdp2`: every rank holds its share of parameters, gradients
    and optimizer state, for models that do not fit otherwise."""
    cpu_offload: bool = False
    """`fsdp2`: shares stay in CPU memory and visit the GPU layer by layer, where even they do not fit."""


class Scorer(Record):
    """What scores many responses with a classifier: see `[scores]`."""

    engine: ScoringEngine = "local"
    workers: int = Field(default=1, ge=1)
