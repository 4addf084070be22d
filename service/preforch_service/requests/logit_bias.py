"""`logit_bias`: makes tokens likelier or keeps them away. Tokens have numbers here, not text.

In:  what a user gave, and the control tokens of the policy. Out: nothing, or BadRequest: a bias may force no
     control token into an answer, where it would change the weights of what follows.
"""

import re
from collections.abc import Mapping

from preforch_service.errors import BadRequest

MAX_BIASES = 300
"""Entries, as with OpenAI. vLLM's core fails on more than 1024."""
# The engine also reads " 5", "0_5" and digits of other scripts as 5, and the last of them holds.
_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,9}")


def check_bias(given: object, control_token_ids: frozenset[int] | None) -> None:
    """Raise BadRequest for a wrong bias. `control_token_ids`: None where the card does not say them."""
    if given is None:
        return
    if not isinstance(given, Mapping) or len(given) > MAX_BIASES:
        message = f"logit_bias must be an object with at most {MAX_BIASES} entries"
        raise BadRequest(message, param="logit_bias")
    for token, bias in given.items():
        reason = _reason(token, bias, control_token_ids)
        if reason is not None:
            raise BadRequest(reason, param=f"logit_bias.{token[:64]}")


def _reason(token: str, bias: object, control_token_ids: frozenset[int] | None) -> str | None:
    if _TOKEN_ID.fullmatch(token) is None:
        return (
            f"a token id is written in decimal digits, without signs, spaces or leading zeros: {token[:64]!r}"
        )
    if isinstance(bias, bool) or not isinstance(bias, int | float):
        return f"a bias must be a number, got {type(bias).__name__}"
    if bias <= 0:
        return None
    if control_token_ids is None:
        return (
            "a bias must be at most 0 with this policy: its card does not say which tokens are control "
            "tokens (control_token_ids), and a positive one could force them into the answer"
        )
    if int(token) in control_token_ids:
        return (
            f"token {token} is a control token: a bias must be at most 0, lest it be forced into the answer"
        )
    return None
