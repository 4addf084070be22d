"""Which weights a conversation is answered under: those that the gateway would announce for it."""

from collections.abc import Callable, Mapping, Sequence

from preforch_models.conversation import Message, conversation_text
from preforch_models.weights import Weights, clamp, normalise, parse_assignments, round_within, uniform

from preforch_training.orchestrator.prediction import predict_weights
from preforch_training.run import Run

Weigher = Callable[[Sequence[Sequence[Message]]], list[Weights]]
"""Conversations -> the weights of each, within the objectives' bounds, on the grid of the context."""

ORCHESTRATOR, UNIFORM = "orchestrator", "uniform"


def make_weigher(run: Run, asked: str) -> Weigher:
    """`asked`: `orchestrator`, which weighs every conversation as it stands, later turns anew; `uniform`; or
    `name=number,...` of all objectives. Raises WeightsError for any other."""
    if asked == ORCHESTRATOR:
        return lambda conversations: _predicted(run, conversations)
    given = uniform(run.names) if asked == UNIFORM else normalise(parse_assignments(asked), run.names)
    fixed = _announced(run, given)
    return lambda conversations: [fixed] * len(conversations)


def _predicted(run: Run, conversations: Sequence[Sequence[Message]]) -> list[Weights]:
    weights_NK = predict_weights(run.orchestrator, [conversation_text(turns) for turns in conversations])
    return [_announced(run, dict(zip(run.names, row.tolist(), strict=True))) for row in weights_NK]


def _announced(run: Run, weights: Mapping[str, float]) -> Weights:
    return round_within(clamp(weights, run.objectives), run.objectives, run.context_format.units)
