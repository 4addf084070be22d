"""The minimum of a smooth function that torch differentiates, by L-BFGS.

In:  a function of a vector, as parts that add up to it, and where to start. Out: the vector.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from scipy.optimize import minimize


def minimise(
    function: Callable[[torch.Tensor], Iterable[torch.Tensor]],
    start: np.ndarray,
    *,
    limits: Sequence[float | None],
) -> np.ndarray:
    """L-BFGS in float64 of the sum of a function's parts, which are differentiated one after the other.
    `limits`: the largest absolute value of each variable, None where it is free."""

    def value_and_slope(point: np.ndarray) -> tuple[float, np.ndarray]:
        variables = torch.from_numpy(point.copy()).requires_grad_()
        value, slope = 0.0, np.zeros(len(point))
        for part in function(variables):
            (part_slope,) = torch.autograd.grad(part, variables)
            value, slope = value + float(part.detach()), slope + part_slope.numpy()
        return value, slope

    bounds = [(None if limit is None else -limit, limit) for limit in limits]
    options = {"maxiter": 1000, "gtol": 1e-6, "ftol": 1e-10}
    return np.asarray(
        minimize(value_and_slope, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    )
