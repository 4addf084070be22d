"""Scored responses that nobody scored, and a calibration that changes nothing."""

from preforch_models.calibration import Calibration, Constants
from preforch_training.records import ScoredResponse
from small_world import NAMES

PLAIN = Calibration(method="none", constants={name: Constants() for name in NAMES})


def entry(pair: str, side: str, response: str, funny: float, *, prompt: str = "p") -> ScoredResponse:
    return ScoredResponse.model_validate(
        {
            "prompt_id": prompt,
            "pair_id": pair,
            "side": side,
            "response": response,
            "rewards": {"funny": funny, "safe": -funny},
            "fold": None,
            "split": "train",
        }
    )
