"""`context`: the policy's chat template prints ` <W1> 0.70 <W2> 0.30` at the end of the last user turn."""

from typing import ClassVar, Literal

from preforch_models.conditioning.base import ConditioningSettings
from preforch_models.context import ContextFormat, Encoding


class ContextConditioning(ConditioningSettings):
    """The policy reads weights in its context, written in `encoding`."""

    reads_weights: ClassVar[bool] = True
    kind: Literal["context"] = "context"
    encoding: Encoding

    def context_format(self, objectives: tuple[str, ...]) -> ContextFormat:
        """How the context is written for these objectives, in this order."""
        return ContextFormat(objectives=objectives, encoding=self.encoding)
