"""What `study.json` holds. Intervals are 95%, bootstrap over prompts;
the seeds of a prompt are drawn together."""

from pathlib import Path

from preforch_models.manifest import read_manifest
from preforch_models.objectives import Record
from pydantic import FiniteFloat

from preforch_training.records import read_record
from preforch_training.statistics.bootstrap import Interval
from preforch_training.study.alignment.closed_form import GapPoint, GapRow, PoolCheck
from preforch_training.study.alignment.gold_weights import Spread
from preforch_training.study.choices import Choice

STUDY_FILE = "study.json"


class CalibrationPoint(Record):
    """Held-out pairs whose win probability was predicted alike: mean prediction, share that won."""

    predicted: FiniteFloat
    observed: FiniteFloat
    pairs: int


class RewardQuality(Record):
    """A reward model on pairs of prompts that it has not seen. `error`:
    expected calibration error of the curve."""

    objective: str
    pairs: int
    accuracy: Interval
    curve: tuple[CalibrationPoint, ...]
    error: FiniteFloat


class SizePoint(Record):
    """What less data makes of it. `rewards`: pair accuracy by objective of models fitted on a share of the
    training prompts, first seed. `gain`: of an orchestrator fitted on the share with the rewards
    of all data, all seeds."""

    share: FiniteFloat
    rewards: dict[str, Interval]
    gain: Interval


class Agreement(Record):
    """How often the chosen response of an overall pair has the higher reward, and the pairs (by id) where it
    is furthest from it, with their margins in calibrated rewards, averaged over seeds."""

    objective: str
    share: Interval
    worst: tuple[tuple[str, FiniteFloat], ...]


class ChoiceResult(Record):
    """One row of the table of alternatives.

    `gain`: accuracy minus that of the best constant, paired. `explained_kl`: null where the choice has no
    targets. `log_likelihood`: mean log sigma(s f(x).(r+ - r-)) with the best s (`scale`). `entropy`: mean of
    f(x), nats. `separation`: AUROC of each objective's weight between the two categories, where there are
    two.
    """

    choice: Choice
    accuracy: Interval
    gain: Interval
    explained_kl: Interval | None
    log_likelihood: FiniteFloat
    scale: FiniteFloat
    entropy: FiniteFloat
    separation: dict[str, Interval] | None


class PredictorResult(Record):
    """One way to weigh objectives, judged with the calibration and the targets of one choice."""

    name: str
    accuracy: Interval
    gain: Interval
    explained_kl: Interval | None


class Predictors(Record):
    """Ways to weigh the objectives beside each other, under the calibration and the targets of `choice`."""

    choice: Choice
    rows: tuple[PredictorResult, ...]


class CategoryWeights(Record):
    """Held-out weights of one category: mean and standard deviation over prompts."""

    category: str
    prompts: int
    mean: dict[str, FiniteFloat]
    spread: dict[str, FiniteFloat]


class SingleObjective(Record):
    """Preferences made from one objective's reward alone: the mean held-out weight on it."""

    choice: Choice
    objective: str
    weight: Interval
    reached: bool


class WhatIf(Record):
    """Preferences drawn from known weights on changed rewards: what orchestration gains over the best
    constant. `correlation`: mean over pairs of objectives of that of their margins."""

    name: str
    value: FiniteFloat
    correlation: FiniteFloat
    gain: Interval
    oracle_gain: Interval


class Transfer(Record):
    """Fitted on this data, judged on pairs of another source:
    reward models, orchestrator and constant together."""

    source: str
    pairs: int
    mean: dict[str, FiniteFloat]
    accuracy: Interval
    gain: Interval


class GapFindings(Record):
    """What is measured where w* varies. `check`: the largest violations over all pools and predictors."""

    check: PoolCheck
    checked: int
    table: tuple[GapRow, ...]
    curve: tuple[GapPoint, ...]


class GapReport(Record):
    """`spread` by seed. `findings`: null where w* barely varies; `verdict` then says that the report stops
    here.

    `likelihoods`: mean log pi_w(gold) of training pools under their best constant, by beta. `all_gold`:
    prompts left out because their labels compare nothing (none can be without gold: every overall pair has a
    chosen response).
    """

    beta: FiniteFloat
    likelihoods: dict[str, FiniteFloat]
    pools: int
    all_gold: int
    responses: int
    gold: int
    constant: dict[str, FiniteFloat]
    spread: tuple[Spread, ...]
    verdict: str
    findings: GapFindings | None


class Study(Record):
    """`recommended`: the run's own choice; `paper`: the paper's; `unfitted`: choices that these data do not
    allow, with the reason; `over_paper`: accuracy of the first minus the second,
    paired. `limit`: AUROC between the two categories of a
    supervised classifier on the same vectors, the upper bound of `separation`."""

    folds: int
    seeds: int
    prompts: int
    pairs: int
    recommended: Choice
    paper: Choice
    rewards: tuple[RewardQuality, ...]
    sizes: tuple[SizePoint, ...]
    correlations: dict[str, dict[str, FiniteFloat]]
    agreements: tuple[Agreement, ...]
    table: tuple[ChoiceResult, ...]
    unfitted: dict[str, str]
    over_paper: Interval
    predictors: tuple[Predictors, ...]
    categories: tuple[CategoryWeights, ...]
    limit: Interval | None
    single: tuple[SingleObjective, ...]
    what_ifs: tuple[WhatIf, ...]
    by_category: ChoiceResult | None
    gap: GapReport | None
    transfers: tuple[Transfer, ...]
    warnings: tuple[str, ...]


def read_study(folder: Path) -> Study:
    """The study of a run, from its artifact folder. Raises ArtifactError where it is not finished."""
    read_manifest(folder, kind="study")
    return read_record(folder / STUDY_FILE, Study)
