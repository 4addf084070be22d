"""Which policies are compared, and what each is asked for: prompts with weights (METHOD 9).

In:  facts, f(x) of all prompts, policies. Out: `Plan`; for every policy its share of it, a `Program`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from preforch_models.context import ContextFormat
from preforch_models.policy_card import read_policy_card

from preforch_training.report.facts import Facts
from preforch_training.report.policies.responses import Query, weighted
from preforch_training.statistics.metrics import shuffle_within, simplex_grid
from preforch_training.statistics.predictors import NO_WEIGHTS, RECOMMENDED, SHUFFLED, TRUE, UNIFORM

ONLINE, OFFLINE = "online", "offline"
"""The served policy after its last round, and after its first."""
VALIDATION = "validation"
ALL_TESTS = "test"
"""All test splits together."""


@dataclass(frozen=True)
class Contender:
    """A policy under the name that tables give it. One that reads no weights answers every arm alike."""

    name: str
    folder: Path
    reads_weights: bool = True
    best_of: int = 1
    """Responses of which the one that the weights like best is taken."""
    snapshots: Mapping[int, Path] = field(default_factory=dict)
    """By number of samples, what it was on the way."""

    @property
    def own_arm(self) -> str:
        """The arm that it is compared with others by."""
        return RECOMMENDED if self.reads_weights else NO_WEIGHTS


def contender(name: str, folder: Path, snapshots: Mapping[int, Path]) -> Contender:
    """A policy as its card says it is. Raises ArtifactError where there is none."""
    reads_weights = read_policy_card(folder).conditioning.reads_weights
    return Contender(name, folder, reads_weights=reads_weights, snapshots=snapshots)


@dataclass(frozen=True)
class Plan:
    """All that may be asked. `grid_GK`: the grid's weights; `arms`:
    the weights of all prompts, (P, K), by arm."""

    grid_GK: np.ndarray
    sweep: Mapping[str, np.ndarray]
    """By split, the prompts that answer for the whole grid."""
    utility: Mapping[str, np.ndarray]
    """By test split, the prompts that answer for every arm."""
    arms: Mapping[str, np.ndarray]
    control_split: str

    @property
    def equal_PK(self) -> np.ndarray:
        """Equal weights for all prompts, (P, K)."""
        return self.arms[UNIFORM]

    def own_weights(self, policy: Contender) -> np.ndarray:
        """What a policy is compared with others under, (P, K): f(x); any, where it reads none."""
        return self.arms[RECOMMENDED if policy.reads_weights else UNIFORM]

    @property
    def scopes(self) -> dict[str, np.ndarray]:
        """Prompts of every test split, and of all of them together."""
        every = {ALL_TESTS: np.concatenate(list(self.utility.values()))} if self.utility else {}
        return {**self.utility, **every}


@dataclass(frozen=True)
class Program:
    """What one policy is asked for: the splits of its sweep, and its arms, both as in `Plan`."""

    sweep: Mapping[str, np.ndarray]
    arms: Mapping[str, np.ndarray]

    @property
    def finds_constant(self) -> bool:
        """Whether it asks what the best constant is chosen by, which needs the truth."""
        return TRUE in self.arms and VALIDATION in self.sweep


def make_plan(
    facts: Facts,
    f_PK: np.ndarray,
    fits_P: np.ndarray,
    *,
    step: float,
    sweep_prompts: int,
    utility_prompts: int,
    seed: int,
) -> Plan:
    """The first prompts of each split, whose order is random, that leave room for a response (`fits_P`, (P,)
    bool).

    Without truth only the control split is swept, and no arm needs it.
    """
    rows = {split: np.flatnonzero((facts.split_P == split) & fits_P) for split in facts.held_out}
    control_split = "test_topic" if "test_topic" in rows else (facts.tests or facts.held_out)[0]
    arms = {RECOMMENDED: f_PK, UNIFORM: np.full_like(f_PK, 1 / f_PK.shape[1])}
    if facts.true_PK is not None:
        arms[SHUFFLED] = shuffle_within(f_PK, np.isin(facts.split_P, facts.tests), seed=seed)
        arms[TRUE] = facts.true_PK
    judged = facts.tests or facts.held_out
    swept = [control_split] if facts.true_PK is None else facts.held_out
    return Plan(
        grid_GK=simplex_grid(len(facts.names), step),
        sweep={split: rows[split][:sweep_prompts] for split in swept},
        utility={split: rows[split][: max(sweep_prompts, utility_prompts)] for split in judged},
        arms=arms,
        control_split=control_split,
    )


def program_of(plan: Plan, policy: Contender, *, served: bool) -> Program:
    """Every arm, and the sweeps that fronts and best constants come from; for the served policy those of
    the other splits too.

    A policy that reads no weights has neither sweep nor arms, only its answers: one for each prompt.
    """
    if not policy.reads_weights:
        # Whatever is asked for: the request must carry some weights.
        return Program({}, {NO_WEIGHTS: plan.arms[UNIFORM]})
    needed = {plan.control_split, VALIDATION}
    return Program({s: rows for s, rows in plan.sweep.items() if served or s in needed}, plan.arms)


def grid_of(plan: Plan, prompts: np.ndarray, context_format: ContextFormat) -> list[Query]:
    """Prompt by prompt, all points of the grid."""
    return [
        weighted(int(index), weights_K, context_format) for index in prompts for weights_K in plan.grid_GK
    ]


def asked_of(plan: Plan, program: Program, context_format: ContextFormat) -> list[Query]:
    """Everything that a program asks for; what several of its parts need comes several times."""
    sweep = [key for prompts in program.sweep.values() for key in grid_of(plan, prompts, context_format)]
    return sweep + [
        query for weights_PK in program.arms.values() for query in arm_of(plan, weights_PK, context_format)
    ]


def arm_of(
    plan: Plan,
    weights_PK: np.ndarray,
    context_format: ContextFormat,
    prompts: Sequence[int] | np.ndarray | None = None,
) -> list[Query]:
    """Prompts, each with its own weights: those of all test splits where none are given."""
    indices = np.concatenate(list(plan.utility.values())) if prompts is None else prompts
    return [weighted(int(index), weights_PK[index], context_format) for index in indices]
