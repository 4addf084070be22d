"""What `report.json` holds about policies. Every number is finite; what does not apply is null."""

from typing import Literal

from preforch_models.objectives import Record
from pydantic import FiniteFloat

from preforch_training.statistics.bootstrap import Interval

Measure = Literal["true", "calibrated"]


class Control(Record):
    """Rank correlations between the asked weight and the obtained mean reward of one objective, over the
    grid: Spearman's rho, Kendall's tau-b."""

    policy: str
    split: str
    measure: Measure
    objective: str
    spearman: Interval
    kendall: Interval


class SweepPoint(Record):
    """Mean reward of a policy under one vector of weights; `dominated`: another point is higher in every
    objective; `words` of an answer; `kl` from the reference, nats an answer, null without one."""

    policy: str
    split: str
    measure: Measure
    weights: dict[str, FiniteFloat]
    rewards: dict[str, Interval]
    dominated: bool
    words: FiniteFloat
    kl: Interval | None


class Scale(Record):
    """What hypervolumes are measured in: by objective the 5% and 95% quantiles of the training responses'
    rewards. `low` is the reference point, `high` the other corner of the box of volume 1."""

    measure: Measure
    low: dict[str, FiniteFloat]
    high: dict[str, FiniteFloat]


class Front(Record):
    """Quality of the points that a policy reaches on the control split; one that reads no weights has one.

    `hypervolume`: on the `Scale`; `expected_utility`: of the best point under weights ~ Dirichlet(1);
    `epsilon`: what the rewards lack, additively, to the points of all policies together, at most.
    """

    policy: str
    measure: Measure
    points: int
    hypervolume: Interval
    expected_utility: Interval
    epsilon: Interval


class EqualWeights(Record):
    """Mean rewards over all test splits where every prompt is asked with equal weights, or none are read
    (paper, Tables 1 to 4); `mean` over the objectives."""

    policy: str
    measure: Measure
    rewards: dict[str, Interval]
    mean: Interval


class CurvePoint(Record):
    """A policy in training, judged on the test prompts (paper, Figure 3): after so many `samples` of its own.

    `rewards`: calibrated, by objective; `learned`: E[f(x).r] by them; `utility`: E[w°(x).r] by true ones,
    null where the truth is unknown. Where `learned` rises and `utility` falls, rewards are over-optimised.
    """

    policy: str
    samples: int
    kl: Interval | None
    rewards: dict[str, Interval]
    learned: Interval
    utility: Interval | None


class Arm(Record):
    """A policy, and where the weights it was asked for came from."""

    policy: str
    arm: str

    def __str__(self) -> str:
        return f"{self.policy} {self.arm}"


class Utility(Record):
    """E[w°(x).r(x, y)] of one arm. `split` "test" is all test splits together."""

    arm: Arm
    split: str
    utility: Interval


class Difference(Record):
    """Utility of `first` minus that of `second` on the same prompts and seeds."""

    first: Arm
    second: Arm
    split: str
    difference: Interval


class TextMeasures(Record):
    """Answers of one arm. `distinct`: share of them that differ from all others; `distinct_grams`: of their
    3-grams of words; `repeated`: sentences of an answer that it has had before; `words`: its length; `kl`:
    from the reference, nats an answer, null without one."""

    arm: Arm
    responses: int
    distinct: FiniteFloat
    distinct_grams: FiniteFloat
    repeated: FiniteFloat
    words: FiniteFloat
    kl: Interval | None = None


class PolicyReport(Record):
    """`served`: the policy that is served. `fixed`: policies that read no weights, and so have no
    control. `reference`: the one that divergences are from.

    `constant`: the best constant, chosen on validation prompts; null where the truth is unknown or nothing is
    read.
    """

    served: str
    fixed: tuple[str, ...]
    control: tuple[Control, ...]
    sweep: tuple[SweepPoint, ...]
    utilities: tuple[Utility, ...]
    differences: tuple[Difference, ...]
    texts: tuple[TextMeasures, ...] = ()
    scales: tuple[Scale, ...] = ()
    fronts: tuple[Front, ...] = ()
    equal_weights: tuple[EqualWeights, ...] = ()
    curves: tuple[CurvePoint, ...] = ()
    reference: str | None = None
    constant: dict[str, FiniteFloat] | None
    responses: int
    unfinished: int
    sampling_seconds: FiniteFloat


class OnlineRound(Record):
    """What an online round of a policy sampled and kept, from its manifest; utilities are calibrated, under
    the asked weights (`online_samples.sample_metrics`).

    `own_fold_mean`, `own_fold_sd`: by objective, rewards by the models of a prompt's own fold minus those by
    the full models; `kept_changes`: share of prompts of which that changes what is kept. Empty and null where
    rewards have no folds.
    """

    policy: str
    round: int
    samples: int
    kept_prompts: FiniteFloat
    below_best_known: FiniteFloat
    gain_over_known: FiniteFloat
    utility: FiniteFloat
    utility_kept: FiniteFloat
    own_fold_mean: dict[str, FiniteFloat]
    own_fold_sd: dict[str, FiniteFloat]
    kept_changes: FiniteFloat | None
