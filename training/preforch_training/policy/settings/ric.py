"""`kind = "ric"`: Rewards in Context (2402.10207; METHOD 7). Every value carries its origin."""

from typing import ClassVar, Literal

from preforch_models.score_format import ScoreMapping
from pydantic import Field, model_validator

from preforch_training.policy.settings.base import PolicySettings
from preforch_training.policy.settings.fine_tuning import BASE, FineTuning

RicKeep = Literal["any_above_quantile", "mean_above_quantile"]


class RicRound(FineTuning):
    """Each online round: 20,000 prompts, 4,000 steps [RiC]."""

    prompts: int = Field(default=20_000, ge=1)
    """Training prompts sampled in each round. All, where there are fewer."""
    keep: RicKeep = "any_above_quantile"
    """`any_above_quantile` [RiC]: any reward above its quantile over known responses, which of three
    objectives hardly any sample fails; `mean_above_quantile` [ours]: the mean of the rewards."""
    original_share: float = Field(default=1 / 3, ge=0, lt=1)
    """Share of known responses, filtered alike, among the rows. 10,000 beside 20,000 [RiC]"""

    @property
    def samples(self) -> int:
        """Responses that are sampled and scored for a round: one a prompt [RiC]."""
        return self.prompts


class RicPolicy(PolicySettings):
    """Rewards in context: trained on what responses obtained, asked for what weights would have.

    `<name>/round-0` offline, `round-1..n` online.
    """

    kind: Literal["ric"]
    mapping: ScoreMapping = "l2"
    """How weights become scores; `l2` is the one of RiC's evaluation."""
    quality_quantile: float = Field(default=0.7, ge=0, lt=1)
    """Quantile of the filter, over known responses. 0.7 [RiC]"""
    offline: FineTuning
    """On every known response, chosen and rejected [RiC]"""
    online_rounds: int = Field(default=2, ge=0)
    """2 [RiC]"""
    online: RicRound | None = None
    """Needed where there are online rounds."""

    start: ClassVar[str] = BASE

    @property
    def reads(self) -> str:
        """Weights, by its conditioning."""
        return "scores"

    @property
    def rounds(self) -> int:
        """Number of its rounds, the offline one included."""
        return 1 + self.online_rounds

    @property
    def trainings(self) -> dict[str, FineTuning]:
        """Its fine-tunings, by their keys."""
        return {"offline": self.offline} | ({"online": self.online} if self.online else {})

    @property
    def repeats(self) -> dict[str, int]:
        """How often each is carried out."""
        return {"offline": 1, "online": self.online_rounds}

    @model_validator(mode="after")
    def _check(self) -> "RicPolicy":
        if self.online_rounds and self.online is None:
            raise ValueError(f"online_rounds is {self.online_rounds}, but there is no table `online`")
        return self
