"""The table of kinds of policy and their settings say the same."""

from typing import get_args

import pytest
from preforch_training.policy.config import Policy
from preforch_training.policy.kinds import KINDS
from preforch_training.policy.settings.base import PolicySettings
from pydantic import TypeAdapter

CLASSES = get_args(get_args(Policy)[0])


def test_every_kind_has_settings_and_a_line_in_the_table() -> None:
    kinds = [get_args(cls.model_fields["kind"].annotation) for cls in CLASSES]
    assert sorted(kind for (kind,) in kinds) == sorted(KINDS)


@pytest.mark.parametrize("settings", CLASSES, ids=lambda cls: cls.__name__)
def test_every_kind_says_of_itself_what_all_do(settings: type) -> None:
    assert issubclass(settings, PolicySettings)


def test_an_unknown_kind_names_the_allowed_ones() -> None:
    for kind in KINDS:
        with pytest.raises(ValueError, match=f"'{kind}'"):
            TypeAdapter(Policy).validate_python({"kind": "guess"})
