"""`[bundle]`: how the orchestrator is exported."""

from preforch_models.objectives import Record
from pydantic import Field


class Config(Record):
    """`[bundle]`. Parity is measured on `golden_prompts` held-out prompts; a larger difference is an error.

    `int8` adds the graph in 8 bits, which `preforch serve --precision int8` then uses.
    """

    golden_prompts: int = Field(default=32, ge=1)
    max_difference: float = 1e-4
    int8: bool = True
