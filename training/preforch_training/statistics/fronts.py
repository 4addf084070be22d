"""Quality of fronts: mean reward vectors, one for each weights that a policy was asked for (METHOD 9).

In:  points (G, K), higher is better; by moocore where it has the indicator. Out: one number a front.
"""

import moocore
import numpy as np


def hypervolume(points_GK: np.ndarray, low_K: np.ndarray, high_K: np.ndarray) -> float:
    """Volume that the points dominate above `low_K`, the reference point, in units of the box up to `high_K`:
    1 is a point at `high_K`, 0 are points that are nowhere above."""
    scaled_GK = (points_GK - low_K) / (high_K - low_K)
    return float(moocore.hypervolume(scaled_GK, ref=np.zeros(len(low_K)), maximise=True))


def additive_epsilon(points_GK: np.ndarray, front_FK: np.ndarray) -> float:
    """The least that must be added to every reward of the points for each point of the front to be reached
    (Zitzler et al. 2003, I_epsilon+). 0 where they reach it as they are, below 0 beyond it."""
    return float(moocore.epsilon_additive(points_GK, ref=front_FK, maximise=True))


def expected_utility(points_GK: np.ndarray, weights_DK: np.ndarray) -> float:
    """Mean over weights of the best point's w.r: what the front is worth to users of such weights."""
    return float((weights_DK @ points_GK.T).max(axis=1).mean())


def dirichlet(count: int, *, draws: int, seed: int) -> np.ndarray:
    """Weights ~ Dirichlet(1), (draws, count)."""
    return np.random.default_rng(seed).dirichlet(np.ones(count), size=draws)
