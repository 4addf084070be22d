"""Pools of responses whose gold ones were drawn under known weights."""

import numpy as np
from preforch_training.study.alignment.closed_form import Pool, policy

REWARDS = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, -0.5]])
HALF = np.array([0.5, 0.5])


def drawn_pool(
    rng: np.random.Generator, gold_K: np.ndarray, *, answers: int, gold: int, beta: float = 1.0
) -> Pool:
    """A pool whose gold answers are drawn from pi_w*."""
    rewards_YK = rng.normal(size=(answers, len(gold_K))) * 1.5
    drawn = rng.choice(answers, size=gold, p=policy(rewards_YK, gold_K, beta=beta))
    good_Y = np.zeros(answers, dtype=bool)
    good_Y[drawn] = True
    return Pool(f"p{rng.integers(10**12)}", rewards_YK, good_Y)


def drawn_pools(gold_PK: np.ndarray, *, seed: int, beta: float = 1.0) -> list[Pool]:
    rng = np.random.default_rng(seed)
    return [drawn_pool(rng, gold_K, answers=40, gold=8, beta=beta) for gold_K in gold_PK]


def two_kinds(count: int) -> np.ndarray:
    return np.tile([[0.95, 0.05], [0.05, 0.95]], (count // 2, 1))
