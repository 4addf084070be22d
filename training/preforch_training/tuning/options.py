"""What every fine-tuning of a Hugging Face model may choose: of policies, `bradley_terry` rewards and the
orchestrator. `tuned_model` carries it out.
"""

from typing import Literal

from preforch_models.objectives import Record
from pydantic import Field

SavedDtype = Literal["checkpoint", "float32", "bfloat16", "float16"]
"""Numbers that a trained model is stored in; "checkpoint": those of the checkpoint it started from."""


class Tuning(Record):
    """Which parameters are trained, and how memory is saved.

    Trained parameters are 32-bit whatever the checkpoint holds; a GPU computes in bfloat16 where it can.
    """

    lora_rank: int = Field(default=0, ge=0)
    """Rank of LoRA, merged when the training is over; 0 trains every parameter."""
    lora_alpha: float = Field(default=128, gt=0)
    """LoRA's scale is lora_alpha / lora_rank."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of a LoRA layer's inputs that are left out in training."""
    lora_targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Modules that LoRA adapts, by the end of their names (["q_proj", "v_proj"]). "all-linear": every linear
    layer but the head."""
    accumulation: int = Field(default=1, ge=1)
    """Batches a step: memory holds one of them at a time."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, about a third more time."""
