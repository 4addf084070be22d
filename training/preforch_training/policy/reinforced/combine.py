"""How the K rewards of a group of responses become one (METHOD 6).

In:  calibrated rewards of the G responses to one prompt, (G, K), and the prompt's weights, (K,).
Out: one reward a response, (G,).

With m_k and s_k the mean and deviation of objective k in the group, and z_gk = (r_gk - m_k) / s_k, 0 where
s_k is:

| name         | reward of response g                               | source              |
|--------------|----------------------------------------------------|---------------------|
| `sum`        | sum_k w_k r_gk                                     | paper, Eq. 9        |
| `gdpo`       | sum_k w_k z_gk                                     | 2601.05242          |
| `dvao`       | sum_k v_k z_gk, v_k proportional to w_k s_k        | 2605.25604          |
| `saturation` | sum_k v_k r_gk, v_k proportional to                | METHOD 6; q [ours]: |
|              | w_k (1 - q_k)^0.5, q_k the share of known          |                     |
|              | responses with a smaller reward than m_k           |                     |

All v_k sum to 1.

One function of all rewards, because trainers that are given K of them normalise each by itself, over
prompts: weights of the prompts then cancel without a word.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np

from preforch_training.policy.settings.rl import Combine

Combiner = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(rewards (G, K), weights (K,)) -> (G,)."""


def combiner(name: Combine, known_NK: np.ndarray) -> Combiner:
    """The function of that name. `known_NK`: calibrated rewards of known responses."""
    return partial(_COMBINE[name], np.sort(known_NK, axis=0))


def _sum(_: np.ndarray, rewards_GK: np.ndarray, weights_K: np.ndarray) -> np.ndarray:
    return np.asarray(rewards_GK @ weights_K)


def _gdpo(_: np.ndarray, rewards_GK: np.ndarray, weights_K: np.ndarray) -> np.ndarray:
    return np.asarray(_z_scores(rewards_GK) @ weights_K)


def _dvao(_: np.ndarray, rewards_GK: np.ndarray, weights_K: np.ndarray) -> np.ndarray:
    return np.asarray(_z_scores(rewards_GK) @ _normalised(weights_K * rewards_GK.std(axis=0)))


def _saturation(sorted_NK: np.ndarray, rewards_GK: np.ndarray, weights_K: np.ndarray) -> np.ndarray:
    mean_K = rewards_GK.mean(axis=0)
    share_K = np.array([np.searchsorted(s, m) for s, m in zip(sorted_NK.T, mean_K, strict=True)])
    return np.asarray(rewards_GK @ _normalised(weights_K * np.sqrt(1 - share_K / len(sorted_NK))))


def _z_scores(rewards_GK: np.ndarray) -> np.ndarray:
    deviation_K = rewards_GK.std(axis=0)
    varies_K = deviation_K > 1e-8
    return np.asarray(
        (rewards_GK - rewards_GK.mean(axis=0)) * varies_K / np.where(varies_K, deviation_K, 1.0)
    )


def _normalised(weights_K: np.ndarray) -> np.ndarray:
    """To sum 1; all 0 where they are."""
    total = weights_K.sum()
    return np.asarray(weights_K / total) if total > 0 else weights_K


_COMBINE: Mapping[Combine, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = MappingProxyType(
    {"sum": _sum, "gdpo": _gdpo, "dvao": _dvao, "saturation": _saturation}
)
