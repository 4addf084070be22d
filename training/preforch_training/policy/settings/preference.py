"""`kind = "preference"`: a loss on pairs (METHOD 7)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, model_validator

from preforch_training.policy.settings.base import PolicySettings
from preforch_training.policy.settings.fine_tuning import BASE, FineTuning

PreferenceLoss = Literal["dpo", "ipo", "wpo", "simpo", "kto", "modpo", "adpo", "selective_dpo"]

_OPTIONS: Mapping[str, PreferenceLoss] = MappingProxyType(
    {
        "gamma": "simpo",
        "objective": "modpo",
        "weights": "modpo",
        "query_margin": "adpo",
        "share": "selective_dpo",
        "seeds": "selective_dpo",
    }
)
"""Settings of one loss alone, which needs them."""
_DEFAULTS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {"adpo": {"query_margin": 0.9}, "selective_dpo": {"share": 0.5, "seeds": 3}}
)
"""What such a setting is where nothing is said."""


class PreferencePolicy(PolicySettings):
    """A loss on the overall pairs themselves: baselines that know neither rewards nor weights (METHOD 7)."""

    kind: Literal["preference"]
    loss: PreferenceLoss
    """Against the policy that it starts from; `simpo` without a reference. `modpo` on the pairs of one
    objective, with a margin for the others; `adpo` reads the labels of the pairs that it is unsure of,
    `selective_dpo` the easiest pairs, from easy to difficult."""
    beta: float = Field(default=0.1, gt=0)
    """How much the policy is held to its reference. 0.1, SimPO 2.5 [paper]"""
    gamma: float | None = Field(default=None, ge=0)
    """`simpo`: the margin that the better response must have, in units of its loss."""
    objective: str | None = None
    """`modpo`: whose pairs it is trained on."""
    weights: dict[str, float] | None = None
    """`modpo`: those of all objectives, which sum to 1; that of its own is above 0."""
    query_margin: float | None = Field(default=None, gt=0, exclude_if=lambda value: value is None)
    """`adpo`: the implicit margin beta |h+ - h-| up to which a pair's label is read; beyond it the policy's
    own preference is the label. 0.9 (METHOD 7, after 2402.09401)"""
    share: float | None = Field(default=None, gt=0, le=1, exclude_if=lambda value: value is None)
    """`selective_dpo`: share of the pairs, the easiest, that it is trained on. 0.5 [2502.09650]"""
    seeds: int | None = Field(default=None, ge=1, exclude_if=lambda value: value is None)
    """`selective_dpo`: how often every pair is judged, each time by a training on the half of the prompts
    that its own is not among: twice as many trainings. 3 [2502.09650]"""
    start: str = BASE
    """What it starts from: "base", or the name of a policy further up that reads no weights either."""
    training: FineTuning

    @property
    def sides(self) -> int:
        """Both responses of a pair; `kto` reads them one by one."""
        return 1 if self.loss == "kto" else 2

    @property
    def sharpness(self) -> float:
        """What log-ratios are multiplied with: beta, divided by the weight of MODPO's own objective."""
        if self.weights is None or self.objective is None:
            return self.beta
        return self.beta / self.weights[self.objective]

    @property
    def names_objectives(self) -> tuple[str, ...]:
        """Those of its weights, and its own."""
        return (*(self.weights or ()), *([self.objective] if self.objective else ()))

    @property
    def has_reference(self) -> bool:
        """Whether a model that stays as it is reads every row as well."""
        return self.loss != "simpo"

    @property
    def runs_apart(self) -> int:
        """Trainings that say how difficult its pairs are: on both halves of them, for every seed."""
        return 2 * (self.seeds or 0)

    @property
    def repeats(self) -> dict[str, int]:
        """Its own training, after those that judge."""
        return {"training": 1 + self.runs_apart}

    @property
    def trainings(self) -> dict[str, FineTuning]:
        """Its training, by its key."""
        return {"training": self.training}

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, raw: Any) -> Any:
        """What a loss has of its own, where nothing is said."""
        return {**_DEFAULTS.get(str(raw.get("loss")), {}), **raw} if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _check(self) -> "PreferencePolicy":
        for name, loss in _OPTIONS.items():
            value = getattr(self, name)
            if (value is not None) != (self.loss == loss):
                raise ValueError(f"{name} is {value}: loss {loss!r} needs it, {self.loss!r} is given")
        if self.weights is not None:
            values = self.weights.values()
            if min(values, default=-1) < 0 or abs(sum(values) - 1) > 1e-6:
                raise ValueError(f"weights = {self.weights}: needed are weights of at least 0 that sum to 1")
            if not self.weights.get(str(self.objective)):
                raise ValueError(f"weights = {self.weights}: that of {self.objective!r} must be above 0")
        return self
