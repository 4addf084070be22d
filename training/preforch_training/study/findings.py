"""What a study finds: the table of alternatives, the diagnostics, and what they say together.

In:  records and config. Out: `records.Study`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from preforch_training.data.reading import read_sources
from preforch_training.data.writing import DataWriter
from preforch_training.records import PreferencePair, Prompt, read_records
from preforch_training.run import PAIRS_FILE, PROMPTS_FILE, Run
from preforch_training.statistics.bootstrap import Bootstrap, Interval
from preforch_training.statistics.metrics import correlations, margin_correlations
from preforch_training.study import diagnostics
from preforch_training.study.alignment.findings import measure_gap
from preforch_training.study.choices import Choice
from preforch_training.study.config import Config
from preforch_training.study.cross_fitting import (
    CrossFitting,
    open_cross_fitting,
    prompt_features,
    reward_fit,
)
from preforch_training.study.data import StudyData, gather
from preforch_training.study.judging import TrialJudge
from preforch_training.study.records import (
    ChoiceResult,
    GapReport,
    SingleObjective,
    SizePoint,
    Study,
    Transfer,
    WhatIf,
)
from preforch_training.study.subject import StudySubject
from preforch_training.study.transfers import judge_transfer


def alternatives(config: Config, recommended: Choice, paper: Choice) -> list[Choice]:
    """Every row of the table: the grid, the gates, both presets, other features, and no calibration.

    All targets are tried under the recommended calibration, under the others only the recommended one.
    """
    choices = [recommended, paper]
    for calibration in config.calibrations:
        targets = config.targets if calibration == recommended.calibration else (recommended.target,)
        base = recommended.model_copy(update={"calibration": calibration, "entropy_prior": 0.0})
        choices += [
            base.model_copy(update={"target": target, "loss": loss, "tau": tau})
            for target in targets
            for loss in config.losses
            for tau in config.taus
        ]
        gate = base.model_copy(update={"loss": "bt_gate"})
        choices += [gate.model_copy(update={"entropy_prior": prior}) for prior in config.entropy_priors]
    choices += [recommended.model_copy(update={"features": str(way)}) for way in config.features]
    choices += [choice.model_copy(update={"calibration": "none"}) for choice in (recommended, paper)]
    different: dict[str, Choice] = {}
    for choice in choices:
        # The first of equal ones stays: the presets are looked up in the table.
        different.setdefault(str(choice), choice)
    return list(different.values())


def run_study(
    run: Run,
    config: Config,
    subject: StudySubject,
    prompts: Sequence[Prompt],
    pairs: Sequence[PreferencePair],
    work: Path,
) -> Study:
    """Every table of the study; trials that `work` holds already are not fitted again."""
    data = gather(prompts, pairs, run.names)
    cross_fitting = open_cross_fitting(run, config, subject, data, work)
    judge = TrialJudge(data, Bootstrap(seed=run.seed_for("study", "bootstrap"), replicates=config.replicates))
    recommended, paper = subject.own_choice, subject.paper_choice
    table, unfitted = judge_all(cross_fitting, judge, alternatives(config, recommended, paper))
    trials = cross_fitting.trials(recommended)
    margins = [trial.margin_NK for trial in trials]
    by_category = (
        category_result(run, config, subject, data, recommended, work) if config.by_category else None
    )
    return Study(
        folds=config.folds,
        seeds=config.seeds,
        prompts=len(data.prompts),
        pairs=len(data.overall_N2),
        recommended=recommended,
        paper=paper,
        rewards=tuple(
            diagnostics.reward_quality(data, cross_fitting.rewards, cross_fitting.folds, judge.bootstrap)
        ),
        sizes=tuple(less_data(cross_fitting, judge, recommended, config.shares)),
        correlations=margin_correlations(np.concatenate(margins), data.names),
        agreements=tuple(diagnostics.agreements(data, margins, judge.bootstrap)),
        table=tuple(table),
        unfitted=unfitted,
        over_paper=judge.paired(trials, cross_fitting.trials(paper)),
        predictors=tuple(
            judge.predictors(
                choice,
                cross_fitting.trials(choice),
                words=cross_fitting.trials(choice, words="raw"),
                reduced_words=cross_fitting.trials(choice, words="reduced"),
            )
            for choice in (recommended, paper)
        ),
        categories=tuple(judge.categories(trials)),
        limit=supervised_limit(cross_fitting, judge, recommended.features),
        single=tuple(single_objectives(cross_fitting, judge, recommended, paper)),
        what_ifs=tuple(what_ifs(cross_fitting, judge, recommended)),
        by_category=by_category,
        gap=gap_report(cross_fitting, recommended, judge.bootstrap) if config.gap else None,
        transfers=tuple(transfers(run, config, subject, prompts, pairs, recommended, judge.bootstrap)),
        warnings=tuple(find_warnings(table, recommended)),
    )


def judge_all(
    cross_fitting: CrossFitting, judge: TrialJudge, choices: Sequence[Choice]
) -> tuple[list[ChoiceResult], dict[str, str]]:
    """Table rows, and the choices that cannot be fitted on these data with the reason.
    The first one must be."""
    table, unfitted = [judge.result(choices[0], cross_fitting.trials(choices[0]))], {}
    for choice in tqdm(choices[1:], desc="alternatives", unit="choice"):
        try:
            trials = cross_fitting.trials(choice)
        except ValueError as error:
            unfitted[str(choice)] = str(error)
        else:
            table.append(judge.result(choice, trials))
    return table, unfitted


def less_data(
    cross_fitting: CrossFitting, judge: TrialJudge, choice: Choice, shares: Sequence[float]
) -> list[SizePoint]:
    """Reward models and orchestrator on shares of the training prompts: would more data help?"""
    names, found = cross_fitting.data.names, []
    for share in shares:
        try:
            rewards_UK = cross_fitting.smaller_rewards(share)
            trials = cross_fitting.trials(choice, share=share)
        except ValueError as error:
            raise ValueError(
                f"[study] shares: {share:g} of the training prompts is too little: {error}"
            ) from error
        accuracies = {
            name: diagnostics.pair_accuracy(cross_fitting.data, [rewards_UK], name, judge.bootstrap)
            for name in names
        }
        gain = judge.gain([trial.f_PK for trial in trials], trials)[1]
        found.append(SizePoint(share=share, rewards=accuracies, gain=gain))
    return found


def gap_report(cross_fitting: CrossFitting, choice: Choice, bootstrap: Bootstrap) -> GapReport:
    """The closed-form alignment gap of one choice."""
    return measure_gap(
        cross_fitting.data,
        cross_fitting.rewards,
        cross_fitting.folds,
        lambda share: cross_fitting.trials(choice, share=share),
        calibration=choice.calibration,
        bootstrap=bootstrap,
    )


def transfers(
    run: Run,
    config: Config,
    subject: StudySubject,
    prompts: Sequence[Prompt],
    pairs: Sequence[PreferencePair],
    choice: Choice,
    bootstrap: Bootstrap,
) -> list[Transfer]:
    """The recommended choice on every other source."""
    found = []
    for source in config.transfers:
        others = subject.data.model_copy(update={"sources": (source,)})
        other = read_other(partial(read_sources, config=others, names=run.names, seed=run.seed))
        found.append(
            judge_transfer(
                (prompts, pairs),
                other,
                run.names,
                choice,
                lambda data: reward_fit(run, subject, data),
                lambda data: prompt_features(run, subject, data)[choice.features],
                source=str(source.path or source.dataset),
                folds=config.folds,
                bootstrap=bootstrap,
            )
        )
    return found


def read_other(read: Callable[[DataWriter], object]) -> tuple[list[Prompt], list[PreferencePair]]:
    """Prompts and pairs of other data."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        with DataWriter(folder, folder / "index.sqlite", keep_rejected=False) as writer:
            read(writer)
        return (
            read_records(folder / PROMPTS_FILE, Prompt),
            read_records(folder / PAIRS_FILE, PreferencePair),
        )


def find_warnings(table: Sequence[ChoiceResult], recommended: Choice) -> list[str]:
    """One sentence where the recommended choice does not beat the best constant beyond chance."""
    result = next(result for result in table if result.choice == recommended)
    if result.gain.low > 0:
        return []
    verdict = "is worse than" if result.gain.high < 0 else "does not beat"
    likeliest = max(table, key=lambda other: other.log_likelihood)
    other = (
        ""
        if likeliest is result
        else f" The likeliest alternative ({likeliest.choice}) gains {likeliest.gain}."
    )
    return [
        f"orchestration {verdict} the best constant beyond chance on these data: gain in preference accuracy "
        f"{result.gain}. A constant is simpler; serve it as the user's weights, or collect preferences that "
        f"differ by prompt.{other}"
    ]


def category_result(
    run: Run, config: Config, subject: StudySubject, data: StudyData, choice: Choice, work: Path
) -> ChoiceResult:
    """The recommended choice when whole categories are held out, from rewards and orchestrator alike."""
    cross_fitting = open_cross_fitting(run, config, subject, data, work, by_category=True)
    judge = TrialJudge(data, Bootstrap(seed=run.seed_for("study", "bootstrap"), replicates=config.replicates))
    return judge.result(choice, cross_fitting.trials(choice, label="by category"))


def supervised_limit(cross_fitting: CrossFitting, judge: TrialJudge, features: str) -> Interval | None:
    """Held-out AUROC of logistic regression between the two categories, where there are two."""
    category_P = cross_fitting.data.category_P
    categories = sorted(set(category_P))
    if len(categories) != 2:
        return None
    positive_P, features_PD = category_P == categories[-1], cross_fitting.features[features]
    score_P = np.zeros(len(positive_P))
    for fold in range(int(cross_fitting.folds[0].max()) + 1):
        test_P = cross_fitting.folds[0] == fold
        scale_D = features_PD[~test_P].std(axis=0) + 1e-9
        model = LogisticRegression(C=0.01, max_iter=1000).fit(
            features_PD[~test_P] / scale_D, positive_P[~test_P]
        )
        score_P[test_P] = model.decision_function(features_PD[test_P] / scale_D)
    return judge.auroc(score_P, positive_P)


def single_objectives(
    cross_fitting: CrossFitting, judge: TrialJudge, recommended: Choice, paper: Choice
) -> list[SingleObjective]:
    """Preferences by objective k alone: does k get the weight?"""
    found = []
    for k, name in enumerate(cross_fitting.data.names):
        for choice in diagnostics.single_choices(recommended, paper):
            trials = cross_fitting.trials(
                choice, changed=diagnostics.prefers(k), label=f"only {name}", seeds=1
            )
            weight_P = trials[0].f_PK[:, k]
            weight = judge.mean(weight_P[None, cross_fitting.data.prompt_N])
            reached = weight.value >= diagnostics.SINGLE_WEIGHT
            found.append(SingleObjective(choice=choice, objective=name, weight=weight, reached=reached))
    return found


def what_ifs(cross_fitting: CrossFitting, judge: TrialJudge, choice: Choice) -> list[WhatIf]:
    """Known weights by category, or the same for all;
    rewards as they are, or mixed until their margins correlate."""
    data = cross_fitting.data
    features_PD = cross_fitting.features[choice.features]
    varied_PK, same_PK = (diagnostics.known_weights(data, features_PD, vary=vary) for vary in (True, False))
    arms = [("weights vary by group of prompts", varied_PK, mix) for mix in (0.0, 0.5, 0.8, 0.95)]
    found = []
    for name, known_PK, mix in [*arms, ("weights are the same for all prompts", same_PK, 0.0)]:
        changed = diagnostics.simulates(
            known_PK, mix=mix, seed=cross_fitting.run.seed_for("study", "simulate")
        )
        trials = cross_fitting.trials(choice, changed=changed, label=f"{name}, mix {mix}")
        margin_MK = np.concatenate([trial.margin_NK for trial in trials])
        correlation_KK = correlations(margin_MK)
        found.append(
            WhatIf(
                name=name,
                value=mix,
                correlation=float(correlation_KK[~np.eye(len(correlation_KK), dtype=bool)].mean()),
                gain=judge.gain([trial.f_PK for trial in trials], trials)[1],
                oracle_gain=judge.gain([known_PK for _ in trials], trials)[1],
            )
        )
    return found
