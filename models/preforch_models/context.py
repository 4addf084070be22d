"""The context: how weights are written into a prompt, ` <W1> 0.70 <W2> 0.30`.

In:  rounded weights by objective name.
Out: the context string, and the chat template that prints the same string.

Source: paper, section 3.2 (`<W1> w_1 ... <WK> w_K` after the prompt). Departures:
1. Weights have a fixed number of decimals and sum to exactly 1 (largest remainder), so that a context is
   unique.
2. A second encoding, `levels`, for policies too small to read numbers. The text is the same; the tokenizer of
   such a policy holds `<W1> 0.70` as one added token for each objective and each 0.05 level.
"""

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Literal

from preforch_models.objectives import Record
from preforch_models.weights import Weights, WeightsError

Encoding = Literal["digits", "levels"]
UNITS: dict[Encoding, int] = {"digits": 100, "levels": 20}


class ContextFormat(Record):
    """How the context is written. Bundle and policy must agree on it."""

    objectives: tuple[str, ...]
    encoding: Encoding = "digits"

    @property
    def units(self) -> int:
        """Number of grid steps between 0 and 1."""
        return UNITS[self.encoding]

    @property
    def letter(self) -> str:
        """Of its tokens: `<W1>`."""
        return "W"

    @property
    def values(self) -> tuple[tuple[str, ...], ...]:
        """By objective, what `levels` has a token for, in rising order."""
        levels = tuple(f"{level / self.units:.2f}" for level in range(self.units + 1))
        return (levels,) * len(self.objectives)

    def written(self, weights: Mapping[str, float]) -> tuple[str, ...]:
        """What is written for each objective, in order."""
        return tuple(f"{weights[name]:.2f}" for name in self.objectives)

    @property
    def longest(self) -> tuple[tuple[str, ...], ...]:
        """What may be written that takes more tokens than weights do: nothing, every context is as long as
        any other."""
        return ()

    @property
    def expression(self) -> str:
        """What a chat template writes for the objective `name`."""
        return '"%.2f" % weights[name]'


def objective_tokens(count: int, letter: str = "W") -> list[str]:
    """`<W1>` .. `<WK>`."""
    return [f"<{letter}{k + 1}>" for k in range(count)]


def context_tokens(context_format: ContextFormat) -> list[str]:
    """All special tokens that the context adds to a tokenizer, in a fixed order."""
    tokens = objective_tokens(len(context_format.objectives), context_format.letter)
    if context_format.encoding == "levels":
        by_objective = zip(list(tokens), context_format.values, strict=True)
        tokens += [f"{token} {value}" for token, values in by_objective for value in values]
    return tokens


def context_parts(weights: Mapping[str, float], context_format: ContextFormat) -> list[str]:
    """`<W1> 0.70`, one for each objective. The weights must be rounded already."""
    return parts_of(context_format.written(weights), context_format)


def parts_of(written: Sequence[str], context_format: ContextFormat) -> list[str]:
    """The same of what is written for each objective."""
    tokens = objective_tokens(len(context_format.objectives), context_format.letter)
    return [f"{token} {value}" for token, value in zip(tokens, written, strict=True)]


def render_context(weights: Mapping[str, float], context_format: ContextFormat) -> str:
    """` <W1> 0.70 <W2> 0.30`, to be put directly after the last user turn.

    The weights must be rounded already.
    """
    if set(weights) != set(context_format.objectives):
        raise WeightsError(
            f"context needs weights for {list(context_format.objectives)}, got {sorted(weights)}"
        )
    if sum(round(value * 100) for value in weights.values()) != 100:
        raise WeightsError(f"context needs weights that sum to exactly 1.00, got {dict(weights)}")
    return "".join(f" {part}" for part in context_parts(weights, context_format))


def parse_context(text: str, context_format: ContextFormat) -> Weights:
    """The weights that a text ends with. Raises ValueError when it does not end with a context."""
    tokens = objective_tokens(len(context_format.objectives))
    pattern = "".join(rf" {re.escape(token)} ([01]\.\d\d)" for token in tokens) + r"\Z"
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"text does not end with a context of {tokens}: {text[-80:]!r}")
    return {name: float(value) for name, value in zip(context_format.objectives, match.groups(), strict=True)}


def chat_template(context_format: ContextFormat | None, turns: str | None = None) -> str:
    """A policy's chat template: the context at the end of the last user turn, an error without weights.

    `turns`: the chat template that prints the turns, ChatML by default. It is given messages whose last user
    turn ends with the context, and is otherwise as it was. With a format of None there is no context:
    `weights` may be given and change nothing.
    """
    turns = template_file("chat_template.jinja") if turns is None else turns
    if context_format is None:
        return turns
    written = f'" <{context_format.letter}" ~ loop.index ~ "> " ~ {context_format.expression}'
    preamble = template_file("chat_template_context.jinja").replace("__WRITTEN__", written)
    return before_turns(context_format.objectives, preamble, turns)


def before_turns(objectives: Sequence[str], preamble: str, turns: str) -> str:
    """A chat template of a part that may change `messages`, then `turns`.

    It raises unless `weights` has every one of the `objectives`, which the part finds under that name, and no
    other.
    """
    names = "[" + ", ".join(f"'{name}'" for name in objectives) + "]"
    checks = template_file("chat_template_weights.jinja").replace("__OBJECTIVES__", names)
    return checks + preamble + _TURNS + turns


def turns_of(template: str) -> str:
    """The `turns` that a policy's chat template was made of."""
    return template.partition(_TURNS)[2] or template


def begin_with(text: str, turns: str) -> str:
    """Turns that print `text` first."""
    return f"{{{{- {json.dumps(text)} }}}}{{#- The beginning that the tokenizer gives a text. #}}\n{turns}"


# The line break after a comment is not printed, and what follows it is at the beginning of a line, as it was.
_TURNS = "{#- What follows prints the turns. #}\n"


def template_file(name: str) -> str:
    """A part of a chat template, from the files of this package."""
    return resources.files("preforch_models").joinpath(name).read_text(encoding="utf-8")
