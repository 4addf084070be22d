"""The table of kinds of reward and their settings say the same."""

from typing import get_args

import pytest
from preforch_training.reward.config import Config, Reward
from preforch_training.reward.kinds import KINDS

CLASSES = {cls.model_fields["kind"].default: cls for cls in get_args(get_args(Reward)[0])}


def test_every_kind_has_settings_and_a_line_in_the_table() -> None:
    assert set(CLASSES) == set(KINDS)
    assert len(CLASSES) == len(get_args(get_args(Reward)[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_called_trained_and_cross_fitted_where_the_table_says_how(kind: str) -> None:
    assert CLASSES[kind].trained == (KINDS[kind].fit is not None)
    assert CLASSES[kind].cross_fitted == (KINDS[kind].cross_fit is not None)
    # What is prepared is trained, and what is fitted in memory is trained as well.
    assert KINDS[kind].fit is not None or (KINDS[kind].prepare is None and KINDS[kind].cross_fit is None)


def test_a_section_without_a_kind_names_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match="discriminator 'kind'"):
        Config.model_validate({"funny": {"function": "a.b:c"}})
    for kind in KINDS:
        with pytest.raises(ValueError, match=f"'{kind}'"):
            Config.model_validate({"funny": {"kind": "guess"}})
