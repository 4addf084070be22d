"""What the self-tests of conditioners share: prompts that the engine renders, and the check of escaping."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from preforch_models.control_strings import ControlStrings
from preforch_models.weights import Weights

PROBE = "Which weights do you read?"

Render = Callable[[str, Mapping[str, object]], Awaitable[list[str]]]
"""A user's text and keyword arguments of the chat template -> the tokens of the engine's prompt, as strings.

Raises TemplateError where the engine does not render it, and UpstreamDown.
"""


class TemplateError(ValueError):
    """The engine's chat template does not treat the weights, or a user's text, as this gateway expects."""


def corner(objectives: Sequence[str], place: int) -> Weights:
    """All weight on one objective."""
    return {name: float(name == objectives[place]) for name in objectives}


async def check_escaping(
    render: Render,
    template_kwargs: Mapping[str, object],
    harmless: Sequence[str],
    *,
    control_strings: Sequence[str],
    model: str,
) -> None:
    """Raise TemplateError where the template undoes the escaping, by dropping what it does not print, say.

    `harmless`: what the template prints around a text without control strings, under the same arguments.
    """
    text = ControlStrings(control_strings).escape("\n".join(control_strings))
    tokens = await render(text, template_kwargs)
    # A string of one character is ordinary text.
    control = {string for string in control_strings if len(string) > 1}
    more = Counter(token for token in tokens if token in control) - Counter(harmless)
    if more:
        raise TemplateError(
            f"model {model!r}: its chat template or tokenizer makes the control tokens {sorted(more)} of a "
            "user's text in which they are escaped"
        )
