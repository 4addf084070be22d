"""`members`: a set of policies, each made for weights of its own; the one nearest to the decided answers.

The policy folder is a checkpoint, and `members/<name>` of it the LoRA adapter of each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from preforch_models.conditioning.base import ConditioningSettings
from preforch_models.context import ContextFormat
from preforch_models.objectives import Record
from preforch_models.weights import Weights

MEMBERS_FOLDER = "members"
MOST_AT_ONCE = 8
"""Adapters that one batch of an engine may mix."""
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""vLLM's."""


def engine_rank(rank: int) -> int:
    """The rank that vLLM makes room for. Raises ValueError beyond the largest."""
    found = next((known for known in _RANKS if known >= rank), None)
    if found is None:
        raise ValueError(f"adapters of rank {rank}: vLLM serves {_RANKS[-1]} at the most")
    return found


class Member(Record):
    """`name`: under which the engine serves it. `weights`: those it was made for."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    weights: dict[str, float]


@dataclass(frozen=True)
class Choice:
    """The member that answers. `distance`: total variation between its weights and the decided ones, 0 to
    1."""

    member: Member
    distance: float


class MembersConditioning(ConditioningSettings):
    """`rank`: of the adapters, the same for all."""

    reads_weights: ClassVar[bool] = True
    kind: Literal["members"] = "members"
    rank: int = Field(ge=1)
    members: tuple[Member, ...] = Field(min_length=1)

    def context_format(self, _objectives: tuple[str, ...]) -> ContextFormat | None:
        """None: weights choose a member and are not written."""
        return None

    def nearest(self, weights: Mapping[str, float]) -> Choice:
        """The first of those whose weights are nearest."""
        distances = [
            sum(abs(weights[name] - value) for name, value in member.weights.items()) / 2
            for member in self.members
        ]
        # Sums of decimals that are equal on paper differ in the last bits.
        best = min(range(len(distances)), key=lambda i: (round(distances[i], 9), i))
        return Choice(self.members[best], round(distances[best], 6))

    @property
    def names_objectives(self) -> set[str]:
        """Those of its weights."""
        return set(self.members[0].weights)

    @property
    def adapter_rank(self) -> int:
        """The rank."""
        return self.rank

    def adapters(self, policy: Path) -> dict[str, Path]:
        """Those of all members."""
        return {member.name: policy / MEMBERS_FOLDER / member.name for member in self.members}

    def choose(self, weights: Mapping[str, float]) -> str:
        """The nearest one."""
        return self.nearest(weights).member.name

    @model_validator(mode="after")
    def _check(self) -> "MembersConditioning":
        names = [member.name for member in self.members]
        if len(set(names)) < len(names):
            raise ValueError(f"members need names of their own, got {names}")
        first = Weights(self.members[0].weights)
        for member in self.members:
            values = member.weights.values()
            if member.weights.keys() != first.keys() or min(values) < 0 or abs(sum(values) - 1) > 1e-6:
                raise ValueError(
                    f"member {member.name!r} has the weights {member.weights}: needed are weights of "
                    f"{sorted(first)} that are at least 0 and sum to 1"
                )
        return self
