"""`clamped` says whether the operator's bounds changed what is announced."""

from collections.abc import Sequence

import pytest
from preforch_models.bundle import Bundle
from preforch_models.context import ContextFormat
from preforch_models.objectives import Objective
from preforch_service.recommendation.weighing import announced


@pytest.mark.parametrize(
    ("weights", "expected", "clamped"),
    [
        ((0.2, 0.5, 0.3), (0.2, 0.5, 0.3), False),
        # Rounded, as without bounds.
        ((0.21, 0.5, 0.29), (0.2, 0.5, 0.3), False),
        ((0.4, 0.2, 0.4), (0.3, 0.35, 0.35), True),
        # Within the bounds, but the level that rounding alone gives is not.
        ((0.33, 0.33, 0.34), (0.3, 0.35, 0.35), True),
    ],
)
def test_clamped(bundle: Bundle, weights: Sequence[float], expected: Sequence[float], clamped: bool) -> None:
    names = ("a", "b", "c")
    objectives = tuple(Objective(name=n, description=n, low=0.33 if n == "b" else 0.0) for n in names)
    context_format = ContextFormat(objectives=names, encoding="levels")
    info = bundle.info.model_copy(update={"objectives": objectives, "context": context_format})
    found = announced(dict(zip(names, weights, strict=True)), info)
    assert found == (dict(zip(names, expected, strict=True)), clamped)
