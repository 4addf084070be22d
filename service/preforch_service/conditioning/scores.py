"""`scores`: the policy reads desired rewards in its prompt, ` <R1> 1.2 <R2> -0.3`.

Weights reach it as they reach a policy that reads them: its chat template makes scores of them, and a
completion's prompt ends with those scores.
"""

from preforch_service.conditioning.context import ContextConditioner


class ScoresConditioner(ContextConditioner):
    """Gives weights to a template that writes scores."""

    kind = "scores"
