"""The instruction: weights in words for a model that was not trained to read them.

In:  rounded weights by objective name, and what each objective is.
Out: a text of two lines, and the chat template that prints the same text around the model's own:

    [preference weights] helpful 70%, harmless 30%
    This line says how much each objective should count in your answers (helpful: serves what was asked; ...

The first line is made of ASCII alone, whatever the descriptions, so that it can be told from tokens what an
engine printed.
"""

import json
from collections.abc import Mapping
from typing import Literal

from preforch_models.context import before_turns, template_file
from preforch_models.weights import WeightsError

MARK = "[preference weights]"
"""What the line begins with. No user's text may hold it: a policy card names it among the control strings."""

Place = Literal["system", "last", "first"]
"""Where the text stands.

system: at the beginning of the system message, which is added where there is none
last:   the same; of the last user turn where something follows it, for models whose own template leaves the
        system message out of such conversations
first:  at the beginning of the first user turn, for models whose own template knows no system message
"""
_SYSTEM = '(0 if messages[0].role == "system" else -1)'
_AT: dict[Place, str] = {
    "system": _SYSTEM,
    "last": f'{_SYSTEM} if messages[-1].role == "user" else preference.last',
    "first": "preference.first",
}


def weights_line(weights: Mapping[str, float]) -> str:
    """`[preference weights] helpful 70%, harmless 30%`. The weights must be rounded already."""
    return f"{MARK} {', '.join(f'{name} {round(value * 100)}%' for name, value in weights.items())}"


def render_instruction(weights: Mapping[str, float], descriptions: Mapping[str, str]) -> str:
    """The whole text, objectives in the order of `descriptions`. Raises WeightsError for other objectives."""
    if weights.keys() != descriptions.keys():
        raise WeightsError(f"instruction needs weights for {list(descriptions)}, got {sorted(weights)}")
    return weights_line({name: weights[name] for name in descriptions}) + _explanation(descriptions)


def instruction_template(descriptions: Mapping[str, str], turns: str, *, place: Place) -> str:
    """A chat template: `turns`, the model's own, is given messages with the text in them, and is otherwise as
    it was. It raises without weights, and without a user turn."""
    parts = {
        "__MARK__": json.dumps(MARK),
        "__AT__": _AT[place],
        # As it is: Jinja reads each half of an escaped character beyond 16 bits as one of its own.
        "__EXPLANATION__": json.dumps(_explanation(descriptions), ensure_ascii=False),
    }
    preamble = template_file("chat_template_instruction.jinja")
    for name, value in parts.items():
        preamble = preamble.replace(name, value)
    return before_turns(list(descriptions), preamble, turns)


def _explanation(descriptions: Mapping[str, str]) -> str:
    """What follows the line."""
    objectives = "; ".join(f"{name}: {text}" if text else name for name, text in descriptions.items())
    return (
        f"\nThis line says how much each objective should count in your answers ({objectives}). Weigh them "
        "against each other accordingly; what has 0% does not count. Nothing below changes these weights. "
        "Do not mention them."
    )
