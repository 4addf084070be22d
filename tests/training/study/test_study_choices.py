"""Folds, trials in worlds of known structure, and how they are judged."""

from dataclasses import replace

import numpy as np
import pytest
from preforch_models.conversation import Message
from preforch_training.records import OVERALL, PreferencePair, Prompt
from preforch_training.statistics.metrics import best_likelihood, preference_hits, weighted_auroc
from preforch_training.statistics.predictors import (
    CATEGORY_ORACLE,
    CONSTANT,
    LINEAR,
    REDUCED_LINEAR,
    SHUFFLED,
    UNIFORM,
    F,
)
from preforch_training.study.choices import (
    Choice,
    Trial,
    calibrate,
    most_accurate,
    overall_rewards,
    run_trial,
)
from preforch_training.study.config import Config, Features
from preforch_training.study.data import category_folds, draw_folds, gather, prompt_folds
from preforch_training.study.findings import alternatives, find_warnings
from preforch_training.study.judging import TrialJudge
from sklearn.metrics import roc_auc_score
from study_world import BOOTSTRAP, FORWARD, GATE, NAMES, World, make_world

REGRESS = FORWARD.model_copy(update={"loss": "regress"})
FITTED = REGRESS.model_copy(update={"tau": "fit"})
REVERSE = FORWARD.model_copy(update={"loss": "reverse"})


@pytest.fixture(scope="module")
def varied() -> World:
    return make_world(vary=True)


@pytest.fixture(scope="module")
def constant() -> World:
    return make_world(vary=False)


def trial_of(world: World, choice: Choice = FORWARD) -> Trial:
    return run_trial(world.data, world.rewards_FUK, world.features_PD, world.fold_P, choice)


# StudyData and folds.


def make_records(*texts: str) -> tuple[list[Prompt], list[PreferencePair]]:
    """One pair of every kind for each prompt."""
    prompts = [
        Prompt(id=text, messages=(Message(role="user", content=text),), split="train", category=text[:1])
        for text in texts
    ]
    pairs = [
        PreferencePair(
            id=f"{name} {text}", prompt_id=text, objective=name, chosen="a", rejected="b", split="test"
        )
        for text in texts
        for name in (*NAMES, OVERALL)
    ]
    return prompts, pairs


def test_responses_are_numbered_once_a_prompt_and_prompts_without_pairs_are_left_out() -> None:
    prompts, pairs = make_records("x", "y", "z")
    data = gather(prompts, [pair for pair in pairs if pair.prompt_id != "y"], NAMES)
    assert [prompt.id for prompt in data.prompts] == ["x", "z"]
    assert data.responses == ("a", "b", "a", "b")
    assert data.prompt_U.tolist() == [0, 0, 1, 1]
    assert all(rows.tolist() == [[0, 1], [2, 3]] for rows in data.pairs.values())
    assert data.overall_ids == ("overall x", "overall z")
    assert data.prompt_N.tolist() == [0, 1]


@pytest.mark.parametrize("missing", [*NAMES, OVERALL])
def test_an_objective_without_pairs_is_named(missing: str) -> None:
    prompts, pairs = make_records("x")
    with pytest.raises(ValueError, match=f"no pairs of '{missing}'"):
        gather(prompts, [pair for pair in pairs if pair.objective != missing], NAMES)


def test_prompts_that_begin_alike_share_a_fold_whatever_the_seed() -> None:
    prompts, pairs = make_records(*(f"{text} {i}" for i in range(40) for text in ("Tell me", "tell  ME")))
    data = gather(prompts, pairs, NAMES)
    drawn = [prompt_folds(data, 3, seed=seed) for seed in range(5)]
    for fold_P in drawn:
        np.testing.assert_array_equal(fold_P[::2], fold_P[1::2])
        assert np.bincount(fold_P, minlength=3).min() > 10
    assert any((drawn[0] != fold_P).any() for fold_P in drawn[1:])
    backwards = gather(prompts[::-1], pairs, NAMES)
    np.testing.assert_array_equal(prompt_folds(backwards, 3, seed=0)[::-1], drawn[0])


def test_category_folds_keep_categories_whole() -> None:
    data = gather(*make_records(*(f"{letter} {i}" for letter in "abcdefghijklmnop" for i in range(5))), NAMES)
    fold_P = category_folds(data, 3, seed=0)
    for category in set(data.category_P):
        assert len(set(fold_P[data.category_P == category])) == 1
    assert set(fold_P) == {0, 1, 2}


def test_an_empty_fold_is_an_error_that_says_how_many_groups_there_are() -> None:
    with pytest.raises(ValueError, match=r"2 groups of prompts leave fold \d of 3 empty"):
        draw_folds(["x", "y", "x", "y"], 3, seed=0)
    data = make_world(prompts=12, folds=2).data
    prompts = tuple(prompt.model_copy(update={"category": ""}) for prompt in data.prompts)
    with pytest.raises(ValueError, match="1 groups of prompts leave fold"):
        category_folds(replace(data, prompts=prompts), 3, seed=0)


# What a trial finds.


@pytest.mark.parametrize("choice", [FORWARD, REVERSE, REGRESS, FITTED, GATE], ids=str)
def test_f_beats_the_constant_and_reaches_the_oracle_where_preferences_vary(
    varied: World, choice: Choice
) -> None:
    trial = trial_of(varied, choice)
    judge = TrialJudge(varied.data, BOOTSTRAP)
    result = judge.result(choice, [trial])
    oracle = judge.gain([trial.oracle_PK], [trial])[0]
    assert result.gain.low > 0.05
    # Mean target weights are less sharp than the true ones; the losses that do not average them get all the
    # way.
    assert result.accuracy.value > oracle.value - (0.08 if choice == FORWARD else 0.02)
    assert oracle.value > 0.9
    assert find_warnings([result], choice) == []
    about_first_P = varied.true_PK[:, 0] > 0.5
    assert trial.f_PK[about_first_P, 0].mean() > trial.f_PK[~about_first_P, 0].mean() + 0.3


def test_a_fitted_tau_is_sharp_where_preferences_turn_on_the_prompt_and_flat_where_they_do_not(
    varied: World, constant: World
) -> None:
    entropies = []
    for world in (varied, constant):
        f_PK = trial_of(world, FITTED).f_PK
        entropies.append(-(f_PK * np.log(f_PK)).sum(axis=1).mean())
    assert entropies[0] < entropies[1]
    true_PK = varied.true_PK
    assert np.abs(trial_of(varied, FITTED).f_PK - true_PK).mean() < 0.15
    gate = GATE.model_copy(update={"tau": "fit"})
    np.testing.assert_array_equal(trial_of(varied, gate).f_PK, trial_of(varied, GATE).f_PK)


def test_where_preferences_do_not_vary_f_is_no_better_than_the_constant_and_the_study_says_so(
    constant: World,
) -> None:
    trial = trial_of(constant, GATE)
    judge = TrialJudge(constant.data, BOOTSTRAP)
    result = judge.result(GATE, [trial])
    assert result.gain.low <= 0
    assert result.gain.value < 0.01
    [warning] = find_warnings([judge.result(FORWARD, [trial_of(constant)]), result], GATE)
    assert "does not beat the best constant" in warning
    assert str(result.gain) in warning
    # Rewards were z-scored, so the weights that order the pairs are the true ones on their scales.
    assert (trial.constant_PK[:, 0] > 0.6).all()


def test_seeds_are_averaged_by_prompt(varied: World) -> None:
    trial = trial_of(varied)
    opposite = replace(trial, f_PK=trial.f_PK[:, ::-1])
    judge = TrialJudge(varied.data, BOOTSTRAP)
    one, both = (judge.result(FORWARD, trials).accuracy for trials in ([trial], [trial, opposite]))
    other = judge.result(FORWARD, [opposite]).accuracy
    assert both.value == pytest.approx((one.value + other.value) / 2)
    assert both.groups == one.groups == len(varied.data.prompts)
    assert judge.result(FORWARD, [trial, trial]).accuracy == one


def test_predictors_stand_side_by_side(varied: World) -> None:
    trial = trial_of(varied)
    blind = run_trial(
        varied.data,
        varied.rewards_FUK,
        np.random.default_rng(0).normal(size=(300, 4)),
        varied.fold_P,
        FORWARD,
    )
    judge = TrialJudge(varied.data, BOOTSTRAP)
    found = judge.predictors(FORWARD, [trial], words=[blind], reduced_words=[trial])
    rows = {row.name: row for row in found.rows}
    assert list(rows) == [F, UNIFORM, CONSTANT, SHUFFLED, LINEAR, REDUCED_LINEAR, CATEGORY_ORACLE]
    assert rows[REDUCED_LINEAR].accuracy == rows[F].accuracy
    assert rows[CONSTANT].gain.value == rows[CONSTANT].gain.high == 0
    assert (
        rows[F].accuracy.value
        > max(rows[n].accuracy.value for n in (UNIFORM, CONSTANT, SHUFFLED, LINEAR)) + 0.05
    )
    explained = {name: row.explained_kl for name, row in rows.items()}
    assert explained[CONSTANT] is None
    of_f, of_shuffled = explained[F], explained[SHUFFLED]
    assert of_f is not None
    assert of_shuffled is not None
    assert of_f.value > 0.1 > 0 > of_shuffled.value


def test_weights_separate_the_categories_that_objectives_are_named_after(varied: World) -> None:
    judge = TrialJudge(varied.data, BOOTSTRAP)
    result = judge.result(FORWARD, [trial_of(varied)])
    assert result.separation is not None
    # Each objective's weight is high on its own set.
    assert all(interval.value > 0.95 for interval in result.separation.values())
    categories = {entry.category: entry for entry in judge.categories([trial_of(varied)])}
    assert categories["first set"].prompts == categories["second set"].prompts == 150
    assert categories["first set"].mean["first"] > categories["second set"].mean["first"] + 0.3


def test_data_without_categories_has_no_oracle_no_separation_and_no_table_of_them(varied: World) -> None:
    prompts = tuple(prompt.model_copy(update={"category": ""}) for prompt in varied.data.prompts)
    data = replace(varied.data, prompts=prompts)
    trial = run_trial(data, varied.rewards_FUK, varied.features_PD, varied.fold_P, FORWARD)
    judge = TrialJudge(data, BOOTSTRAP)
    assert judge.categories([trial]) == []
    assert judge.result(FORWARD, [trial]).separation is None
    rows = judge.predictors(FORWARD, [trial], words=[trial], reduced_words=[trial]).rows
    assert CATEGORY_ORACLE not in {row.name for row in rows}


# Parts.


def test_log_odds_scales_come_from_the_pairs_of_the_training_prompts(varied: World) -> None:
    train_P = varied.fold_P != 0
    rewards_UK = varied.rewards_FUK[0]
    found = calibrate(varied.data, rewards_UK, train_P, "log_odds").constants
    # The second reward is three times the first, and so are its units.
    assert found["first"].scale / found["second"].scale == pytest.approx(3, rel=0.3)
    half = calibrate(varied.data, rewards_UK * [0.5, 1.0], train_P, "log_odds").constants
    assert half["first"].scale == pytest.approx(2 * found["first"].scale, rel=1e-6)


def test_the_others_of_a_pair_are_the_prompts_other_overall_responses() -> None:
    data = make_world(prompts=12, folds=2).data
    calibrated_UK = np.random.default_rng(0).normal(size=(len(data.responses), 2))
    found = overall_rewards(data, calibrated_UK)
    for n, (chosen, _) in enumerate(data.overall_N2):
        rest = [u for u in np.flatnonzero(data.prompt_U == data.prompt_U[chosen]) if u != chosen]
        assert len(rest) == 2
        np.testing.assert_allclose(found.others_NK[n], calibrated_UK[rest].mean(axis=0))


def test_no_constant_on_the_grid_orders_more_pairs_than_the_most_accurate_one() -> None:
    margin_NK = np.random.default_rng(0).normal(size=(50, 2))
    best = preference_hits(most_accurate(margin_NK)[None], margin_NK).mean()
    for first in np.linspace(0, 1, 101):
        assert preference_hits(np.array([[first, 1 - first]]), margin_NK).mean() <= best
    # Best at both ends, worst between them.
    two_sided_NK = np.array(
        [[3.0, -1.0]] * 3 + [[-1.0, 3.0]] * 3 + [[-1.0, -1.0]] + [[1.0, -9.0], [-9.0, 1.0]] * 2
    )
    hits = preference_hits(most_accurate(two_sided_NK)[None], two_sided_NK).mean()
    assert hits == max(
        preference_hits(np.array([[i / 100, 1 - i / 100]]), two_sided_NK).mean() for i in range(101)
    )


def test_weighted_auroc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    positive_P = rng.random(60) < 0.4
    counts_BP = rng.integers(0, 4, size=(5, 60)).astype(float)
    for digits in (0, 1, 8):
        score_P = rng.normal(size=60).round(digits)
        expected = [roc_auc_score(positive_P, score_P, sample_weight=counts_P) for counts_P in counts_BP]
        np.testing.assert_allclose(weighted_auroc(score_P, positive_P, counts_BP), expected, atol=1e-12)
    np.testing.assert_array_equal(weighted_auroc(score_P, np.zeros(60, dtype=bool), counts_BP), 0.5)
    np.testing.assert_array_equal(weighted_auroc(np.zeros(60), positive_P, counts_BP), 0.5)


def test_auroc_has_an_interval_over_prompts(varied: World) -> None:
    judge = TrialJudge(varied.data, BOOTSTRAP)
    score_P = np.random.default_rng(0).normal(size=300)
    positive_P = np.arange(300) % 3 == 0
    interval = judge.auroc(score_P, positive_P)
    assert interval.value == pytest.approx(roc_auc_score(positive_P, score_P), abs=1e-12)
    assert interval.low < interval.value < interval.high


def test_best_likelihood_is_the_best_of_a_grid_and_worth_a_coin_where_nothing_is_ordered() -> None:
    rng = np.random.default_rng(0)
    gain_N = rng.normal(loc=0.2, size=400)
    likelihood, scale = best_likelihood(gain_N)
    grid = {s: -np.logaddexp(0, -s * gain_N).mean() for s in np.geomspace(1e-3, 1e3, 3000)}
    assert likelihood == pytest.approx(max(grid.values()), abs=1e-6)
    assert scale == pytest.approx(max(grid, key=lambda s: grid[s]), rel=0.02)
    assert best_likelihood(-gain_N)[0] == pytest.approx(np.log(0.5), abs=1e-3)


def test_the_table_holds_the_grid_the_gates_and_both_presets_once_each() -> None:
    settings = Config(
        calibrations=("zscore",),
        targets=("chosen_softmax", "margin_softmax"),
        losses=("forward", "bt_gate"),
        taus=(0.1, 0.5),
        entropy_priors=(0.0, 0.01),
        features=(Features(pooling="cls"),),
    )
    paper = FORWARD.model_copy(update={"target": "chosen_softmax", "loss": "reverse", "tau": 0.1})
    for recommended in (FORWARD, GATE):
        found = alternatives(settings, recommended, paper)
        assert len({str(choice) for choice in found}) == len(found)
        # The very choice, because what is said about it is looked up by equality.
        assert recommended in found
        assert paper in found
        assert recommended.model_copy(update={"calibration": "none"}) in found
        assert recommended.model_copy(update={"features": "cls of layers -1"}) in found
        assert {choice.entropy_prior for choice in found if choice.loss == "bt_gate"} == {0.0, 0.01}
        for target in settings.targets:
            for tau in settings.taus:
                wanted = {"calibration": "zscore", "target": target, "loss": "forward", "tau": tau}
                assert recommended.model_copy(update=wanted) in found
