"""What `report.json` holds. Every number is finite; what does not apply is null."""

from pathlib import Path
from typing import Literal

from preforch_models.calibration import Calibration
from preforch_models.manifest import read_manifest
from preforch_models.objectives import Record
from preforch_models.orchestrator_options import Confidence
from pydantic import FiniteFloat

from preforch_training.records import read_record
from preforch_training.statistics.bootstrap import Interval
from preforch_training.study.records import Study

REPORT_FILE = "report.json"
Measure = Literal["true", "calibrated"]


class PairAccuracy(Record):
    """Share of pairs of one objective that its reward model orders as labelled,
    and as is true where that is known."""

    objective: str
    split: str
    pairs: int
    accuracy: Interval
    true_order: Interval | None


class RewardReport(Record):
    """`correlations` are those of the K margins over held-out overall pairs, by objective."""

    accuracies: tuple[PairAccuracy, ...]
    correlations: dict[str, dict[str, FiniteFloat]]
    calibration: Calibration


class Predictor(Record):
    """How well one way to predict weights does on the prompts of one split. `true_*`: against w°."""

    name: str
    split: str
    explained_kl: Interval
    preference_accuracy: Interval
    true_kl: Interval | None
    true_explained_kl: Interval | None
    true_top: Interval | None


class Ceiling(Record):
    """Explained KL of f over that of an oracle that knows w° and the family;
    null where the oracle explains nothing."""

    split: str
    oracle: Interval
    share: Interval | None


class GroupWeights(Record):
    """Mean and standard deviation of f(x) over the held-out prompts of one split or family;
    mean of w° beside it."""

    group: str
    kind: Literal["split", "family"]
    prompts: int
    mean: dict[str, FiniteFloat]
    spread: dict[str, FiniteFloat]
    true_mean: dict[str, FiniteFloat] | None


class OrchestratorReport(Record):
    """f(x) beside other predictors, by split. `ceilings`: none where the truth is unknown."""

    predictors: tuple[Predictor, ...]
    ceilings: tuple[Ceiling, ...]
    weights: tuple[GroupWeights, ...]


class UnlikePrompts(Record):
    """Prompts of one kind unlike the training data: AUROC of each signal, held-out prompts against these.

    Null where familiarity is not known. `kept`: mean share of f(x) in their weights, null without shrinkage.
    """

    kind: str
    prompts: int
    certainty: Interval
    familiarity: Interval | None = None
    confidence: Interval | None = None
    kept: FiniteFloat | None

    @property
    def served(self) -> Interval:
        """AUROC of the confidence that clients get;
        without familiarity it orders prompts as certainty does."""
        return self.certainty if self.confidence is None else self.confidence


class HeldOutPrompts(Record):
    """Mean share of f(x) `kept` in the weights of one held-out split,
    share of its prompts `shrunk` at all."""

    split: str
    prompts: int
    kept: FiniteFloat | None
    shrunk: FiniteFloat | None


class ConfidenceReport(Record):
    """`held_out`: the splits whose prompts, all together, each kind of `unlike` is set against."""

    mode: Confidence
    held_out: tuple[HeldOutPrompts, ...]
    unlike: tuple[UnlikePrompts, ...]


class Stability(Record):
    """Total variation distance between the weights of a prompt and of its rewording, mean over the prompts
    that the rewording changes; share of them whose largest weight stays;
    the distance of their w° where both are known."""

    kind: str
    distance: Interval
    same_top: Interval
    true_distance: Interval | None


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
    """`served`: the policy that is judged in full. `fixed`: policies that read no weights, and so have no
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


class StageCost(Record):
    """Of one artifact, from its manifest; a continued stage counts its last attempt only."""

    stage: str
    seconds: FiniteFloat
    peak_memory_mib: FiniteFloat


class Verdict(Record):
    """One target: the measured number (interval where there is one), what it must be, whether it is."""

    name: str
    value: FiniteFloat | None
    interval: Interval | None = None
    target: str
    reached: bool


class Report(Record):
    """`overrides`: what the run has otherwise than its preset. `world`: hash of the demo world, null for real
    data. `tau`: that of the method, or the one that was fitted."""

    preset: str
    overrides: tuple[str, ...]
    seed: int
    world: str | None
    method: dict[str, str | float]
    tau: float
    objectives: tuple[str, ...]
    rewards: RewardReport
    orchestrator: OrchestratorReport
    confidence: ConfidenceReport
    stability: tuple[Stability, ...]
    policy: PolicyReport | None
    rounds: tuple[OnlineRound, ...]
    study: Study | None
    stages: tuple[StageCost, ...]
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...]


def read_report(folder: Path) -> Report:
    """The report of a run, from its artifact folder. Raises ArtifactError where it is not finished."""
    read_manifest(folder, kind="report")
    return read_record(folder / REPORT_FILE, Report)
