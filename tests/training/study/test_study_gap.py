"""The gap as a part of the study, on synthetic data whose gold follows known weights, without any model."""

from collections.abc import Callable

import numpy as np
import pytest
from preforch_training.records import OVERALL, PreferencePair, Prompt
from preforch_training.report.plots import gap_plot
from preforch_training.statistics.bootstrap import Bootstrap
from preforch_training.statistics.markdown import write_markdown
from preforch_training.statistics.predictors import CONSTANT, GOLD, SHUFFLED, UNIFORM, F
from preforch_training.study.alignment.findings import (
    TrialsAt,
    beta_likelihoods,
    fold_pools,
    measure_gap,
)
from preforch_training.study.alignment.tables import gap_blocks
from preforch_training.study.choices import Trial
from preforch_training.study.data import StudyData, gather, prompt_folds
from preforch_training.study.records import GapReport

NAMES = ("truthful", "informative")
ANSWERS, GOLD_ANSWERS, PROMPTS, FOLDS = 14, 5, 60, 3
KNOWN = {"vary": np.array([[0.95, 0.05], [0.05, 0.95]]), "same": np.array([[0.6, 0.4], [0.6, 0.4]])}


def made_material(star_2K: np.ndarray) -> tuple[StudyData, np.ndarray]:
    """Prompts of two kinds with their w*, and the rewards that chose their gold responses, (U, K)."""
    rng = np.random.default_rng(3)
    prompts: list[Prompt] = []
    pairs: list[PreferencePair] = []
    rewards: dict[str, np.ndarray] = {}
    for p in range(PROMPTS):
        messages = [{"role": "user", "content": f"question {p}"}]
        prompt = Prompt.model_validate(
            {"id": f"p{p}", "messages": messages, "split": "train", "category": str(p % 2)}
        )
        prompts.append(prompt)
        rewards_YK = rng.normal(size=(ANSWERS, 2))
        order_Y = np.argsort(-(rewards_YK @ star_2K[p % 2] / 0.3 + rng.gumbel(size=ANSWERS)))
        rewards |= {f"{p} {y}": rewards_YK[y] for y in range(ANSWERS)}
        for number in range(ANSWERS - GOLD_ANSWERS):
            chosen, rejected = (
                f"{p} {order_Y[number % GOLD_ANSWERS]}",
                f"{p} {order_Y[GOLD_ANSWERS + number]}",
            )
            pairs += [
                PreferencePair(
                    id=f"{p}-{number}-{objective}",
                    prompt_id=prompt.id,
                    objective=objective,
                    chosen=chosen,
                    rejected=rejected,
                    split="train",
                )
                for objective in (*NAMES, OVERALL)
            ]
    data = gather(prompts, pairs, NAMES)
    return data, np.array([rewards[response] for response in data.responses])


def trial_of(f_PK: np.ndarray, pairs: int) -> Trial:
    """A trial of which the gap reads f and the constant fitted as f is."""
    none_NK = np.zeros((pairs, 2))
    constant_PK = np.tile(f_PK.mean(axis=0), (len(f_PK), 1))
    return Trial(f_PK, constant_PK, constant_PK, constant_PK, none_NK, none_NK)


def knows(data: StudyData, star_2K: np.ndarray, *, seeds: int) -> TrialsAt:
    """An orchestrator that comes the closer to w* the more prompts it has."""
    star_PK = star_2K[data.category_P.astype(int)]

    def trials_at(share: float) -> list[Trial]:
        f_PK = share * star_PK + (1 - share) * star_2K.mean(axis=0)
        return [trial_of(f_PK, len(data.overall_N2))] * seeds

    return trials_at


def measured(kind: str, *, seeds: int = 2, change: Callable[[np.ndarray], np.ndarray] = np.copy) -> GapReport:
    data, rewards_UK = made_material(KNOWN[kind])
    folds = [prompt_folds(data, FOLDS, seed=seed) for seed in range(seeds)]
    return measure_gap(
        data,
        [change(np.stack([rewards_UK * 3 + 1] * FOLDS)) for _ in folds],
        folds,
        knows(data, KNOWN[kind], seeds=seeds),
        calibration="zscore",
        bootstrap=Bootstrap(seed=0, replicates=200),
        betas=(0.3, 1.0),
        shares=(0.2, 1.0),
    )


@pytest.fixture(scope="module")
def varied() -> GapReport:
    return measured("vary")


@pytest.fixture(scope="module")
def same() -> GapReport:
    return measured("same")


def test_pools_hold_each_response_once_and_gold_is_what_was_chosen() -> None:
    data, rewards_UK = made_material(KNOWN["vary"])
    fold_P = prompt_folds(data, FOLDS, seed=0)
    rewards_FUK = np.stack([rewards_UK, rewards_UK * 2, rewards_UK + 5])
    views = fold_pools(data, rewards_FUK, fold_P, "none")
    pool = views[1][7]
    rows = np.flatnonzero(data.prompt_U == 7)
    chosen = set(data.overall_N2[:, 0])
    assert pool.prompt_id == "p7"
    assert pool.rewards_YK == pytest.approx(rewards_UK[rows] * 2)
    assert pool.good_Y.tolist() == [row in chosen for row in rows]
    assert (len(pool.good_Y), pool.good_Y.sum()) == (ANSWERS, GOLD_ANSWERS)


def test_constants_of_a_fold_calibrate_all_of_its_pools_and_come_from_the_other_folds() -> None:
    data, rewards_UK = made_material(KNOWN["vary"])
    fold_P = prompt_folds(data, FOLDS, seed=0)
    spoiled_FUK = np.stack([rewards_UK] * FOLDS)
    spoiled_FUK[0, fold_P[data.prompt_U] == 0] += 100.0
    pools = fold_pools(data, spoiled_FUK, fold_P, "zscore")[0]
    training = np.concatenate([pool.rewards_YK for p, pool in pools.items() if fold_P[p] != 0])
    assert training.mean(axis=0) == pytest.approx([0, 0], abs=1e-9)
    assert training.std(axis=0) == pytest.approx([1, 1])
    assert min(pool.rewards_YK.mean() for p, pool in pools.items() if fold_P[p] == 0) > 50


def test_weights_that_vary_are_compared_and_every_check_passes(varied: GapReport) -> None:
    found = varied.findings
    assert found is not None
    assert (varied.pools, varied.responses, varied.gold) == (
        PROMPTS,
        PROMPTS * ANSWERS,
        PROMPTS * GOLD_ANSWERS,
    )
    assert len(varied.spread) == 2
    assert max(found.check.identity, found.check.lower, found.check.upper) < 1e-9
    rows = {row.name: row for row in found.table}
    gaps = {name: row.gap.value for name, row in rows.items()}
    assert gaps[GOLD] == 0
    assert gaps[F] < gaps[CONSTANT] < gaps[SHUFFLED]
    gain = rows[F].minus_constant
    assert gain is not None
    assert gain.high < 0
    assert gain.groups == PROMPTS, "the seeds of a prompt are one group"


def test_the_learning_curve_falls_and_ends_at_the_gap_of_f(varied: GapReport) -> None:
    assert varied.findings is not None
    first, last = varied.findings.curve
    trained = PROMPTS * (FOLDS - 1) / FOLDS
    assert (first.prompts, last.prompts) == (round(0.2 * trained), round(trained))
    assert first.gap.low > last.gap.value
    assert last.gap == next(row.gap for row in varied.findings.table if row.name == F)


def test_where_w_star_barely_varies_the_report_stops(same: GapReport) -> None:
    assert same.findings is None
    assert "stops here" in same.verdict
    shown = write_markdown(gap_blocks(same))
    assert same.verdict in shown
    assert "minus best constant" not in shown
    assert "training prompts" not in shown


def test_the_report_is_text_a_plot_and_json(varied: GapReport) -> None:
    shown = write_markdown(gap_blocks(varied))
    assert shown.index("halves") < shown.index("minus best constant") < shown.index("training prompts")
    for name in (F, CONSTANT, UNIFORM, SHUFFLED, GOLD):
        assert f"| {name} |" in shown
    assert varied.findings is not None
    (axis,) = gap_plot(varied.findings).axes
    shown_at = np.asarray(axis.lines[0].get_xdata())
    assert shown_at.tolist() == [point.prompts for point in varied.findings.curve]
    assert GapReport.model_validate_json(varied.model_dump_json()) == varied


def test_rewards_that_say_nothing_of_the_judged_fold_do_not_change_its_constants() -> None:
    """What a fold's best constant is fitted on is untouched by the fold's own rewards."""
    data, rewards_UK = made_material(KNOWN["vary"])
    fold_P = prompt_folds(data, FOLDS, seed=0)
    clean_FUK = np.stack([rewards_UK] * FOLDS)
    spoiled_FUK = clean_FUK.copy()
    for fold in range(FOLDS):
        spoiled_FUK[fold, fold_P[data.prompt_U] == fold] *= -7
    likelihoods = [
        beta_likelihoods([fold_pools(data, rewards_FUK, fold_P, "zscore")], [fold_P], (0.5,))
        for rewards_FUK in (clean_FUK, spoiled_FUK)
    ]
    assert likelihoods[0] == likelihoods[1]
