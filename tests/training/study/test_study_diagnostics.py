"""Single objectives, simulated preferences, calibration curves, agreement."""

from dataclasses import replace

import numpy as np
import pytest
from preforch_training.records import OVERALL
from preforch_training.statistics.metrics import best_likelihood
from preforch_training.study import diagnostics
from preforch_training.study.choices import overall_rewards, run_trial
from preforch_training.study.data import StudyData
from preforch_training.study.judging import TrialJudge
from scipy.special import expit
from study_world import BOOTSTRAP, FORWARD, GATE, NAMES, World, make_world


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


def calibrated(world: World) -> np.ndarray:
    rewards_UK = world.rewards_FUK[0]
    return np.asarray((rewards_UK - rewards_UK.mean(axis=0)) / rewards_UK.std(axis=0))


def margins(data: StudyData, rewards_UK: np.ndarray) -> np.ndarray:
    rewards = overall_rewards(data, rewards_UK)
    return np.asarray(rewards.chosen_NK - rewards.rejected_NK)


@pytest.mark.parametrize("k", [0, 1])
def test_preferences_by_one_objective_never_contradict_it(world: World, k: int) -> None:
    rewards_UK = calibrated(world)
    changed, same_UK = diagnostics.prefers(k)(world.data, rewards_UK)
    margin_NK = margins(changed, same_UK)
    assert (margin_NK[:, k] >= 0).all()
    assert (margin_NK[:, 1 - k] < 0).any()
    np.testing.assert_array_equal(same_UK, rewards_UK)
    before, after = (np.sort(data.pairs[OVERALL], axis=1) for data in (world.data, changed))
    np.testing.assert_array_equal(before, after)
    for name in NAMES:
        np.testing.assert_array_equal(changed.pairs[name], world.data.pairs[name])


@pytest.mark.parametrize("k", [0, 1])
def test_the_gate_gives_the_objective_that_made_the_preferences_all_weight(world: World, k: int) -> None:
    trial = run_trial(
        world.data,
        world.rewards_FUK,
        world.features_PD,
        world.fold_P,
        GATE,
        changed=diagnostics.prefers(k),
    )
    assert trial.f_PK[:, k].mean() > diagnostics.SINGLE_WEIGHT
    assert (trial.margin_NK[:, k] >= 0).all()


def test_simulated_preferences_follow_the_known_weights(world: World) -> None:
    known_PK = diagnostics.known_weights(world.data, world.features_PD, vary=True)
    rewards_UK = calibrated(world)
    # Of many draws, since one has a few hundred pairs.
    gains = []
    for seed in range(10):
        changed, same_UK = diagnostics.simulates(known_PK, mix=0.0, seed=seed)(world.data, rewards_UK)
        np.testing.assert_allclose(same_UK, rewards_UK)
        gains.append((known_PK[world.data.prompt_N] * margins(changed, same_UK)).sum(axis=1))
    gain_M = np.concatenate(gains)
    assert best_likelihood(gain_M)[1] == pytest.approx(diagnostics.STRENGTH, rel=0.1)
    # Won as often as predicted, among doubtful pairs and sure ones.
    size_M = np.abs(gain_M)
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 1.0)):
        rows = (size_M >= low) & (size_M < high)
        predicted = expit(diagnostics.STRENGTH * size_M[rows]).mean()
        assert (gain_M[rows] > 0).mean() == pytest.approx(predicted, abs=0.05)


def test_f_gains_under_simulated_preferences_that_vary_and_not_under_the_same_for_all(world: World) -> None:
    judge = TrialJudge(world.data, BOOTSTRAP)
    gains = {}
    for vary in (True, False):
        known_PK = diagnostics.known_weights(world.data, world.features_PD, vary=vary)
        trial = run_trial(
            world.data, world.rewards_FUK, world.features_PD, world.fold_P, GATE,
            changed=diagnostics.simulates(known_PK, mix=0.0, seed=3),
        )  # fmt: skip
        gains[vary] = judge.gain([trial.f_PK], [trial])[1], judge.gain([known_PK], [trial])[1]
    f_gain, oracle_gain = gains[True]
    assert f_gain.low > 0
    assert f_gain.value > oracle_gain.value - 0.03
    assert gains[False][0].low <= 0


def test_mixing_makes_margins_equal_and_then_nothing_can_be_gained(world: World) -> None:
    known_PK = diagnostics.known_weights(world.data, world.features_PD, vary=True)
    rewards_UK = calibrated(world)
    correlations = []
    for mix in (0.0, 0.5, 1.0):
        changed, mixed_UK = diagnostics.simulates(known_PK, mix=mix, seed=3)(world.data, rewards_UK)
        margin_NK = margins(changed, mixed_UK)
        correlations.append(np.corrcoef(margin_NK.T)[0, 1])
    assert correlations[0] < correlations[1] < correlations[2]
    np.testing.assert_allclose(margin_NK[:, 0], margin_NK[:, 1])
    trial = run_trial(
        world.data, world.rewards_FUK, world.features_PD, world.fold_P, FORWARD,
        changed=diagnostics.simulates(known_PK, mix=1.0, seed=3),
    )  # fmt: skip
    for weights_PK in (trial.f_PK, known_PK):
        gain = TrialJudge(world.data, BOOTSTRAP).gain([weights_PK], [trial])[1]
        assert gain.low == gain.high == 0


@pytest.mark.parametrize("count", [2, 3, 4])
def test_known_weights_go_by_category_or_are_the_same(world: World, count: int) -> None:
    names = ("a", "b", "c", "d")[:count]
    prompts = tuple(
        prompt.model_copy(update={"category": str(i % 5)}) for i, prompt in enumerate(world.data.prompts)
    )
    data = replace(world.data, names=names, prompts=prompts)
    for vary in (True, False):
        known_PK = diagnostics.known_weights(data, world.features_PD, vary=vary)
        np.testing.assert_allclose(known_PK.sum(axis=1), 1)
        np.testing.assert_allclose(known_PK.max(axis=1), 0.8)
        assert len(np.unique(known_PK.argmax(axis=1))) == (count if vary else 1)


def test_prompts_without_categories_are_parted_by_what_varies_most_in_their_vectors(world: World) -> None:
    prompts = tuple(prompt.model_copy(update={"category": ""}) for prompt in world.data.prompts)
    known_PK = diagnostics.known_weights(replace(world.data, prompts=prompts), world.features_PD, vary=True)
    same_P = known_PK.argmax(axis=1) == world.true_PK.argmax(axis=1)
    # Which group is the first one is open.
    assert max(same_P.mean(), 1 - same_P.mean()) > 0.99


def test_the_curve_of_true_probabilities_is_the_diagonal_and_a_boaster_lies_below_it() -> None:
    rng = np.random.default_rng(0)
    margin_M = 2 * rng.normal(size=40_000)
    margin_M = np.where(rng.random(40_000) < expit(margin_M), margin_M, -margin_M)
    honest, boasting = (diagnostics.calibration_curve(expit(scale * margin_M)) for scale in (1.0, 3.0))
    assert len(honest) == diagnostics.BINS
    assert sum(point.pairs for point in honest) == 40_000
    # Margins are read from the side of the response that was chosen, whose probability is below a half where
    # it lost.
    assert all(0.5 <= point.predicted <= 1 for point in honest)
    # `margin_M` is won with sigma(|m|) by the likelier side.
    assert all(abs(point.predicted - point.observed) < 0.03 for point in honest)
    assert sum(point.observed < point.predicted - 0.03 for point in boasting) > 5


def test_a_curve_of_fewer_pairs_than_bins_has_a_point_for_each() -> None:
    curve = diagnostics.calibration_curve(np.array([0.9, 0.2, 0.5]))
    assert [(point.predicted, point.observed) for point in curve] == [(0.5, 0.5), (0.8, 0.0), (0.9, 1.0)]


def test_reward_quality_is_that_of_held_out_margins(world: World) -> None:
    found = diagnostics.reward_quality(world.data, [world.rewards_FUK] * 2, [world.fold_P] * 2, BOOTSTRAP)
    assert [entry.objective for entry in found] == list(NAMES)
    fold_U = world.fold_P[world.data.prompt_U]
    for k, entry in enumerate(found):
        held_U = world.rewards_FUK[fold_U, np.arange(len(fold_U)), k]
        chosen, rejected = world.data.pairs[NAMES[k]].T
        assert entry.accuracy.value == pytest.approx((held_U[chosen] > held_U[rejected]).mean())
        assert entry.accuracy.groups == 300
        assert entry.pairs == 900
        assert 0 <= entry.error < 0.06


def test_agreement_lists_the_pairs_that_disagree_most(world: World) -> None:
    margin_NK = margins(world.data, calibrated(world))
    for k, entry in enumerate(diagnostics.agreements(world.data, [margin_NK, margin_NK], BOOTSTRAP)):
        assert entry.share.value == pytest.approx((margin_NK[:, k] > 0).mean())
        worst = np.argsort(margin_NK[:, k])[: diagnostics.WORST]
        assert [id_ for id_, _ in entry.worst] == [world.data.overall_ids[n] for n in worst]
        assert entry.worst[0][1] == pytest.approx(margin_NK[:, k].min())
