"""Weights: a point on the simplex, keyed by objective name.

In:  what a user, an operator or a model says.
Out: plain dicts whose values are >= 0 and sum to 1, in the order of the objectives. Rounded weights lie on a
     grid (`units` steps of 1/units) and sum to exactly 1 there; they are what is announced and what is
     printed.
"""

import math
import sys
from collections.abc import Mapping, Sequence

from preforch_models.objectives import Objective, names_of

Weights = dict[str, float]


class WeightsError(ValueError):
    """Weights that cannot be used; the message names the objective, the value and what is allowed."""


def check_values(given: Mapping[str, object], names: Sequence[str]) -> Weights:
    """Names are known, values are finite numbers >= 0, at least one is given. Raises WeightsError."""
    if not given:
        raise WeightsError(f"weights are empty; name at least one of {list(names)}")
    unknown = [name for name in given if name not in names]
    if unknown:
        raise WeightsError(f"unknown objective {unknown[0]!r}; known are {list(names)}")
    checked: Weights = {}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WeightsError(f"weight of {name!r} must be a number, got {value!r}")
        # Also false for NaN, and for integers that no float can hold.
        if not 0 <= value <= sys.float_info.max:
            raise WeightsError(f"weight of {name!r} must be a finite number >= 0, got {value!r}")
        checked[name] = float(value)
    return checked


def normalise(given: Mapping[str, object] | Sequence[object], names: Sequence[str]) -> Weights:
    """A full mapping, or a list in the order of the objectives, scaled to sum 1. Raises WeightsError."""
    if not isinstance(given, Mapping):
        if isinstance(given, str | bytes) or len(given) != len(names):
            raise WeightsError(f"a list of weights needs {len(names)} numbers, one for each of {list(names)}")
        given = dict(zip(names, given, strict=True))
    checked = check_values(given, names)
    missing = [name for name in names if name not in checked]
    if missing:
        raise WeightsError(f"weight of {missing[0]!r} is missing; all of {list(names)} are needed")
    # Scaling by the largest first keeps 1e308 + 1e308 finite.
    largest = max(checked.values())
    if largest == 0:
        raise WeightsError("weights are all zero; at least one must be positive")
    scaled = {name: checked[name] / largest for name in names}
    total = sum(scaled.values())
    return {name: value / total for name, value in scaled.items()}


def parse_assignments(text: str) -> Weights:
    """`helpful=0.7,harmless=0.3` as a mapping. Raises WeightsError."""
    parsed: Weights = {}
    for item in text.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not name:
            raise WeightsError(f"weights are written name=number,name=number, got {text!r}")
        if name in parsed:
            raise WeightsError(f"weight of {name!r} is given twice")
        try:
            parsed[name] = float(value)
        except ValueError:
            raise WeightsError(f"weight of {name!r} must be a number, got {value!r}") from None
    return parsed


def assignments(weights: Mapping[str, float]) -> str:
    """Weights on the grid as `helpful=0.70,harmless=0.30`, which `parse_assignments` reads."""
    return ",".join(f"{name}={value:.2f}" for name, value in weights.items())


def blend(pinned: Mapping[str, object], recommended: Mapping[str, float], names: Sequence[str]) -> Weights:
    """Pin some weights (sum at most 1) and share the rest in the proportions of the recommendation."""
    checked = check_values(pinned, names)
    total = sum(checked.values())
    if total > 1 + 1e-9:
        raise WeightsError(
            f"a partial set of weights may sum to at most 1, got {total:.6g}; name all of {list(names)}"
        )
    rest = max(0.0, 1.0 - total)
    free = [name for name in names if name not in checked]
    mass = sum(recommended[name] for name in free)
    shares = {name: recommended[name] / mass if mass > 0 else 1 / len(free) for name in free}
    merged = {name: checked.get(name, 0.0) + rest * shares.get(name, 0.0) for name in names}
    return normalise(merged, names)


def clamp(weights: Mapping[str, float], objectives: Sequence[Objective]) -> Weights:
    """Euclidean projection onto {low <= w <= high, sum w = 1}.

    All are shifted by one number, found by bisection, then cut. A closed form over the sorted places where
    cuts begin is longer, and scipy is a dependency of training alone.
    """
    names = names_of(tuple(objectives))
    if all(o.low <= weights[o.name] <= o.high for o in objectives):
        return {name: weights[name] for name in names}

    def cut(shift: float) -> list[float]:
        return [min(max(weights[o.name] + shift, o.low), o.high) for o in objectives]

    low, high = -2.0, 2.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(cut(middle)) < 1 else (low, middle)
    return dict(zip(names, cut(high), strict=True))


def round_weights(weights: Mapping[str, float], units: int) -> Weights:
    """Largest-remainder rounding to multiples of 1/units that sum to exactly `units` units.

    Ties go to the earlier objective. Applying it twice changes nothing.
    """
    exact = {name: value * units for name, value in weights.items()}
    # 0.29 * 100 = 28.999...: what is a whole number up to float noise counts as one.
    counts = {name: math.floor(value + 1e-9) for name, value in exact.items()}
    left = units - sum(counts.values())
    order = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in order[:left]:
        counts[name] += 1
    return {name: count / units for name, count in counts.items()}


def round_within(weights: Mapping[str, float], objectives: Sequence[Objective], units: int) -> Weights:
    """`round_weights` that never leaves the bounds: one unit at a time moves back to where there is room.

    Bounds that are not a multiple of 1/units are tightened to the next multiple inside.
    """
    counts = {name: round(value * units) for name, value in round_weights(weights, units).items()}
    low = {o.name: math.ceil(o.low * units - 1e-9) for o in objectives}
    high = {o.name: math.floor(o.high * units + 1e-9) for o in objectives}
    empty = any(low[name] > high[name] for name in counts)
    if empty or sum(low.values()) > units or sum(high.values()) < units:
        raise WeightsError(f"no weights in steps of {1 / units:g} satisfy the bounds of {list(low)}")
    for name in counts:
        counts[name] = min(max(counts[name], low[name]), high[name])
    step = 1 if sum(counts.values()) < units else -1
    while sum(counts.values()) != units:
        movable = [n for n in counts if (counts[n] < high[n] if step > 0 else counts[n] > low[n])]
        # The one that is furthest from its exact value in the direction of the move.
        name = max(movable, key=lambda n: step * (weights[n] * units - counts[n]))
        counts[name] += step
    return {name: count / units for name, count in counts.items()}


def entropy(weights: Mapping[str, float]) -> float:
    """Shannon entropy in nats."""
    return -sum(value * math.log(value) for value in weights.values() if value > 0)


def uniform(names: Sequence[str]) -> Weights:
    """1/K for each of K objectives."""
    return {name: 1 / len(names) for name in names}
