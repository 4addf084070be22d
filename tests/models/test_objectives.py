"""Objectives: names, number and bounds are checked where they are read."""

import pytest
from preforch_models.objectives import Objective, Record, check_objectives, explain, names_of
from pydantic import ValidationError


class Pair(Record):
    """Two fields for the messages of `explain`."""

    left: int
    right: str = ""


@pytest.mark.parametrize("name", ["helpful", "h", "a-b_c9", "x" * 64])
def test_a_plain_lower_case_name_is_allowed(name: str) -> None:
    assert Objective(name=name).name == name


@pytest.mark.parametrize(
    "name", ["", "Helpful", "9lives", "-a", "with space", "a=b", "a,b", "ä", "a\n", "x" * 65]
)
def test_any_other_name_is_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(ValidationError, match="lower-case letters, digits"):
        Objective(name=name)


def test_a_low_above_its_high_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"low 0\.6 is above high 0\.4"):
        Objective(name="a", low=0.6, high=0.4)


@pytest.mark.parametrize("bound", [-0.1, 1.1, float("nan")])
def test_a_bound_outside_the_unit_interval_is_refused(bound: float) -> None:
    with pytest.raises(ValidationError, match="low"):
        Objective(name="a", low=bound)


@pytest.mark.parametrize("count", [0, 1, 17])
def test_two_to_sixteen_objectives_are_needed(count: int) -> None:
    with pytest.raises(ValueError, match="2 to 16 objectives are needed"):
        check_objectives(tuple(Objective(name=f"o{i}") for i in range(count)))


def test_names_must_differ() -> None:
    with pytest.raises(ValueError, match="names must differ"):
        check_objectives((Objective(name="a"), Objective(name="a")))


@pytest.mark.parametrize(("low", "high"), [(0.6, 1.0), (0.0, 0.4)])
def test_bounds_that_no_weights_satisfy_are_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="no weights satisfy the bounds"):
        check_objectives((Objective(name="a", low=low, high=high), Objective(name="b", low=low, high=high)))


def test_bounds_that_leave_one_choice_are_satisfied_in_spite_of_float_noise() -> None:
    objectives = tuple(Objective(name=f"o{i}", high=high) for i, high in enumerate((0.2, 0.7, 0.1)))
    assert sum(o.high for o in objectives) < 1
    assert check_objectives(objectives) == objectives


def test_the_order_of_the_names_is_the_order_given() -> None:
    assert names_of(check_objectives((Objective(name="b"), Objective(name="a")))) == ("b", "a")


def test_an_explanation_is_one_line_that_names_every_wrong_field() -> None:
    with pytest.raises(ValidationError) as caught:
        Pair.model_validate({"left": "x" * 500, "wrong": 1})
    text = explain(caught.value)
    assert "left: " in text
    assert "wrong: Extra inputs are not permitted (got 1)" in text
    assert "\n" not in text
    assert len(text) < 400


def test_a_record_cannot_be_changed() -> None:
    pair = Pair(left=1)
    with pytest.raises(ValidationError, match="frozen"):
        pair.left = 2  # type: ignore[misc]
