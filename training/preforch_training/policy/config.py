"""`[policy]`, what all policies of a run share, and `[policies.<name>]`, one class per kind of policy.

`kinds.KINDS` says how a kind is trained. METHOD 5; every value carries its origin.
"""

from typing import Annotated, ClassVar, Literal

from preforch_models.objectives import Record
from pydantic import Field, model_validator

from preforch_training.paths import ModelName
from preforch_training.sampling.settings import Engine, Sampling
from preforch_training.tuning.options import SavedDtype, Tuning

Template = Literal["own", "chatml"]
OfflineResponses = Literal["chosen_and_filtered", "all"]
Keep = Literal["best_by_weights", "any_above_quantile"]
PreferenceLoss = Literal["dpo", "ipo", "wpo", "simpo"]

DEMO = "demo"
BASE = "base"
RESERVED_NAMES = (BASE, "offline", "online")
"""The folder of the base model, and what the report calls the first and last round of the served policy."""
NEW_FORM = """\
one policy is one table below [policies], and [policy] holds what all of them share:

serve = "wic"            # the policy that `preforch serve RUN` serves; at the top of the file

[policy]
base = "..."             # also: revision, template, scratch, max_model_len, max_response_tokens, ...

[policies.wic]
kind = "wic"             # quality_quantile, tau (was offline_tau), online_rounds
offline = {steps = 900}  # responses (was offline_responses) and the settings of the fine-tuning
online = {steps = 125}   # prompts (was online_prompts), samples_per_prompt, keep, ..., and the fine-tuning

A run without a policy has neither table."""
"""Shown to whoever brings a `[policy]` of format 1."""


class Scratch(Record):
    """Size of a base model that is made from scratch (Qwen2 architecture)."""

    vocabulary: int = Field(default=1400, ge=300)
    """Tokens of the byte-level BPE, without special tokens."""
    width: int = Field(default=128, ge=8)
    """Hidden size."""
    layers: int = Field(default=4, ge=1)
    """Transformer layers."""
    heads: int = Field(default=4, ge=1)
    """Attention heads; the width is a multiple of it."""
    inner: int = Field(default=384, ge=8)
    """Width of the feed-forward layers."""


class Config(Record):
    """`[policy]`: the base model that every policy starts from, and how responses are drawn from a policy."""

    base: ModelName
    """"demo" makes a small model from scratch; otherwise a folder or hub id."""
    revision: str = "main"
    """Revision of a hub id."""
    template: Template = "own"
    """"own": the base's own chat template, with the context at the end of the last user turn; ChatML
    where the base has none. "chatml": ChatML in its place."""
    scratch: Scratch = Scratch()
    """Size of the demo's model."""
    max_model_len: int = Field(default=4096, ge=16)
    """Tokens of prompt and response together; longer training rows are left out and counted."""
    max_response_tokens: int = Field(default=512, ge=1)
    """Token limit of a sampled response."""
    temperature: float = Field(default=0.7, gt=0)
    """[RiC]"""
    top_p: float = Field(default=0.9, gt=0, le=1)
    """[RiC]"""
    engine: Engine = Engine()
    """How vLLM runs: GPUs, memory, dtype."""

    @property
    def sampling(self) -> Sampling:
        """What decides a response."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_response_tokens,
            dtype=self.engine.dtype,
        )

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.max_response_tokens >= self.max_model_len:
            raise ValueError(
                f"max_response_tokens {self.max_response_tokens} leaves no room for a prompt in "
                f"max_model_len {self.max_model_len}"
            )
        return self


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


class OfflineRound(FineTuning):
    """Round 0: 10,000 steps [paper], learning rate 1.4e-4, LoRA 64/128 [RiC]."""

    responses: OfflineResponses
    """`all` [paper]; `chosen_and_filtered` [ours]: chosen ones, and others of high utility under their own
    weights."""


class OnlineRound(FineTuning):
    """Each round n >= 1: 5,000 steps [paper], learning rate 1e-5 [RiC]."""

    prompts: int = Field(default=5000, ge=1)
    """Training prompts sampled in each round; 5,000 [paper]. All, where there are fewer."""
    samples_per_prompt: int = Field(ge=1)
    """1 [RiC], 8 [ours]"""
    keep: Keep
    """`any_above_quantile` [RiC]; `best_by_weights` [ours]: the best under the asked weights, where it is
    better than the prompt's best known response."""
    random_weight_share: float = Field(ge=0, le=1)
    """Share of online prompts under Dirichlet(1) weights; 0 [paper], a quarter to a half [ours]."""
    original_share: float = Field(default=0.5, ge=0, lt=1)
    """Share of known responses, filtered alike, among the rows of an online round. [RiC]"""


class WicPolicy(Record):
    """Weights in context (PRO-WIC; paper, Eq. 10 and 11): `<name>/round-0` offline, `round-1..n` online."""

    kind: Literal["wic"]
    tau: float = Field(gt=0)
    """w*(x, y) = softmax(r / tau) of known responses, Eq. 7. 0.1 [paper]"""
    quality_quantile: float = Field(default=0.7, ge=0, lt=1)
    """Quantile of the filters, over known responses. 0.7 [RiC]; online, `best_by_weights` needs it only for
    prompts of which no response is known."""
    offline: OfflineRound
    online_rounds: int = Field(default=2, ge=0)
    """2 [paper]"""
    online: OnlineRound | None = None
    """Needed where there are online rounds."""

    start: ClassVar[str] = BASE
    reads_weights: ClassVar[bool] = True
    sides: ClassVar[int] = 1
    """Texts of a row."""
    has_reference: ClassVar[bool] = False

    @property
    def rounds(self) -> int:
        """Number of its rounds, the offline one included."""
        return 1 + self.online_rounds

    @property
    def trainings(self) -> dict[str, FineTuning]:
        """Its fine-tunings, by their keys."""
        return {"offline": self.offline} | ({"online": self.online} if self.online else {})

    @model_validator(mode="after")
    def _check(self) -> "WicPolicy":
        if self.online_rounds and self.online is None:
            raise ValueError(f"online_rounds is {self.online_rounds}, but there is no table `online`")
        return self


class SftPolicy(Record):
    """Supervised fine-tuning on the chosen responses alone: a baseline that knows no weights (METHOD 7)."""

    kind: Literal["sft"]
    training: FineTuning

    start: ClassVar[str] = BASE
    reads_weights: ClassVar[bool] = False
    sides: ClassVar[int] = 1
    """Texts of a row."""
    has_reference: ClassVar[bool] = False

    @property
    def rounds(self) -> int:
        """There is only an offline round."""
        return 1

    @property
    def trainings(self) -> dict[str, FineTuning]:
        """Its fine-tuning, by its key."""
        return {"training": self.training}


class PreferencePolicy(Record):
    """A loss on the overall pairs themselves: baselines that know neither rewards nor weights (METHOD 7)."""

    kind: Literal["preference"]
    loss: PreferenceLoss
    """`dpo`, `ipo`, `wpo`: against the policy that it starts from; `simpo` without a reference."""
    beta: float = Field(default=0.1, gt=0)
    """How much the policy is held to its reference. 0.1, SimPO 2.5 [paper]"""
    gamma: float | None = Field(default=None, ge=0)
    """`simpo`: the margin that the better response must have, in units of its loss."""
    start: str = BASE
    """What it starts from: "base", or the name of a policy further up that reads no weights either."""
    training: FineTuning

    reads_weights: ClassVar[bool] = False
    sides: ClassVar[int] = 2
    """Texts of a row."""

    @property
    def has_reference(self) -> bool:
        """Whether a model that stays as it is reads every row as well."""
        return self.loss != "simpo"

    @property
    def rounds(self) -> int:
        """There is only an offline round."""
        return 1

    @property
    def trainings(self) -> dict[str, FineTuning]:
        """Its training, by its key."""
        return {"training": self.training}

    @model_validator(mode="after")
    def _check(self) -> "PreferencePolicy":
        if (self.loss == "simpo") != (self.gamma is not None):
            raise ValueError(f"gamma is {self.gamma}: loss 'simpo' needs it, {self.loss!r} is given")
        return self


Policy = Annotated[WicPolicy | SftPolicy | PreferencePolicy, Field(discriminator="kind")]
