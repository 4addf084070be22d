"""`[policy]`, what all policies of a run share, and which kinds `[policies.<name>]` may have.

`settings` has the settings of each kind, `kinds.KINDS` how it is trained.
"""

from typing import Annotated, Literal

from preforch_models.objectives import Record
from pydantic import Field, model_validator

from preforch_training.paths import ModelName
from preforch_training.policy.settings.cpo import CpoPolicy
from preforch_training.policy.settings.fine_tuning import BASE
from preforch_training.policy.settings.mod import ModPolicy
from preforch_training.policy.settings.preference import PreferencePolicy
from preforch_training.policy.settings.ric import RicPolicy
from preforch_training.policy.settings.rl import RlPolicy
from preforch_training.policy.settings.sft import SftPolicy
from preforch_training.policy.settings.soup import SoupPolicy
from preforch_training.policy.settings.wic import WicPolicy
from preforch_training.sampling.settings import Engine, Sampling

Template = Literal["own", "chatml"]

DEMO = "demo"
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


Policy = Annotated[
    WicPolicy | SftPolicy | PreferencePolicy | RlPolicy | RicPolicy | CpoPolicy | SoupPolicy | ModPolicy,
    Field(discriminator="kind"),
]
