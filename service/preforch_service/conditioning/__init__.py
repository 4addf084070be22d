"""How decided weights reach the policy behind the gateway: one conditioner per kind of conditioning.

In:  a policy card.
Out: its conditioner, from the one table of kinds; nothing else in the service switches on the kind.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from preforch_models.policy_card import PolicyCard
from preforch_models.weights import Weights

from preforch_service.conditioning.context import ContextConditioner
from preforch_service.conditioning.fixed import FixedConditioner
from preforch_service.conditioning.instruction import InstructionConditioner
from preforch_service.conditioning.members import MembersConditioner
from preforch_service.conditioning.rendering import Render
from preforch_service.conditioning.scores import ScoresConditioner


class Conditioner(Protocol):
    """The gateway's half of one kind. Weights are rounded ones, as they are announced."""

    kind: str
    about: ClassVar[Mapping[str, bool]]
    """What a model says of weights, and every answer of it: `applied`, whether they have a say; `advice`
    where the policy was not trained to follow them."""
    models: frozenset[str]
    """Models of the engine, beside the policy itself, that answer for it."""
    notice: str | None
    """What operators should know of this policy when the gateway starts."""

    def effect(self, weights: Weights, /) -> dict[str, Any]:
        """What an answer says of its weights: `about`, and by what they have a say in it."""

    def chat(self, body: dict[str, Any], weights: Weights, /) -> dict[str, Any]:
        """The engine's body of a chat, edited so that the policy reads the weights."""

    def completion(self, body: dict[str, Any], weights: Weights, /) -> dict[str, Any]:
        """The engine's body of a completion, whose prompt is one string, edited in the same way."""

    def default_template_kwargs(self, fallback: Weights, /) -> dict[str, object]:
        """What the engine's chat template gets where a request says nothing."""

    def engine_arguments(self, policy: Path, /) -> list[str]:
        """Arguments for an engine of ours. Raises ValueError where it could not serve the policy."""

    async def self_test(self, render: Render, /, *, model: str) -> None:
        """Raise TemplateError unless the engine renders conversations as this kind needs it."""


CONDITIONERS: Mapping[str, Callable[[PolicyCard], Conditioner]] = {
    ContextConditioner.kind: ContextConditioner,
    ScoresConditioner.kind: ScoresConditioner,
    InstructionConditioner.kind: InstructionConditioner,
    MembersConditioner.kind: MembersConditioner,
    FixedConditioner.kind: FixedConditioner,
}


def conditioner_of(card: PolicyCard) -> Conditioner:
    """The conditioner of a policy."""
    return CONDITIONERS[card.conditioning.kind](card)
