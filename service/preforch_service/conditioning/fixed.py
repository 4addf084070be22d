"""`fixed`: weights were used in training, if at all. Decided weights are announced and go no further."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from preforch_models.policy_card import PolicyCard
from preforch_models.weights import Weights

from preforch_service.conditioning.rendering import PROBE, Render, TemplateError, check_escaping, corner


class FixedConditioner:
    """Leaves every request as it is."""

    kind = "fixed"
    about: ClassVar[Mapping[str, bool]] = {"applied": False}
    models: frozenset[str] = frozenset()

    def __init__(self, card: PolicyCard) -> None:
        self.notice: str | None = (
            f"policy {card.name!r} does not read weights (conditioning 'fixed'): those that a user sends are "
            "announced in the answer, but the answer does not depend on them; preference.applied is false"
        )
        self._objectives = card.objectives
        self._control_strings = card.control_strings

    def effect(self, _weights: Weights) -> dict[str, Any]:
        """None."""
        return dict(self.about)

    def chat(self, body: dict[str, Any], _weights: Weights) -> dict[str, Any]:
        """Unchanged: nothing in this policy's prompt depends on weights."""
        return body

    def completion(self, body: dict[str, Any], _weights: Weights) -> dict[str, Any]:
        """Unchanged, as in a chat."""
        return body

    def default_template_kwargs(self, _fallback: Weights) -> dict[str, object]:
        """No arguments: the chat template prints the same whatever the weights."""
        return {}

    def engine_arguments(self, _policy: Path) -> list[str]:
        """None."""
        return []

    async def self_test(self, render: Render, *, model: str) -> None:
        """A conversation renders alike whatever weights the template is given, and without any."""
        await check_without_weights(
            render, self._objectives, self._control_strings, model=model, kind=self.kind
        )


async def check_without_weights(
    render: Render, objectives: Sequence[str], control_strings: Sequence[str], *, model: str, kind: str
) -> None:
    """Raise TemplateError where the chat template prints weights, or undoes the escaping."""
    without = await render(PROBE, {})
    for weights in (corner(objectives, 0), corner(objectives, -1)):
        if await render(PROBE, {"weights": weights}) != without:
            raise TemplateError(
                f"model {model!r}: its chat template prints another prompt for the weights {weights}, "
                f"but the policy card says that it reads none (conditioning {kind!r})"
            )
    await check_escaping(render, {}, without, control_strings=control_strings, model=model)
