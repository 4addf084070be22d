"""`kind = "rl"`: reinforcement by the calibrated rewards (METHOD 6). Every value carries its origin."""

import math
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from preforch_training.policy.settings.base import PolicySettings
from preforch_training.policy.settings.fine_tuning import BASE, FineTuning

Algorithm = Literal["rloo", "grpo"]
Combine = Literal["sum", "gdpo", "dvao", "saturation"]
WeightSource = Literal["orchestrator", "uniform", "constant", "shuffled", "context", "overall"]


class Reinforcement(FineTuning):
    """Every step samples the responses that it learns from."""

    keeps_rewards: ClassVar[bool] = True

    @property
    def samples(self) -> int:
        """Responses that are sampled and scored for it."""
        return self.steps * self.batch_size * self.accumulation


class RlPolicy(PolicySettings):
    """Reinforcement of a policy by K rewards, weighed prompt by prompt (paper, Eq. 9)."""

    kind: Literal["rl"]
    start: str = BASE
    """What it starts from and is held to: "base", the name of a policy further up, or one of its rounds
    ("wic/round-0"). One that reads weights for `context`, one that reads none for every other `weights`."""
    weights: WeightSource | dict[str, float]
    """What a prompt's rewards are weighed by. `orchestrator`: f(x) (PRO-MORLHF); `uniform`, `constant` (the
    best one for the training pairs) or a table of weights that sum to 1, {helpful = 1.0} (MORLHF, and a
    soup's members); `shuffled`: f of another prompt, the control; `context` [ours]: f(x), or random weights
    for a share of the prompts, which the policy reads in its context as well; `overall`: the one reward
    `[reward.overall]` in place of K (the paper's PPO row, for which RLOO stands in: TRL has no PPO now)."""
    combine: Combine = "sum"
    """How K rewards become one (`policy.reinforced.combine`); `sum` [paper]"""
    algorithm: Algorithm = "rloo"
    """`rloo`: the KL in the reward and a leave-one-out baseline, closest to Eq. 9; it also stands in for PPO,
    which TRL no longer has. `grpo`: group-relative advantages, the KL in the loss."""
    beta: float = Field(default=0.1, ge=0)
    """Weight of KL(policy || start) against the reward. 0.1 [paper]"""
    samples_per_prompt: int = Field(default=8, ge=2)
    """Responses of a group. 8 [paper]"""
    temperature: float = Field(default=0.8, gt=0)
    """0.8 [paper]"""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """0.95 [paper]"""
    random_weight_share: float = Field(default=0.0, ge=0, le=1)
    """`context`: share of the prompts under Dirichlet(1) weights in place of f(x)."""
    repetition_penalty: float = Field(default=0.0, ge=0)
    """Taken from the reward for every sentence that repeats one of the same response, and for every one
    beyond the number that 95% of the chosen responses keep to. 0 [paper]"""
    prompt_noise: float = Field(default=0.0, ge=0, lt=1)
    """Share of a prompt's words that are others where the policy reads it, for small policies from scratch
    [ours]; rewards and weights are those of the prompt as it is. 0 [paper]"""
    unfinished_penalty: float = Field(default=0.0, ge=0)
    """Taken from the reward of a response that the token limit cut. 0 [paper]"""
    runs: int = Field(default=1, ge=1)
    """Trainings under seeds of their own, whose parameters are averaged [ours]."""
    snapshots: int = Field(default=0, ge=0)
    """Policies that are kept on the way, at equal distances up to the last step and at most one a step: the
    report draws what they answer, for rewards against samples and KL. Each is a whole checkpoint, and takes a
    copy of the model in memory while it is written."""
    training: Reinforcement
    """Its batches hold responses: a multiple of `samples_per_prompt`."""

    @property
    def can_be_sharded(self) -> bool:
        """It samples from the model that it trains, which was never tried in parts."""
        return False

    @property
    def is_one_adapter(self) -> bool:
        """Whether it can be a member of a set: one LoRA adapter on its start."""
        return self.runs == 1 and self.training.lora_rank > 0 and not self.reads_weights

    @property
    def names_objectives(self) -> tuple[str, ...]:
        """Objectives that it names, which must be the run's."""
        return tuple(self.weights) if isinstance(self.weights, dict) else ()

    @property
    def reads(self) -> str:
        """Weights in its context, or none."""
        return "context" if self.weights == "context" else "fixed"

    @property
    def reads_prompts(self) -> bool:
        """Whether its weights depend on the prompt."""
        return self.weights in ("orchestrator", "shuffled", "context")

    @property
    def by_overall(self) -> bool:
        """By the one overall reward."""
        return self.weights == "overall"

    @property
    def has_reference(self) -> bool:
        """Whether a model that stays as it is reads every row as well."""
        return self.beta > 0

    @property
    def trainings(self) -> dict[str, FineTuning]:
        """Its training, by its key."""
        return {"training": self.training}

    @property
    def repeats(self) -> dict[str, int]:
        """How often it is carried out."""
        return {"training": self.runs}

    @property
    def runs_apart(self) -> int:
        """Several runs, of which it is the mean."""
        return self.runs if self.runs > 1 else 0

    @property
    def checkpoints(self) -> int:
        """Its round, the runs that it is the mean of, and the snapshots of all."""
        return (self.rounds + self.runs_apart) * (1 + len(self.snapshots_at))

    @property
    def prompts(self) -> int:
        """Prompts of one training."""
        return self.training.samples // self.samples_per_prompt

    @property
    def snapshots_at(self) -> dict[int, int]:
        """By step after which one is kept, the responses that all runs together have sampled up to there."""
        steps, count = self.training.steps, self.snapshots
        kept = sorted({math.ceil(steps * (i + 1) / count) for i in range(count)})
        a_step = self.training.samples // steps * self.runs
        return {step: step * a_step for step in kept}

    @model_validator(mode="after")
    def _check(self) -> "RlPolicy":
        if self.training.batch_size % self.samples_per_prompt:
            raise ValueError(
                f"training.batch_size is {self.training.batch_size}: it counts responses, in whole groups of "
                f"samples_per_prompt = {self.samples_per_prompt}"
            )
        if self.training.lora_dropout:
            raise ValueError(
                f"training.lora_dropout is {self.training.lora_dropout}: dropout would change "
                "the probabilities that are compared; allowed is 0"
            )
        if self.random_weight_share and self.weights != "context":
            raise ValueError(
                f"random_weight_share is {self.random_weight_share}: weights = {self.weights!r} draws none; "
                "only 'context' does"
            )
        if isinstance(self.weights, dict) and (
            min(self.weights.values(), default=-1) < 0 or abs(sum(self.weights.values()) - 1) > 1e-6
        ):
            raise ValueError(f"weights = {self.weights}: a table holds weights of at least 0 that sum to 1")
        return self
