"""`members`: the engine holds several adapters, and the one nearest to the decided weights answers.

The answer says which, what its weights are, and how far they are from the decided ones.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from preforch_models.conditioning.members import MOST_AT_ONCE, MembersConditioning, engine_rank
from preforch_models.policy_card import PolicyCard
from preforch_models.weights import Weights

from preforch_service.conditioning.fixed import check_without_weights
from preforch_service.conditioning.rendering import Render


class MembersConditioner:
    """Turns weights into the name of a model of the engine."""

    kind = "members"
    about: ClassVar[Mapping[str, bool]] = {"applied": True}
    notice: str | None = None

    def __init__(self, card: PolicyCard) -> None:
        assert isinstance(card.conditioning, MembersConditioning), "a card of this kind has members"
        self._conditioning = card.conditioning
        self._objectives = card.objectives
        self._control_strings = card.control_strings
        self.models = frozenset(member.name for member in card.conditioning.members)

    def effect(self, weights: Weights) -> dict[str, Any]:
        """The member that answers, and how far its weights are."""
        choice = self._conditioning.nearest(weights)
        member = {
            "name": choice.member.name,
            "weights": {name: choice.member.weights[name] for name in self._objectives},
            "distance": choice.distance,
        }
        return {**self.about, "member": member}

    def chat(self, body: dict[str, Any], weights: Weights) -> dict[str, Any]:
        """Another model; the conversation stays as it is."""
        return body | {"model": self._conditioning.nearest(weights).member.name}

    def completion(self, body: dict[str, Any], weights: Weights) -> dict[str, Any]:
        """As in a chat."""
        return self.chat(body, weights)

    def default_template_kwargs(self, _fallback: Weights) -> dict[str, object]:
        """No arguments: the chat template prints the same whatever the weights."""
        return {}

    def engine_arguments(self, policy: Path) -> list[str]:
        """All members as adapters. Raises ValueError for a rank beyond vLLM's."""
        adapters = self._conditioning.adapters(policy)
        return [
            *("--enable-lora", "--max-lora-rank", str(engine_rank(self._conditioning.rank))),
            *("--max-loras", str(min(len(adapters), MOST_AT_ONCE)), "--max-cpu-loras", str(len(adapters))),
            *("--lora-modules", *(f"{name}={folder}" for name, folder in adapters.items())),
        ]

    async def self_test(self, render: Render, *, model: str) -> None:
        """A conversation renders alike whatever the weights."""
        await check_without_weights(
            render, self._objectives, self._control_strings, model=model, kind=self.kind
        )
