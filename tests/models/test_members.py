"""A set of policies: the nearest one answers."""

from pathlib import Path
from typing import Any

import pytest
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_models.conditioning.members import Member, MembersConditioning, engine_rank
from preforch_models.policy_card import PolicyCard
from pydantic import ValidationError

SET = MembersConditioning(
    rank=24,
    members=(
        Member(name="soup-100-0", weights={"helpful": 1.0, "humor": 0.0}),
        Member(name="soup-50-50", weights={"helpful": 0.5, "humor": 0.5}),
        Member(name="soup-0-100", weights={"helpful": 0.0, "humor": 1.0}),
    ),
)


@pytest.mark.parametrize(
    ("helpful", "name", "distance"),
    [
        (1.0, "soup-100-0", 0.0),
        (0.8, "soup-100-0", 0.2),
        (0.7, "soup-50-50", 0.2),
        (0.02, "soup-0-100", 0.02),
        # As far from the first as from the second: the first of them.
        (0.75, "soup-100-0", 0.25),
    ],
)
def test_the_nearest_member_answers(helpful: float, name: str, distance: float) -> None:
    weights = {"humor": round(1 - helpful, 6), "helpful": helpful}
    choice = SET.nearest(weights)
    assert (choice.member.name, choice.distance) == (name, distance)
    assert SET.choose(weights) == name


def test_its_adapters_lie_in_the_policy_s_folder() -> None:
    folders = SET.adapters(Path("/policy"))
    assert folders["soup-50-50"] == Path("/policy/members/soup-50-50")
    assert list(folders) == ["soup-100-0", "soup-50-50", "soup-0-100"]
    assert SET.adapter_rank == 24
    assert FixedConditioning().adapters(Path("/policy")) == {}
    assert FixedConditioning().choose({"helpful": 1.0}) is None


def test_an_engine_makes_room_for_a_rank_that_it_knows() -> None:
    known = [8, 16, 32, 64, 128, 256, 320, 512]
    assert [engine_rank(rank) for rank in known] == known
    assert [engine_rank(rank) for rank in (1, 9, 192, 321)] == [8, 16, 256, 512]
    with pytest.raises(ValueError, match="rank 513: vLLM serves 512 at the most"):
        engine_rank(513)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "at least 1 item"),
        ([{"name": "a", "weights": {"x": 1.0}}] * 2, "names of their own"),
        ([{"name": "a", "weights": {"x": 0.5}}], "'a' has the weights .*sum to 1"),
        ([{"name": "a", "weights": {"x": 1.5, "y": -0.5}}], "'a' has the weights .*at least 0"),
        ([{"name": "a", "weights": {"x": 1.0}}, {"name": "b", "weights": {"y": 1.0}}], "'b' has the weights"),
        ([{"name": "../a", "weights": {"x": 1.0}}], "pattern"),
        ([{"name": "a=b", "weights": {"x": 1.0}}], "pattern"),
    ],
)
def test_a_set_that_cannot_be_served_is_refused(members: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MembersConditioning.model_validate({"kind": "members", "rank": 8, "members": members})


def test_a_card_s_members_have_its_objectives() -> None:
    with pytest.raises(
        ValidationError, match=r"conditioning names \['helpful', 'humor'\], the objectives are"
    ):
        PolicyCard(
            objectives=("helpful", "harmless"),
            conditioning=SET,
            control_strings=(),
            max_model_len=64,
            revision="r",
        )
