"""`kind = "wic"`: weights in context (PRO-WIC; METHOD 5). Every value carries its origin."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from preforch_training.policy.settings.base import PolicySettings
from preforch_training.policy.settings.fine_tuning import BASE, FineTuning

OfflineResponses = Literal["chosen_and_filtered", "all"]
OnlineWeights = Literal["orchestrator", "constant", "random"]
Keep = Literal["best_by_weights", "any_above_quantile"]


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
    weights: OnlineWeights = "orchestrator"
    """What prompts are asked with. `orchestrator`: f(x) [paper]; `constant`: the best one for the training
    pairs; `random`: from Dirichlet(1), all of them, whatever `random_weight_share` says."""
    random_weight_share: float = Field(ge=0, le=1)
    """Share of online prompts under Dirichlet(1) weights; 0 [paper], a quarter to a half [ours]."""
    original_share: float = Field(default=0.5, ge=0, lt=1)
    """Share of known responses, filtered alike, among the rows of an online round. [RiC]"""

    @property
    def samples(self) -> int:
        """Responses that are sampled and scored for a round."""
        return self.prompts * self.samples_per_prompt

    @property
    def random_share(self) -> float:
        """Share of the prompts under random weights, whatever asks for them."""
        return 1.0 if self.weights == "random" else self.random_weight_share


class WicPolicy(PolicySettings):
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

    @property
    def reads(self) -> str:
        """Weights, by its conditioning."""
        return "context"

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
    def _check(self) -> "WicPolicy":
        if self.online_rounds and self.online is None:
            raise ValueError(f"online_rounds is {self.online_rounds}, but there is no table `online`")
        return self
