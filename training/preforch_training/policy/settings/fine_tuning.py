"""How long, how fast and on which parameters a policy is trained; every kind has one or two of these."""

from typing import ClassVar

from pydantic import Field

from preforch_training.tuning.options import SavedDtype, Tuning

BASE = "base"
"""Where a policy starts that starts from no other: the folder of the base model."""


class FineTuning(Tuning):
    """One supervised fine-tuning: how long, how fast, and which parameters."""

    steps: int = Field(ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate; cosine decay to a tenth."""
    batch_size: int = Field(ge=1)
    """Rows a batch, over all ranks of a run. A step holds batch_size x accumulation rows."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)
    """AdamW's second decay; 0.95 suits short trainings from scratch."""
    save_steps: int = Field(default=200, ge=1)
    """Steps between checkpoints: what a kill can cost."""
    saved_dtype: SavedDtype = "checkpoint"
    """Numbers that the trained policy is stored in; "checkpoint": those of the base."""

    keeps_rewards: ClassVar[bool] = False
    """Whether the reward models stay loaded beside it."""

    @property
    def samples(self) -> int:
        """Responses that are sampled and scored for it."""
        return 0
