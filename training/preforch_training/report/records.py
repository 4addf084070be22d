"""What `report.json` holds. Every number is finite; what does not apply is null."""

from pathlib import Path
from typing import Literal

from preforch_models.calibration import Calibration
from preforch_models.manifest import read_manifest
from preforch_models.objectives import Record
from preforch_models.orchestrator_options import Confidence
from pydantic import FiniteFloat

from preforch_training.records import read_record
from preforch_training.report.policies.records import OnlineRound, PolicyReport
from preforch_training.statistics.bootstrap import Interval
from preforch_training.study.records import Study

REPORT_FILE = "report.json"


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

    `confidence` and its `median` are null where familiarity is not known. `kept`: mean share of f(x) in their
    weights, null without shrinkage.
    """

    kind: str
    prompts: int
    certainty: Interval
    confidence: Interval | None = None
    median: FiniteFloat | None
    kept: FiniteFloat | None

    @property
    def served(self) -> Interval:
        """AUROC of the confidence that clients get;
        without familiarity it orders prompts as certainty does."""
        return self.certainty if self.confidence is None else self.confidence


class HeldOutPrompts(Record):
    """Median confidence of the prompts of one held-out split, null where familiarity is not known; mean share
    of f(x) `kept` in their weights, share of the prompts `shrunk` at all."""

    split: str
    prompts: int
    median: FiniteFloat | None
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
    """`overrides`: what the run has otherwise than its preset. `world`: hash of the generated world,
    null for real data. `tau`: that of the method, or the one that was fitted."""

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
