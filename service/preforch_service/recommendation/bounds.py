"""The bounds within which weights are announced: the operator's, and those of an API key on top of them.

In:  the objectives of a bundle with the operator's bounds, and API keys with theirs.
Out: `Bounds`, objectives with the bounds that hold for a caller; and which bounds acted on weights.
"""

from collections.abc import Sequence

from preforch_models.bundle import BundleInfo
from preforch_models.objectives import Objective, names_of
from preforch_models.weights import Weights, WeightsError, clamp, round_within

from preforch_service.keys import ApiKey, Bound

FREE = Bound()

Acted = dict[str, dict[str, float]]
"""`{"harmless": {"low": 0.3}}`: by objective, the bound that held its weight."""


def announced(weights: Weights, objectives: Sequence[Objective], units: int) -> tuple[Weights, Weights]:
    """Weights within the bounds, and these rounded to multiples of 1/units, still within the bounds."""
    within = clamp(weights, objectives)
    return within, round_within(within, objectives, units)


def acted(rounded: Weights, objectives: Sequence[Objective], units: int) -> Acted:
    """The bounds at which rounded weights lie. Those of the simplex itself, 0 and 1, are none."""
    found: Acted = {}
    for each in objectives:
        # Rounding keeps to the next multiple inside a bound.
        step = 1 / units - 1e-9
        if each.low > 0 and rounded[each.name] < each.low + step:
            found[each.name] = {"low": each.low}
        elif each.high < 1 and rounded[each.name] > each.high - step:
            found[each.name] = {"high": each.high}
    return found


class Bounds:
    """Objectives with the bounds that hold for each API key."""

    def __init__(self, info: BundleInfo, keys: Sequence[ApiKey]) -> None:
        """Raises ValueError for bounds of a key that no weights satisfy, or of an unknown objective."""
        self._operators = info.objectives
        self._of_keys = {key.name: _narrowed(info, key) for key in keys if key.bounds}

    def of(self, caller: ApiKey | None) -> tuple[Objective, ...]:
        """The objectives for a caller."""
        return self._operators if caller is None else self._of_keys.get(caller.name, self._operators)


def _narrowed(info: BundleInfo, key: ApiKey) -> tuple[Objective, ...]:
    """The objectives with a key's bounds on top of the operator's."""
    names = names_of(info.objectives)
    unknown = [name for name in key.bounds if name not in names]
    if unknown:
        raise ValueError(
            f"bounds of API key {key.name!r}: unknown objective {unknown[0]!r}; known are {list(names)}"
        )
    narrowed = tuple(_within(each, key.bounds.get(each.name, FREE)) for each in info.objectives)
    try:
        announced(info.fallback, narrowed, info.context.units)
    except WeightsError as error:
        raise ValueError(f"bounds of API key {key.name!r} and the operator's together: {error}") from error
    return narrowed


def _within(objective: Objective, bound: Bound) -> Objective:
    """Not validated: a low above the high is one of the ways in which no weights satisfy the bounds."""
    limits = {"low": max(objective.low, bound.low), "high": min(objective.high, bound.high)}
    return objective.model_copy(update=limits)
