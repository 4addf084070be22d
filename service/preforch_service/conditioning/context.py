"""`context`: the policy reads weights in its prompt, ` <W1> 0.70 <W2> 0.30`.

The chat template prints them: they are its argument `weights`. A completion has no template, so the context
is appended to its prompt.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from preforch_models.context import (
    ContextFormat,
    context_parts,
    context_tokens,
    objective_tokens,
    render_context,
)
from preforch_models.policy_card import PolicyCard
from preforch_models.weights import Weights

from preforch_service.conditioning.rendering import PROBE, Render, TemplateError, check_escaping, corner


class ContextConditioner:
    """Writes weights where the policy's context is printed."""

    kind = "context"
    about: ClassVar[Mapping[str, bool]] = {"applied": True}
    models: frozenset[str] = frozenset()
    notice: str | None = None

    def __init__(self, card: PolicyCard) -> None:
        assert card.context_format is not None, "a card of this kind has one"
        self._format = card.context_format
        self._control_strings = card.control_strings

    def effect(self, _weights: Weights) -> dict[str, Any]:
        """The policy reads them as they are announced."""
        return dict(self.about)

    def chat(self, body: dict[str, Any], weights: Weights) -> dict[str, Any]:
        """The weights are an argument of the chat template, besides those that the user may set."""
        return with_weights(body, weights)

    def completion(self, body: dict[str, Any], weights: Weights) -> dict[str, Any]:
        """The prompt ends with the context."""
        return body | {"prompt": body["prompt"] + render_context(weights, self._format)}

    def default_template_kwargs(self, fallback: Weights) -> dict[str, object]:
        """The fallback weights: an engine of ours never generates without any."""
        return {"weights": fallback}

    def engine_arguments(self, _policy: Path) -> list[str]:
        """None."""
        return []

    async def self_test(self, render: Render, *, model: str) -> None:
        """Two weight vectors print their control tokens, once and in order, and different prompts."""
        objectives = self._format.objectives
        rendered = []
        for weights in (corner(objectives, 0), corner(objectives, -1)):
            tokens = await render(PROBE, {"weights": weights})
            found = [token for token in tokens if token in set(context_tokens(self._format))]
            expected = expected_tokens(weights, self._format)
            if found != expected:
                raise TemplateError(
                    f"model {model!r}: its chat template prints the control tokens {found} for the weights "
                    f"{weights}, expected {expected}"
                )
            rendered.append(tokens)
        if rendered[0] == rendered[1]:
            raise TemplateError(
                f"model {model!r}: its chat template prints the same prompt for different weights"
            )
        await check_escaping(
            render,
            {"weights": corner(objectives, -1)},
            rendered[1],
            control_strings=self._control_strings,
            model=model,
        )


def with_weights(body: dict[str, Any], weights: Weights) -> dict[str, Any]:
    """The engine's body of a chat, with the weights as an argument of the chat template."""
    return body | {"chat_template_kwargs": {**body.get("chat_template_kwargs", {}), "weights": weights}}


def expected_tokens(weights: Weights, context_format: ContextFormat) -> list[str]:
    """The added tokens that a context consists of, in order."""
    if context_format.encoding == "digits":
        return objective_tokens(len(context_format.objectives), context_format.letter)
    return context_parts(weights, context_format)
