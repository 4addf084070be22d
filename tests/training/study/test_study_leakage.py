"""Nothing that is judged on a fold has read it:
rewards, calibration, penalty, orchestrator, constants, oracle."""

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
from preforch_models.conversation import Message
from preforch_training.records import OVERALL, PreferencePair, Prompt
from preforch_training.study.choices import Choice, run_trial
from preforch_training.study.cross_fitting import crossfit, fitted_on_share, held_out_rewards
from preforch_training.study.data import StudyData
from preforch_training.study.judging import TrialJudge
from preforch_training.study.transfers import judge_transfer
from study_world import BOOTSTRAP, FORWARD, GATE, NAMES, Memory, World, fit_direction, make_world, swap_labels

FOLDS = 4
WEIGHTS = ("f_PK", "constant_PK", "fitted_PK", "oracle_PK")
CHOICES = [
    FORWARD,
    GATE.model_copy(update={"calibration": "log_odds", "entropy_prior": 0.01}),
    FORWARD.model_copy(update={"calibration": "log_odds", "target": "advantage_softmax", "loss": "reverse"}),
    FORWARD.model_copy(update={"calibration": "none", "target": "chosen_softmax", "loss": "regress"}),
]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(prompts=120, folds=FOLDS)


def test_a_reward_has_seen_neither_the_outer_fold_nor_the_fold_of_its_prompt_and_all_others(
    world: World,
) -> None:
    memory = Memory(world.data)
    rewards_FUK = crossfit(world.data, memory, world.fold_P, seed=0)
    assert len(memory.fits) == FOLDS * (FOLDS + 1) // 2 * len(NAMES)
    for outer in range(FOLDS):
        for row, p in enumerate(world.data.prompt_U):
            for k, name in enumerate(NAMES):
                fitted, seen = memory.fits[int(rewards_FUK[outer, row, k])]
                assert fitted == name
                assert seen == set(np.flatnonzero(~np.isin(world.fold_P, [outer, world.fold_P[p]])).tolist())


def test_held_out_rewards_have_seen_every_fold_but_their_own(world: World) -> None:
    memory = Memory(world.data)
    fold_U = world.fold_P[world.data.prompt_U]
    found_UK = held_out_rewards(crossfit(world.data, memory, world.fold_P, seed=0), fold_U)
    for row, fold in enumerate(fold_U):
        for k in range(len(NAMES)):
            assert memory.fits[int(found_UK[row, k])][1] == set(np.flatnonzero(world.fold_P != fold).tolist())


def test_a_share_holds_the_prompts_of_smaller_shares_and_none_of_the_judged_fold(world: World) -> None:
    fold_U = world.fold_P[world.data.prompt_U]
    seen: dict[float, dict[tuple[int, int], set[int]]] = {}
    for share in (0.3, 0.6, 1.0):
        memory = Memory(world.data)
        found_UK = fitted_on_share(world.data, memory, world.fold_P, share=share, seed=0)
        seen[share] = {
            (row, k): memory.fits[int(found_UK[row, k])][1]
            for row in range(0, len(fold_U), 7)
            for k in range(len(NAMES))
        }
    for key, whole in seen[1.0].items():
        assert whole == set(np.flatnonzero(world.fold_P != fold_U[key[0]]).tolist())
        assert 0 < len(seen[0.3][key]) < 0.4 * len(whole)
        assert seen[0.3][key] < seen[0.6][key] < whole


def test_one_judged_fold_gets_the_rewards_that_it_gets_among_all(world: World) -> None:
    fit = fit_direction(np.random.default_rng(0).normal(size=(len(world.data.responses), 5)))
    whole_FUK = crossfit(world.data, fit, world.fold_P, seed=0)
    for judged in (0, FOLDS - 1):
        alone_FUK = crossfit(world.data, fit, world.fold_P, seed=0, judged=judged)
        np.testing.assert_array_equal(alone_FUK[judged], whole_FUK[judged])


def test_a_reward_that_is_not_finite_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="a reward is not finite"):
        crossfit(world.data, lambda *_: lambda rows_R: np.full(len(rows_R), np.nan), world.fold_P, seed=0)


def other_fold(world: World, fold: int) -> World:
    """Everything about the pairs of a fold is different: all labels, and the rewards of all responses."""
    test_P = world.fold_P == fold
    rewards_FUK = world.rewards_FUK.copy()
    rewards_FUK[:, test_P[world.data.prompt_U]] *= -7.0
    return replace(world, data=swap_labels(world.data, test_P), rewards_FUK=rewards_FUK)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_weights_for_a_fold_do_not_depend_on_its_pairs(world: World, choice: Choice) -> None:
    fold = 2
    test_P, changed = world.fold_P == fold, other_fold(world, fold)
    before, after = (
        run_trial(w.data, w.rewards_FUK, w.features_PD, w.fold_P, choice) for w in (world, changed)
    )
    for name in WEIGHTS:
        np.testing.assert_array_equal(
            getattr(before, name)[test_P], getattr(after, name)[test_P], err_msg=name
        )
    # And what was changed matters: the weights for other folds are fitted to it.
    assert np.abs(before.f_PK[~test_P] - after.f_PK[~test_P]).max() > 1e-3


def test_the_whole_chain_from_pairs_to_weights_never_reads_the_judged_fold(world: World) -> None:
    vectors_UD = np.random.default_rng(1).normal(size=(len(world.data.responses), 6))
    vectors_UD[:, :2] = 3 * world.rewards_FUK[0]
    for fold in range(FOLDS):
        test_P = world.fold_P == fold
        trials = []
        for data in (world.data, swap_labels(world.data, test_P)):
            rewards_FUK = crossfit(data, fit_direction(vectors_UD), world.fold_P, seed=0)
            trials.append(run_trial(data, rewards_FUK, world.features_PD, world.fold_P, FORWARD))
        for name in WEIGHTS:
            first_PK, second_PK = (getattr(trial, name) for trial in trials)
            np.testing.assert_array_equal(first_PK[test_P], second_PK[test_P], err_msg=name)
        test_N = test_P[world.data.prompt_N]
        np.testing.assert_allclose(trials[0].margin_NK[test_N], -trials[1].margin_NK[test_N])
        assert np.abs(trials[0].f_PK[~test_P] - trials[1].f_PK[~test_P]).max() > 1e-3


def test_features_made_from_texts_see_the_training_side_only(world: World) -> None:
    masks = []

    def features(train_P: np.ndarray) -> np.ndarray:
        masks.append(train_P)
        return world.features_PD

    made = run_trial(world.data, world.rewards_FUK, features, world.fold_P, FORWARD)
    for fold, mask in enumerate(masks):
        np.testing.assert_array_equal(mask, world.fold_P != fold)
    given = run_trial(world.data, world.rewards_FUK, world.features_PD, world.fold_P, FORWARD)
    np.testing.assert_array_equal(made.f_PK, given.f_PK)


def test_one_judged_fold_alone_is_that_fold_of_the_whole_trial(world: World) -> None:
    whole, alone = (
        run_trial(world.data, world.rewards_FUK, world.features_PD, world.fold_P, FORWARD, judged=judged)
        for judged in (None, 1)
    )
    test_P = world.fold_P == 1
    test_N = test_P[world.data.prompt_N]
    for field in fields(whole):
        ours, theirs = getattr(alone, field.name), getattr(whole, field.name)
        rows = test_N if field.name.endswith("NK") else test_P
        np.testing.assert_array_equal(ours[rows], theirs[rows])
        assert not ours[~rows].any()


def test_a_share_of_the_training_prompts_fits_other_weights(world: World) -> None:
    whole, part = (
        run_trial(world.data, world.rewards_FUK, world.features_PD, world.fold_P, FORWARD, train_share=share)
        for share in (1.0, 0.3)
    )
    assert np.abs(whole.f_PK - part.f_PK).max() > 1e-3
    np.testing.assert_array_equal(whole.margin_NK, part.margin_NK)


def test_permuted_labels_give_gains_around_zero() -> None:
    world = make_world(prompts=300, folds=FOLDS)
    coin_P = np.random.default_rng(3).random(300) < 0.5
    swapped = swap_labels(world.data, coin_P)
    # Objectives keep their pairs, so rewards mean what they meant; only what is preferred overall is by
    # chance.
    data = replace(world.data, pairs={**world.data.pairs, OVERALL: swapped.pairs[OVERALL]})
    for choice in (FORWARD, GATE):
        trial = run_trial(data, world.rewards_FUK, world.features_PD, world.fold_P, choice)
        result = TrialJudge(data, BOOTSTRAP).result(choice, [trial])
        assert abs(result.gain.value) < 0.05
        assert abs(result.accuracy.value - 0.5) < 0.06
        assert result.gain.low < 0


def foreign(*, count: int, first: str) -> tuple[list[Prompt], list[PreferencePair]]:
    """Prompts `FIRST 0` and so on, with one overall pair each."""
    prompts = [
        Prompt(id=f"f{i}", messages=(Message(role="user", content=f"{first} {i}"),), split="train")
        for i in range(count)
    ]
    pairs = [
        PreferencePair(
            id=f"fp{i}", prompt_id=f"f{i}", objective=OVERALL, chosen="0", rejected="1", split="train"
        )
        for i in range(count)
    ]
    return prompts, pairs


def records_of(data: StudyData) -> tuple[list[Prompt], list[PreferencePair]]:
    """The records that `gather` made a data of."""
    pairs = [
        PreferencePair(
            id=f"{name}-{i}",
            prompt_id=data.prompts[data.prompt_U[rows[0]]].id,
            objective=name,
            chosen=data.responses[rows[0]],
            rejected=data.responses[rows[1]],
            split="train",
        )
        for name, pairs_M2 in data.pairs.items()
        for i, rows in enumerate(pairs_M2)
    ]
    return list(data.prompts), pairs


def test_another_source_is_judged_by_what_has_seen_none_of_it(world: World) -> None:
    made: list[tuple[StudyData, Memory]] = []

    def fit_of(data: StudyData) -> Callable[[str, np.ndarray, int], Callable[[np.ndarray], np.ndarray]]:
        memory = Memory(data)
        made.append((data, memory))

        def fit(name: str, pairs_M2: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
            memory(name, pairs_M2, seed)
            k = NAMES.index(name)
            return lambda rows_R: np.array([world.rewards_FUK[0, int(data.responses[r]), k] for r in rows_R])

        return fit

    result = judge_transfer(
        records_of(world.data),
        foreign(count=10, first="elsewhere"),
        NAMES,
        FORWARD,
        fit_of,
        lambda data: np.zeros((len(data.prompts), 2)) + np.arange(len(data.prompts))[:, None] % 5,
        source="other",
        folds=3,
        bootstrap=BOOTSTRAP,
    )
    [(data, memory)] = made
    strangers = {p for p, prompt in enumerate(data.prompts) if prompt.text.startswith("user: elsewhere")}
    strangers |= {p for p, prompt in enumerate(data.prompts) if prompt.id.startswith("f")}
    assert len(strangers) == result.pairs == result.accuracy.groups == 10
    assert not any(seen & strangers for _, seen in memory.fits)
    assert max(len(seen) for _, seen in memory.fits) == len(world.data.prompts)


def test_a_prompt_that_begins_like_one_of_the_runs_own_is_not_another_source(world: World) -> None:
    with pytest.raises(ValueError, match="other has no overall pairs on prompts that the run does not have"):
        judge_transfer(
            records_of(world.data),
            foreign(count=10, first="PROMPT  "),
            NAMES,
            FORWARD,
            lambda data: Memory(data),
            lambda data: np.zeros((len(data.prompts), 2)),
            source="other",
            folds=3,
            bootstrap=BOOTSTRAP,
        )
