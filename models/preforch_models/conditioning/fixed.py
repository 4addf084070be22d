"""`fixed`: weights were used in training, if at all. The policy does not read those of a request."""

from typing import ClassVar, Literal

from preforch_models.conditioning.base import ConditioningSettings
from preforch_models.context import ContextFormat


class FixedConditioning(ConditioningSettings):
    """The policy answers alike whatever the weights are."""

    reads_weights: ClassVar[bool] = False
    kind: Literal["fixed"] = "fixed"

    def context_format(self, _objectives: tuple[str, ...]) -> ContextFormat | None:
        """None: there is no context to write."""
        return None
