"""`[reward]` and `[reward.<objective>]`: what every objective is rewarded by. One class per kind of reward.

`kinds.KINDS` says how a kind is fitted and how it scores.
"""

from typing import Annotated, ClassVar, Literal

from preforch_models.objectives import Record
from preforch_models.orchestrator_options import LAST, Layers, Pooling
from pydantic import ConfigDict, Field, PositiveFloat

from preforch_training.paths import ModelName
from preforch_training.records import OVERALL
from preforch_training.tuning.options import SavedDtype, Tuning


class PairHeadReward(Record):
    """Bradley-Terry head on frozen vectors (`preforch_models.reward_model`), for small data and CPUs.
    [ours]"""

    trained: ClassVar[bool] = True
    cross_fitted: ClassVar[bool] = True
    shared_batch: ClassVar[None] = None
    names_model: ClassVar[str] = "encoder"
    kind: Literal["pair_head"] = "pair_head"
    encoder: ModelName
    pooling: Pooling = "mean"
    layers: Layers = LAST
    """Layers whose pooled states the head reads, joined."""
    max_tokens: int = 128
    hidden: int = Field(default=256, ge=0)
    """Units of the MLP, fitted by AdamW; 0 for a linear head, which is trained to convergence and needs
    nothing below but `penalties`."""
    penalties: tuple[PositiveFloat, ...] = Field(default=(10.0, 3.0, 1.0, 0.3, 0.1, 0.03), min_length=1)
    """L2 penalties of a linear head; a fifth of the prompts that it is fitted on chooses."""
    dropout: float = 0.1
    epochs: int = 12
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    center_coefficient: float = 0.01
    """Pins the offset that the Bradley-Terry loss leaves free. [ours]"""

    @property
    def base_model(self) -> str:
        """The encoder."""
        return self.encoder


TextForm = Literal["auto", "chat", "plain", "pair", "pair_reversed", "hh", "response", "summary"]


class TextReading(Record):
    """What a sequence classifier reads of a prompt and its response."""

    text: TextForm = "auto"
    """How the two become a text, by name; training/README.md has the table. "auto": "chat" where the
    tokenizer has a chat template, else "plain"."""
    prompt_after: str = ""
    """What of a user turn is read: what comes after this string; all of it without one. "### Input:" leaves
    out an instruction."""
    max_tokens: int = Field(default=4096, ge=8)
    """4096 [paper]. No more than the model has positions for. What is too long is cut at the beginning (for
    "summary" and "pair_reversed" at the end of the prompt), never filtered."""


class BradleyTerryReward(Tuning, TextReading):
    """A sequence classifier fine-tuned by TRL's RewardTrainer (paper, Eq. 2; Qwen2.5-0.5B [paper])."""

    trained: ClassVar[bool] = True
    cross_fitted: ClassVar[bool] = False
    names_model: ClassVar[str] = "base"
    kind: Literal["bradley_terry"] = "bradley_terry"
    base: ModelName
    revision: str = "main"
    epochs: float = 1.0
    batch_size: int = 16
    """Pairs a step, over all ranks of a run."""
    learning_rate: float = 1e-5
    center_coefficient: float = 0.01
    save_steps: int = 200
    saved_dtype: SavedDtype = "checkpoint"
    """Numbers that the trained model is stored in; "checkpoint": those of the base. It scores in 32 bits."""

    @property
    def shared_batch(self) -> int:
        """Pairs of a step, shared by the ranks of a run."""
        return self.batch_size

    @property
    def base_model(self) -> str:
        """The model that training starts from."""
        return self.base


class ClassifierReward(TextReading):
    """An existing Hugging Face sequence classifier; its logit `label` is the reward."""

    trained: ClassVar[bool] = False
    cross_fitted: ClassVar[bool] = False
    shared_batch: ClassVar[None] = None
    names_model: ClassVar[str] = "model"
    kind: Literal["classifier"] = "classifier"
    model: ModelName
    revision: str = "main"
    label: int = Field(default=0, ge=0)
    negate: bool = False
    """The reward is minus the logit: of a classifier for what is not wanted, toxicity."""
    batch_size: int = 16

    @property
    def base_model(self) -> str:
        """The classifier itself."""
        return self.model


class FunctionReward(Record):
    """`package.module:function`, called with prompts and responses (lists of str), returns one number
    each."""

    trained: ClassVar[bool] = False
    cross_fitted: ClassVar[bool] = False
    max_tokens: ClassVar[int] = 0
    shared_batch: ClassVar[None] = None
    base_model: ClassVar[str] = ""
    names_model: ClassVar[str] = "function"
    kind: Literal["function"] = "function"
    function: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]


class EndpointReward(Record):
    """HTTP endpoint: POST {"query", "prompts", "labels"} -> {"rewards": [...]} (OpenRLHF's contract)."""

    trained: ClassVar[bool] = False
    cross_fitted: ClassVar[bool] = False
    max_tokens: ClassVar[int] = 0
    shared_batch: ClassVar[None] = None
    base_model: ClassVar[str] = ""
    names_model: ClassVar[str] = "url"
    kind: Literal["endpoint"] = "endpoint"
    url: str
    batch_size: int = 64
    timeout_seconds: float = 60.0


Reward = Annotated[
    PairHeadReward | BradleyTerryReward | ClassifierReward | FunctionReward | EndpointReward,
    Field(discriminator="kind"),
]


class Config(Record):
    """`[reward]`; every key but two is an objective with its reward, `[reward.<objective>] kind = ...`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Reward]
    folds: Annotated[int, Field(ge=2, le=20)] | Literal["off"] = 5
    """Fold models per trained reward, for out-of-fold scores [ours]. "off" [paper]: training prompts are
    scored by the model that was trained on them, in-sample, and the report says so."""

    overall: Reward | None = None
    """One reward for the overall preference, `[reward.overall] kind = ...`, in place of all objectives: for
    policies of kind "rl" with weights = "overall". It is no objective."""

    @property
    def objectives(self) -> dict[str, Reward]:
        """Rewards by objective."""
        return self.__pydantic_extra__

    @property
    def overall_alone(self) -> dict[str, Reward]:
        """The overall reward by its name, where there is one."""
        return {} if self.overall is None else {OVERALL: self.overall}

    @property
    def rewards(self) -> dict[str, Reward]:
        """All rewards of the run, by what their pairs are about."""
        return self.objectives | self.overall_alone
