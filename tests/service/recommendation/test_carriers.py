"""Carriers that contradict each other are refused, and both are named."""

import pytest
from preforch_service.errors import BadRequest
from preforch_service.recommendation.carriers import Asked, Carriers, Given

CARRIERS = Carriers(("a", "b"), {"safe": {"a": 0.7}, "bold": {"b": 0.7}})
A = Given({"a": 0.3}, full=False)


def test_nothing_said_is_nothing_asked() -> None:
    assert CARRIERS.read({"weights": None}, {"preset": None}) is None


def test_carriers_that_agree_are_one() -> None:
    asked = CARRIERS.read({"weights": {"a": 0.3}, "header": "a=0.3"}, {"preset": "safe", "model": "safe"})
    assert asked == Asked(A, "safe")
    assert asked.preset_alone is None
    assert Asked(preset="safe").preset_alone == "safe"


@pytest.mark.parametrize(
    ("weights", "presets", "code", "said"),
    [
        (
            {"weights": {"a": 0.3}, "header": "a=0.4"},
            {},
            "conflicting_weights",
            "weights and header ask for different weights: {'a': 0.3} and {'a': 0.4}",
        ),
        # All weights that stand for the same place on the simplex, one of them partial.
        ({"weights": {"a": 0.3}, "header": "a=0.3,b=0.7"}, {}, "conflicting_weights", "weights and header"),
        (
            {},
            {"preset": "safe", "header": None, "model": "bold"},
            "conflicting_presets",
            "preset and model ask for different presets: safe and bold",
        ),
        (
            {},
            {"preset": "none"},
            "invalid_preset",
            "preset 'none' does not exist; known are ['bold', 'safe']",
        ),
        ({}, {"preset": ["safe"]}, "invalid_preset", "preset ['safe'] does not exist"),
        ({"weights": {"c": 0.3}}, {"preset": "safe"}, "invalid_weights", "unknown objective 'c'"),
    ],
)
def test_what_does_not_fit_is_a_bad_request(
    weights: dict[str, object], presets: dict[str, object], code: str, said: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        CARRIERS.read(weights, presets)
    assert (caught.value.code, said in caught.value.message) == (code, True)
    assert caught.value.param == list({**weights, **presets})[-1 if code.startswith("conflicting") else 0]


def test_a_gateway_without_presets_says_so() -> None:
    with pytest.raises(BadRequest, match="this gateway has none"):
        Carriers(("a", "b"), {}).read({}, {"preset": "safe"})
