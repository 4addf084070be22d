"""Two objectives and a few scored responses, for the tests of what a policy learns from."""

from preforch_models.calibration import Calibration, Constants
from preforch_models.context import ContextFormat
from preforch_training.policy.known_responses import Known, known_responses
from preforch_training.records import ScoredResponse, Side

NAMES = ("a", "b")
FORMAT = ContextFormat(objectives=NAMES)
IDENTITY = Calibration(method="none", constants={name: Constants() for name in NAMES})


def scored(
    response: str, rewards: tuple[float, float], *, side: Side = "rejected", prompt: str = "p"
) -> ScoredResponse:
    return ScoredResponse(
        prompt_id=prompt,
        pair_id="pair",
        side=side,
        response=response,
        rewards=dict(zip(NAMES, rewards, strict=True)),
        fold=0,
        split="train",
    )


def known() -> Known:
    """Chosen (0, 1); rejected (2, 2), (-3, -3), (0, 0)."""
    scores = [
        scored("chosen", (0, 1), side="chosen"),
        scored("good", (2, 2)),
        scored("bad", (-3, -3)),
        scored("chosen", (0, 1)),
        scored("plain", (0, 0), prompt="q"),
        scored("of a test", (9, 9)).model_copy(update={"split": "test"}),
    ]
    return known_responses(scores, IDENTITY, NAMES, tau=1.0)
