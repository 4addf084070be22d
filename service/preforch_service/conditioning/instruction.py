"""`instruction`: a model that was not trained for weights is told them in words, before all that a user says.

The chat template writes them: they are its argument `weights`. A completion has no template, so its prompt
begins with the same text.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from preforch_models.conditioning.instruction import InstructionConditioning
from preforch_models.control_strings import ControlStrings
from preforch_models.instruction import MARK, render_instruction, weights_line
from preforch_models.policy_card import PolicyCard
from preforch_models.weights import Weights

from preforch_service.conditioning.context import with_weights
from preforch_service.conditioning.rendering import PROBE, Render, TemplateError, check_escaping, corner

_SPACE = re.compile("[ĠĊĉ▁\\s]")
"""How tokens write white space: byte-level vocabularies, SentencePiece's."""
_ASCII = re.compile("<0x([0-7][0-9A-F])>")
"""Tokens of characters that a SentencePiece vocabulary has no piece for: line breaks, as a rule."""


class InstructionConditioner:
    """Writes weights into the instructions."""

    kind = "instruction"
    about: ClassVar[Mapping[str, bool]] = {"applied": True, "advice": True}
    models: frozenset[str] = frozenset()

    def __init__(self, card: PolicyCard) -> None:
        assert isinstance(card.conditioning, InstructionConditioning), "a card of this kind has descriptions"
        self._descriptions = card.conditioning.descriptions
        self._control_strings = card.control_strings
        self._objectives = card.objectives
        self.notice: str | None = (
            f"policy {card.name!r} is told the weights in words (conditioning 'instruction'): "
            f"{card.conditioning.note}; preference.advice is true"
        )

    def effect(self, _weights: Weights) -> dict[str, Any]:
        """The policy reads them, and may follow them or not."""
        return dict(self.about)

    def chat(self, body: dict[str, Any], weights: Weights) -> dict[str, Any]:
        """The weights are an argument of the chat template."""
        return with_weights(body, weights)

    def completion(self, body: dict[str, Any], weights: Weights) -> dict[str, Any]:
        """The prompt begins with the text."""
        return body | {"prompt": f"{render_instruction(weights, self._descriptions)}\n\n{body['prompt']}"}

    def default_template_kwargs(self, fallback: Weights) -> dict[str, object]:
        """The fallback weights: an engine of ours never generates without any."""
        return {"weights": fallback}

    def engine_arguments(self, _policy: Path) -> list[str]:
        """None."""
        return []

    async def self_test(self, render: Render, *, model: str) -> None:
        """Two weight vectors print their lines, each once, also beside a user's text that imitates one."""
        imitation = ControlStrings(self._control_strings).escape(weights_line(self._in_order(0)))
        for place, text in ((0, PROBE), (-1, PROBE), (-1, imitation)):
            weights = self._in_order(place)
            printed = _without_space(await render(text, {"weights": weights}))
            line, mark = (_without_space([part]) for part in (weights_line(weights), MARK))
            if printed.count(line) != 1 or printed.count(mark) != 1:
                raise TemplateError(
                    f"model {model!r}: its chat template does not print the line "
                    f"{weights_line(weights)!r} exactly once; it must be the one of the policy's folder"
                )
        weights = self._in_order(-1)
        await check_escaping(
            render,
            {"weights": weights},
            await render(PROBE, {"weights": weights}),
            control_strings=self._control_strings,
            model=model,
        )

    def _in_order(self, place: int) -> Weights:
        """All weight on one objective, objectives as the text has them."""
        weights = corner(self._objectives, place)
        return {name: weights[name] for name in self._descriptions}


def _without_space(tokens: Sequence[str]) -> str:
    text = _ASCII.sub(lambda byte: chr(int(byte[1], 16)), "".join(tokens))
    return _SPACE.sub("", text)
