"""A bias forces no control token into an answer, however its id is written."""

import pytest
from preforch_service.errors import BadRequest
from preforch_service.requests.logit_bias import MAX_BIASES, check_bias

CONTROL = frozenset({7, 300})


@pytest.mark.parametrize("control", [CONTROL, None])
@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"7": 0.5}, "logit_bias.7"),
        ({"8": -1, "7": 100}, "logit_bias.7"),
        ({"8": True}, "logit_bias.8"),
        ({"8": "100"}, "logit_bias.8"),
        ({"8": None}, "logit_bias.8"),
        ({"8": [1]}, "logit_bias.8"),
        ({str(token): -1 for token in range(MAX_BIASES + 1)}, "logit_bias"),
        ([5], "logit_bias"),
        # What int() reads as 7, or may read so some day; and what the engine could not read at all.
        *(
            ({written: bias}, f"logit_bias.{written}")
            for written in (
                "007",
                " 7",
                "7 ",
                "+7",
                "0_7",
                "\uff17",
                "\u0667",
                "7.0",
                "7e0",
                "0x7",
                "1e3",
                "-7",
                "",
                "x",
            )
            for bias in (1, -1)
        ),
        ({"9" * 5000: 1}, f"logit_bias.{'9' * 64}"),
    ],
)
def test_a_bias_that_forces_or_that_is_no_bias_is_refused(
    given: object, param: str, control: frozenset[int] | None
) -> None:
    with pytest.raises(BadRequest) as refused:
        check_bias(given, control)
    assert refused.value.param == param


def test_a_bias_may_keep_any_token_away_and_make_likelier_what_is_no_control_token() -> None:
    away = {str(token): -100 for token in range(MAX_BIASES - 3)} | {"300": -1, "7": 0, "301": -0.5}
    for control in (CONTROL, None):
        check_bias(away, control)
        check_bias(None, control)
    check_bias({"8": 100, "0": 0.5}, CONTROL)


def test_a_card_that_names_no_control_tokens_allows_no_positive_bias() -> None:
    with pytest.raises(BadRequest, match="control_token_ids"):
        check_bias({"8": 1}, None)
