"""Fitting w* against brute force and pools whose gold was drawn with a known w*,
and the rule whether it varies."""

import numpy as np
import pytest
from pool_world import HALF, REWARDS, drawn_pool, drawn_pools, two_kinds
from preforch_training.statistics.bootstrap import Bootstrap
from preforch_training.study.alignment.closed_form import Pool, policy
from preforch_training.study.alignment.gold_weights import (
    Prior,
    choose_beta,
    fit_gold_weights,
    gold_constant,
    gold_weights_of,
    spread,
    varies,
)

UNIFORM = Prior(HALF)


@pytest.mark.parametrize("star", [[0.7, 0.3], [0.2, 0.5, 0.3]])
def test_fitting_finds_the_weights_that_gold_was_drawn_with(star: list[float]) -> None:
    gold_K = np.array(star)
    pool = drawn_pool(np.random.default_rng(1), gold_K, answers=40_000, gold=4_000)
    fitted_K = gold_weights_of(
        pool.rewards_YK, pool.good_Y, beta=1.0, prior=Prior(np.full(len(gold_K), 1 / len(gold_K)), 1e-3)
    )
    assert fitted_K == pytest.approx(gold_K, abs=0.05)


@pytest.mark.parametrize("beta", [0.02, 0.3, 5.0])
def test_fitting_agrees_with_trying_every_weight(beta: float) -> None:
    rng = np.random.default_rng(2)
    grid_GK = np.stack([np.linspace(0.0005, 0.9995, 1000), np.linspace(0.9995, 0.0005, 1000)], axis=1)
    for strength in (0.01, 1.0):
        pool = drawn_pool(rng, np.array([0.6, 0.4]), answers=9, gold=4, beta=beta)
        gold = int(pool.good_Y.sum())
        values = [
            float(np.log(policy(pool.rewards_YK, w_K, beta=beta)[pool.good_Y]).mean())
            + strength / gold * float(HALF @ np.log(w_K))
            for w_K in grid_GK
        ]
        fitted_K = gold_weights_of(pool.rewards_YK, pool.good_Y, beta=beta, prior=Prior(HALF, strength))
        assert fitted_K == pytest.approx(grid_GK[int(np.argmax(values))], abs=0.002)


def test_a_pool_that_says_nothing_gets_the_prior_and_a_stronger_prior_pulls_more() -> None:
    centre_K, good_Y = np.array([0.2, 0.8]), np.array([True, False, False])
    assert gold_weights_of(REWARDS * 0 + 1, good_Y, beta=0.1, prior=Prior(centre_K)) == pytest.approx(
        centre_K
    )
    first = [
        gold_weights_of(REWARDS, good_Y, beta=0.5, prior=Prior(centre_K, strength))[0]
        for strength in (0.1, 1.0, 100.0)
    ]
    assert first[0] > first[1] > first[2] > 0.2


def test_pools_without_news_are_left_out_by_name() -> None:
    labels = {"some": [True, False, False], "all": [True] * 3, "none": [False] * 3}
    pools = [Pool(name, REWARDS, np.array(good)) for name, good in labels.items()]
    fitted = fit_gold_weights(pools, beta=0.5, prior=UNIFORM)
    assert [pool.prompt_id for pool in fitted.pools] == ["some"]
    assert fitted.weights_PK.shape == (1, 2)
    assert (fitted.all_gold, fitted.none_gold) == (("all",), ("none",))
    with pytest.raises(ValueError, match="none of 1 pools has both gold and other"):
        fit_gold_weights(pools[1:2], beta=0.5, prior=UNIFORM)


def test_the_best_constant_and_beta_of_small_pools_are_found_together() -> None:
    gold_K = np.array([0.7, 0.3])
    pools = drawn_pools(np.tile(gold_K, (300, 1)), seed=3, beta=1.0)
    beta, likelihoods = choose_beta(pools, grid=[0.25, 0.5, 1.0, 2.0, 4.0])
    assert beta == 1.0
    assert max(likelihoods, key=lambda tried: likelihoods[tried]) == beta
    assert gold_constant(pools, beta=beta) == pytest.approx(gold_K, abs=0.06)
    with pytest.raises(ValueError, match="grid is empty"):
        choose_beta(pools, grid=[])


@pytest.mark.parametrize("seed", [4, 5])
def test_one_shared_w_star_is_said_to_barely_vary(seed: int) -> None:
    pools = drawn_pools(np.tile([0.6, 0.4], (150, 1)), seed=seed)
    prior = Prior(gold_constant(pools, beta=1.0))
    found = spread(
        fit_gold_weights(pools, beta=1.0, prior=prior),
        beta=1.0,
        prior=prior,
        bootstrap=Bootstrap(0, 300),
        splits=2,
    )
    assert found.sd[0] > 0.05, (
        "sampling noise alone moves the fitted weights, so the rule must not read sd only"
    )
    assert not varies(found)


def test_weights_that_differ_by_prompt_are_said_to_vary() -> None:
    pools = drawn_pools(two_kinds(150), seed=6)
    prior = Prior(gold_constant(pools, beta=1.0))
    found = spread(
        fit_gold_weights(pools, beta=1.0, prior=prior),
        beta=1.0,
        prior=prior,
        bootstrap=Bootstrap(0, 300),
        splits=2,
    )
    assert varies(found)
    assert 0.3 < found.share <= 1
    assert found.low[0] < 0.4 < 0.6 < found.high[0]
    assert (found.prompts, found.too_small) == (150, 0)


def unlike_pools(gold_K: np.ndarray, *, count: int, seed: int) -> list[Pool]:
    """Pools of unlike sizes and numbers of gold answers, which conflicting rewards under one w* decide."""
    rng = np.random.default_rng(seed)
    pools = []
    for place in range(count):
        answers = int(rng.integers(8, 24))
        conflict_Y = rng.normal(size=answers)
        rewards_YK = 0.8 * np.stack([conflict_Y, -conflict_Y], axis=1) + 0.6 * rng.normal(size=(answers, 2))
        good_Y = np.zeros(answers, dtype=bool)
        order_Y = np.argsort(-(rewards_YK @ gold_K / 0.5 + rng.gumbel(size=answers)))
        good_Y[order_Y[: int(rng.integers(2, answers - 2))]] = True
        pools.append(Pool(f"unlike{place}", rewards_YK, good_Y))
    return pools


def test_pools_that_tell_unlike_amounts_do_not_pass_for_weights_that_vary() -> None:
    """Without the correction the halves of these pools correlate,
    since those that tell little stay near the prior."""
    pools = unlike_pools(np.array([0.9, 0.1]), count=120, seed=13)
    prior = Prior(gold_constant(pools, beta=1.0))
    found = spread(
        fit_gold_weights(pools, beta=1.0, prior=prior),
        beta=1.0,
        prior=prior,
        bootstrap=Bootstrap(0, 300),
        splits=2,
    )
    assert found.halves.low < 0 < found.halves.high
    assert not varies(found)


def test_agreement_on_next_to_nothing_is_not_enough() -> None:
    pools = drawn_pools(two_kinds(150), seed=6)
    prior = Prior(HALF, strength=300.0)
    found = spread(
        fit_gold_weights(pools, beta=1.0, prior=prior),
        beta=1.0,
        prior=prior,
        bootstrap=Bootstrap(0, 300),
        splits=2,
    )
    assert found.halves.low > 0
    assert max(found.sd) < 0.05
    assert not varies(found)


def test_pools_too_small_to_halve_are_counted_and_refused_where_nothing_is_left() -> None:
    tiny = [Pool(f"tiny{place}", REWARDS, np.array([True, False, False])) for place in range(3)]
    large = drawn_pools(two_kinds(4), seed=7)
    fitted = fit_gold_weights(tiny + large, beta=1.0, prior=UNIFORM)
    assert spread(fitted, beta=1.0, prior=UNIFORM, bootstrap=Bootstrap(0, 50)).too_small == 3
    with pytest.raises(ValueError, match="0 of 3 pools have two gold and two other"):
        spread(
            fit_gold_weights(tiny, beta=1.0, prior=UNIFORM),
            beta=1.0,
            prior=UNIFORM,
            bootstrap=Bootstrap(0, 50),
        )


def test_wrong_labels_and_priors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="0 gold of 3"):
        gold_weights_of(REWARDS, np.zeros(3, dtype=bool), beta=1.0, prior=UNIFORM)
    with pytest.raises(ValueError, match="centre must be positive and sum to 1"):
        Prior(np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="strength must be positive"):
        Prior(HALF, 0.0)
