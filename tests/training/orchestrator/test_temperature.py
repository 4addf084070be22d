"""tau by the likelihood of preferences: it finds the sharpness that made them."""

import numpy as np
import pytest
from preforch_training.orchestrator.config import Config
from preforch_training.orchestrator.targets import softmax
from preforch_training.orchestrator.temperature import TAUS, fit_tau


def pairs(tau: float, *, scale: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Values of prompts, and margins of pairs that softmax(values / tau) labelled, (N, 3) both."""
    rng = np.random.default_rng(seed)
    values, margins = rng.normal(size=(20_000, 3)), rng.normal(size=(20_000, 3))
    gain = scale * (softmax(values, tau) * margins).sum(axis=1)
    won = gain + rng.logistic(size=len(gain)) > 0
    return values, np.where(won[:, None], margins, -margins)


@pytest.mark.parametrize("tau", [0.15, 0.5, 2.0])
@pytest.mark.parametrize("scale", [2.0, 8.0])
def test_the_tau_that_made_the_preferences_is_found_with_its_scale(tau: float, scale: float) -> None:
    found = fit_tau(*pairs(tau, scale=scale))
    assert found.tau == pytest.approx(tau, rel=0.3)
    assert found.scale == pytest.approx(scale, rel=0.1)


def test_preferences_that_want_everything_alike_ask_for_nearly_equal_weights() -> None:
    values = pairs(1.0, scale=1.0)[0]
    margins = np.abs(np.random.default_rng(1).normal(size=values.shape))
    _, flat = pairs(1e6, scale=4.0)
    assert fit_tau(values, flat).tau > 3
    # Every tau orders all of these; the largest says the least.
    assert fit_tau(values, margins).tau == pytest.approx(TAUS[-1])


def test_there_must_be_pairs_to_choose_by() -> None:
    with pytest.raises(ValueError, match="validation pairs"):
        fit_tau(np.empty((0, 2)), np.empty((0, 2)))


def test_only_regress_has_a_tau_to_choose_afterwards() -> None:
    options = {"target": "advantage_softmax", "tau": "fit", "confidence": "off"}
    assert Config.model_validate(options | {"loss": "regress"}).training_tau == 1.0
    with pytest.raises(ValueError, match="regress"):
        Config.model_validate(options | {"loss": "reverse"})
