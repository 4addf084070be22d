"""Figures of rounds: one value per round and arm, arms of one round measured beside each other.

In:  arrays with one value per round. Out: text with a 95% t interval over rounds.
"""

import math

import numpy as np
import scipy.stats


def ratio(above: np.ndarray, below: np.ndarray) -> str:
    """Geometric mean of above/below over rounds, with the t interval of its logarithm."""
    logs = np.log(above / below)
    half = half_width(logs)
    middle, low, high = (math.exp(value) for value in (logs.mean(), logs.mean() - half, logs.mean() + half))
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def mean(values: np.ndarray) -> str:
    """Mean over rounds."""
    half = half_width(values)
    return f"{values.mean():.2f} [{values.mean() - half:.2f}, {values.mean() + half:.2f}]"


def half_width(values: np.ndarray) -> float:
    """Half of the t interval of the mean."""
    count = len(values)
    return float(scipy.stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / math.sqrt(count))


def spread(values: np.ndarray) -> str:
    """Median and 95% quantile of single requests."""
    return f"{np.median(values):.1f} / {np.quantile(values, 0.95):.1f}"
