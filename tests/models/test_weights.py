"""Weights: every operation stays on the simplex, and every wrong form is refused by name."""

import math
import sys
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from preforch_models.objectives import Objective, check_objectives, names_of
from preforch_models.weights import (
    Weights,
    WeightsError,
    blend,
    check_values,
    clamp,
    entropy,
    normalise,
    parse_assignments,
    round_weights,
    round_within,
    uniform,
)

NAMES = ("helpful", "harmless", "humor")
UNITS = (100, 20)

numbers = st.lists(st.floats(0, 1e308), min_size=2, max_size=16).filter(any)
units = st.sampled_from(UNITS)


def named(values: Sequence[float]) -> Weights:
    return {f"o{i}": value for i, value in enumerate(values)}


simplex = (
    st.lists(st.floats(0, 1), min_size=2, max_size=16)
    .filter(any)
    .map(lambda v: normalise(v, tuple(named(v))))
)


@st.composite
def bounded(draw: st.DrawFn) -> tuple[Objective, ...]:
    """Objectives whose bounds, in steps of 0.05, some weights satisfy."""
    count = draw(st.integers(2, 6))
    center = draw(st.lists(st.integers(0, 20), min_size=count, max_size=count).filter(any))
    exact = round_weights(normalise(center, tuple(named(center))), 20)
    lows = draw(st.lists(st.integers(0, 20), min_size=count, max_size=count))
    highs = draw(st.lists(st.integers(0, 20), min_size=count, max_size=count))
    pairs = zip(exact.items(), lows, highs, strict=True)
    return check_objectives(
        tuple(Objective(name=n, low=min(v, low / 20), high=max(v, high / 20)) for (n, v), low, high in pairs)
    )


@st.composite
def bounded_weights(draw: st.DrawFn) -> tuple[tuple[Objective, ...], Weights]:
    """Bounds, and weights that need not satisfy them."""
    objectives = draw(bounded())
    values = draw(st.lists(st.floats(0, 1), min_size=len(objectives), max_size=len(objectives)).filter(any))
    return objectives, normalise(values, names_of(objectives))


def on_simplex(weights: Mapping[str, float]) -> bool:
    return all(value >= 0 for value in weights.values()) and math.isclose(
        sum(weights.values()), 1, abs_tol=1e-9
    )


# Every wrong form.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "weights are empty"),
        ([], "a list of weights needs 3 numbers"),
        ([0.5, 0.5], "a list of weights needs 3 numbers"),
        ([0.25] * 4, "a list of weights needs 3 numbers"),
        ("abc", "a list of weights needs 3 numbers"),
        (b"abc", "a list of weights needs 3 numbers"),
        ({"helpful": 1, "harmless": 1}, "weight of 'humor' is missing"),
        (
            {"helpful": 1, "harmless": 1, "humor": 1, "honest": 1},
            "unknown objective 'honest'; known are .*humor",
        ),
        ([1, -0.1, 1], "weight of 'harmless' must be a finite number >= 0, got -0.1"),
        ([1, math.nan, 1], "weight of 'harmless' must be a finite number >= 0, got nan"),
        ([1, math.inf, 1], "weight of 'harmless' must be a finite number >= 0, got inf"),
        ([1, 10**400, 1], "weight of 'harmless' must be a finite number"),
        ([0, 0, 0], "weights are all zero"),
        ([0.0, -0.0, 0], "weights are all zero"),
        ([1, True, 1], "weight of 'harmless' must be a number, got True"),
        ([1, "0.5", 1], "weight of 'harmless' must be a number, got '0.5'"),
        ([1, None, 1], "weight of 'harmless' must be a number, got None"),
        ([1, [1], 1], "weight of 'harmless' must be a number"),
    ],
)
def test_full_weights_of_a_wrong_form_are_refused_by_name(wrong: Sequence[object], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        normalise(wrong, NAMES)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "weights are empty"),
        ({"honest": 0.1}, "unknown objective 'honest'"),
        ({"helpful": -0.1}, "weight of 'helpful' must be a finite number"),
        ({"helpful": math.nan}, "weight of 'helpful' must be a finite number"),
        ({"helpful": True}, "weight of 'helpful' must be a number"),
        ({"helpful": 1.01}, "may sum to at most 1, got 1.01"),
        ({"helpful": 0.6, "humor": 0.6}, "may sum to at most 1, got 1.2"),
    ],
)
def test_partial_weights_of_a_wrong_form_are_refused_by_name(
    wrong: Mapping[str, object], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        blend(wrong, uniform(NAMES), NAMES)


def test_partial_weights_may_be_zero() -> None:
    assert blend({"helpful": 0}, uniform(NAMES), NAMES) == {"helpful": 0, "harmless": 0.5, "humor": 0.5}


def test_checked_values_are_floats_and_nothing_else_changes() -> None:
    assert check_values({"humor": 2}, NAMES) == {"humor": 2.0}


def test_assignments_are_read_in_their_order_whatever_the_spaces() -> None:
    assert parse_assignments("b=0.7, a = 3e-1") == {"b": 0.7, "a": 0.3}
    assert parse_assignments("a=-1") == {"a": -1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "are written name=number,name=number, got ''"),
        ("0.7", "are written name=number"),
        ("=0.7", "are written name=number"),
        ("a=1,", "are written name=number"),
        ("a=", "weight of 'a' must be a number, got ''"),
        ("a=1=2", "weight of 'a' must be a number, got '1=2'"),
        ("a=1,b=x", "weight of 'b' must be a number, got 'x'"),
        ("a=1,b=1,a=1", "weight of 'a' is given twice"),
    ],
)
def test_assignments_of_a_wrong_form_are_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        parse_assignments(text)


# Normalise, blend, clamp.


@given(numbers)
def test_normalised_weights_lie_on_the_simplex_in_the_given_proportions(values: list[float]) -> None:
    names = tuple(named(values))
    weights = normalise(values, names)
    assert tuple(weights) == names
    assert on_simplex(weights)
    largest = max(range(len(values)), key=values.__getitem__)
    for name, value in zip(names, values, strict=True):
        assert weights[name] == pytest.approx(weights[f"o{largest}"] * (value / values[largest]), abs=1e-12)


def test_a_mapping_in_any_order_comes_out_in_the_order_of_the_objectives() -> None:
    assert list(normalise({"humor": 1, "helpful": 2, "harmless": 1}, NAMES).items()) == [
        ("helpful", 0.5),
        ("harmless", 0.25),
        ("humor", 0.25),
    ]


@given(simplex, st.data())
def test_blending_pins_the_given_weights_and_keeps_the_proportions_of_the_others(
    recommended: Weights, data: st.DataObject
) -> None:
    names = tuple(recommended)
    chosen = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=len(names) - 1, unique=True))
    pinned = {name: data.draw(st.floats(0, 1 / len(chosen))) for name in chosen}
    blended = blend(pinned, recommended, names)
    assert tuple(blended) == names
    assert on_simplex(blended)
    assert all(blended[name] == pytest.approx(value, abs=1e-9) for name, value in pinned.items())
    free = [name for name in names if name not in pinned]
    mass, rest = sum(recommended[n] for n in free), 1 - sum(pinned.values())
    expected = {n: rest * (recommended[n] / mass) if mass else rest / len(free) for n in free}
    assert {n: blended[n] for n in free} == pytest.approx(expected, abs=1e-9)


def test_pinned_weights_may_exceed_1_by_noise_alone() -> None:
    blended = blend({"helpful": 1 + 5e-10}, uniform(NAMES), NAMES)
    assert blended == {"helpful": 1.0, "harmless": 0.0, "humor": 0.0}
    with pytest.raises(WeightsError, match="may sum to at most 1"):
        blend({"helpful": 1 + 2e-9}, uniform(NAMES), NAMES)


def test_the_rest_is_shared_equally_where_nothing_is_recommended_for_it() -> None:
    nothing_else = {"helpful": 1.0, "harmless": 0.0, "humor": 0.0}
    blended = blend({"helpful": 0.4}, nothing_else, NAMES)
    assert blended == pytest.approx({"helpful": 0.4, "harmless": 0.3, "humor": 0.3})


def test_the_largest_numbers_are_weights_like_others() -> None:
    largest = sys.float_info.max
    assert normalise([largest, largest], ("a", "b")) == {"a": 0.5, "b": 0.5}


def test_pinned_weights_that_leave_nothing_give_the_others_nothing() -> None:
    assert blend({"helpful": 0.4, "humor": 0.6}, uniform(NAMES), NAMES)["harmless"] == pytest.approx(0)


@given(bounded_weights())
def test_clamped_weights_satisfy_the_bounds_and_are_the_nearest_that_do(
    case: tuple[tuple[Objective, ...], Weights],
) -> None:
    objectives, weights = case
    clamped = clamp(weights, objectives)
    assert on_simplex(clamped)
    assert all(o.low - 1e-9 <= clamped[o.name] <= o.high + 1e-9 for o in objectives)
    # A projection onto a convex set: no point of the set lies on the far side of it.
    for other in (round_within(weights, objectives, 20), clamp(uniform(names_of(objectives)), objectives)):
        assert sum((weights[n] - clamped[n]) * (other[n] - clamped[n]) for n in clamped) <= 1e-9


@given(simplex)
def test_weights_inside_their_bounds_are_not_touched(weights: Weights) -> None:
    assert clamp(weights, tuple(Objective(name=name) for name in weights)) == weights


def test_clamped_weights_keep_their_names_in_any_order_of_objectives() -> None:
    objectives = (Objective(name="b", high=0.6), Objective(name="a"), Objective(name="c", low=0.3))
    clamped = clamp({"a": 0.1, "b": 0.8, "c": 0.1}, objectives)
    assert list(clamped) == ["b", "a", "c"]
    assert clamped == pytest.approx({"b": 0.6, "a": 0.1, "c": 0.3})


# Rounding.


@given(simplex, units)
def test_rounded_weights_sum_to_exactly_one_on_the_grid(weights: Weights, units: int) -> None:
    rounded = round_weights(weights, units)
    assert sum(round(value * units) for value in rounded.values()) == units
    assert all(value == round(value * units) / units for value in rounded.values())
    assert sum(int(f"{value:.2f}".replace(".", "")) for value in rounded.values()) == 100
    assert all(abs(rounded[name] - weights[name]) < 1 / units + 1e-9 for name in weights)


@given(simplex, units)
def test_rounding_twice_changes_nothing(weights: Weights, units: int) -> None:
    once = round_weights(weights, units)
    assert round_weights(once, units) == once


@given(simplex, units)
def test_rounding_follows_the_largest_remainders(weights: Weights, units: int) -> None:
    rounded = round_weights(weights, units)
    remainder = {n: weights[n] * units - math.floor(weights[n] * units + 1e-9) for n in weights}
    up = [remainder[n] for n in weights if rounded[n] * units > weights[n] * units + 1e-6]
    down = [remainder[n] for n in weights if rounded[n] * units < weights[n] * units - 1e-6]
    assert not up or not down or min(up) >= max(down) - 1e-9


def test_ties_go_to_the_earlier_objective() -> None:
    assert round_weights(uniform(NAMES), 100) == {"helpful": 0.34, "harmless": 0.33, "humor": 0.33}


def test_float_noise_does_not_move_a_weight_that_is_on_the_grid() -> None:
    assert round_weights({"a": 0.29, "b": 0.71}, 100) == {"a": 0.29, "b": 0.71}


@given(bounded_weights(), units)
def test_rounding_within_bounds_respects_the_bounds_and_sums_to_exactly_one(
    case: tuple[tuple[Objective, ...], Weights], units: int
) -> None:
    objectives, weights = case
    rounded = round_within(clamp(weights, objectives), objectives, units)
    assert sum(round(value * units) for value in rounded.values()) == units
    assert all(value == round(value * units) / units for value in rounded.values())
    assert all(o.low - 1e-9 <= rounded[o.name] <= o.high + 1e-9 for o in objectives)


@given(simplex, units)
def test_without_bounds_rounding_within_them_is_plain_rounding(weights: Weights, units: int) -> None:
    free = tuple(Objective(name=name) for name in weights)
    assert round_within(weights, free, units) == round_weights(weights, units)


def test_a_bound_between_two_steps_is_tightened_to_the_step_inside() -> None:
    objectives = (Objective(name="a", low=0.21), Objective(name="b"))
    assert round_within({"a": 0.21, "b": 0.79}, objectives, 20) == {"a": 0.25, "b": 0.75}


@pytest.mark.parametrize(("low", "high"), [(0.07, 1.0), (0.0, 0.29), (0.07, 0.07)])
def test_a_bound_on_a_step_stays_where_it_is(low: float, high: float) -> None:
    # 0.07 * 100 is a little more than 7, 0.29 * 100 a little less than 29.
    objectives = (Objective(name="a", low=low, high=high), Objective(name="b"))
    at = low or high
    assert round_within({"a": at, "b": 1 - at}, objectives, 100)["a"] == at


def test_bounds_may_leave_exactly_one_point() -> None:
    lows = (Objective(name="a", low=0.25), Objective(name="b", low=0.75))
    highs = (Objective(name="a", high=0.25), Objective(name="b", high=0.75))
    for objectives in (lows, highs):
        assert round_within({"a": 0.25, "b": 0.75}, objectives, 20) == {"a": 0.25, "b": 0.75}


def test_a_unit_moves_to_or_from_the_weight_that_is_furthest_from_its_exact_value() -> None:
    # In units: 6.66, 6.66, 6.68; without bounds they are rounded to 7, 6, 7.
    weights = {"a": 0.333, "b": 0.333, "c": 0.334}
    capped = (Objective(name="a"), Objective(name="b"), Objective(name="c", high=0.32))
    assert round_within(weights, capped, 20) == {"a": 0.35, "b": 0.35, "c": 0.3}
    raised = (Objective(name="a"), Objective(name="b", low=0.31), Objective(name="c"))
    assert round_within(weights, raised, 20) == {"a": 0.3, "b": 0.35, "c": 0.35}


@pytest.mark.parametrize("bounds", [{"low": (0.21, 0.21, 0.21, 0.26)}, {"high": (0.24, 0.24, 0.24, 0.29)}])
def test_bounds_that_no_steps_satisfy_together_are_refused(bounds: dict[str, tuple[float, ...]]) -> None:
    ((side, values),) = bounds.items()
    objectives = tuple(Objective(name=f"o{i}", **{side: value}) for i, value in enumerate(values))
    with pytest.raises(WeightsError, match="no weights in steps"):
        round_within(uniform(names_of(objectives)), objectives, 20)


def test_bounds_that_leave_no_step_of_the_grid_are_refused() -> None:
    objectives = (Objective(name="a", low=0.51, high=0.52), Objective(name="b"))
    with pytest.raises(WeightsError, match=r"no weights in steps of 0\.05 satisfy the bounds"):
        round_within({"a": 0.515, "b": 0.485}, objectives, 20)


# Entropy.


@given(simplex)
def test_entropy_lies_between_certainty_and_uniform(weights: Weights) -> None:
    assert -1e-12 <= entropy(weights) <= entropy(uniform(tuple(weights))) + 1e-9


def test_entropy_is_counted_in_nats() -> None:
    assert entropy({"a": 0.5, "b": 0.5}) == pytest.approx(math.log(2))
    assert entropy({"a": 1.0, "b": 0.0}) == 0
