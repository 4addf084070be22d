"""How weights are decided: who takes precedence, what an unsure orchestrator is worth, and what bounds do."""

import asyncio
from collections.abc import Mapping

import pytest
from fakes import RECOMMENDED, FakeRecommender
from hypothesis import assume, given
from hypothesis import strategies as st
from preforch_models.bundle import Bundle
from preforch_models.context import ContextFormat, Encoding
from preforch_models.objectives import Objective
from preforch_models.weights import Weights, blend, round_weights
from preforch_service.keys import ApiKey, Bound, Keys, digest_of
from preforch_service.recommendation.active_bundle import assemble
from preforch_service.recommendation.weighing import Decision
from preforch_service.settings import ServeSettings
from preforch_service.telemetry.metrics import Metrics

NAMES = ("helpful", "harmless", "humor")
FULL = {"helpful": 0.6, "harmless": 0.3, "humor": 0.1}
PRESETS = {"safe": {"harmless": 0.8}, "even": {"helpful": 0.3, "harmless": 0.3, "humor": 0.4}}
# Made once: each has a registry of its own.
METRICS = Metrics()


def api_key(bounds: Mapping[str, Bound]) -> ApiKey:
    return ApiKey(name="x", sha256=digest_of("x"), bounds=dict(bounds))


def with_bounds(bundle: Bundle, bounds: Mapping[str, Bound], encoding: Encoding = "digits") -> Bundle:
    """A bundle with the operator's bounds, whose orchestrator tells unfamiliar prompts."""
    objectives = tuple(Objective(name=name, **bounds.get(name, Bound()).model_dump()) for name in NAMES)
    changed = {
        "objectives": objectives,
        "context": ContextFormat(objectives=NAMES, encoding=encoding),
        "method": {"confidence": "report"},
    }
    return bundle.model_copy(update={"info": bundle.info.model_copy(update=changed)})


def decide(
    bundle: Bundle,
    *,
    weights: object = None,
    preset: str | None = None,
    caller: ApiKey | None = None,
    recommender: FakeRecommender | None = None,
    **settings: object,
) -> Decision:
    """The decision on one text."""
    keys = Keys(keys=() if caller is None else (caller,))
    made = ServeSettings.model_validate({"path": "run", "presets": PRESETS, "keys": keys, **settings})
    loaded = assemble(made, bundle, recommender or FakeRecommender(), METRICS)
    asked = loaded.carriers.read({"weights": weights}, {"preset": preset})
    (decision,) = asyncio.run(loaded.weigher.decide(["text"], asked, caller=caller))
    return decision


@pytest.fixture(scope="module")
def free(bundle: Bundle) -> Bundle:
    """Without bounds."""
    return with_bounds(bundle, {})


@pytest.mark.parametrize(
    ("weights", "preset", "expected", "source", "named"),
    [
        (None, None, RECOMMENDED, "orchestrator", None),
        (FULL, None, FULL, "user", None),
        ({"humor": 0.6}, None, {"helpful": 0.25, "harmless": 0.15, "humor": 0.6}, "blended", None),
        (None, "even", PRESETS["even"], "preset", "even"),
        # Half of the rest is helpful's because 0.5 : 0.2 is recommended, and so on.
        (None, "safe", {"helpful": 0.14, "harmless": 0.8, "humor": 0.06}, "blended", "safe"),
        # Weights take precedence: a preset only fills what they leave open.
        (FULL, "safe", FULL, "user", None),
        ({"humor": 0.3}, "even", {"helpful": 0.35, "harmless": 0.35, "humor": 0.3}, "blended", "even"),
        ({"harmless": 0.3}, "safe", {"helpful": 0.5, "harmless": 0.3, "humor": 0.2}, "blended", "safe"),
        ({"humor": 0.3}, "safe", {"helpful": 0.1, "harmless": 0.6, "humor": 0.3}, "blended", "safe"),
    ],
)
def test_weights_take_precedence_over_a_preset_and_both_over_the_orchestrator(
    free: Bundle, weights: object, preset: str | None, expected: Weights, source: str, named: str | None
) -> None:
    decision = decide(free, weights=weights, preset=preset)
    assert decision.weights == pytest.approx(expected, abs=0.0101)
    assert sum(decision.weights.values()) == pytest.approx(1)
    assert (decision.source, decision.preset, decision.clamped) == (source, named, {})
    assert decision.preference().get("preset") == decision.headers().get("X-Preference-Preset") == named


@pytest.mark.parametrize("asked", [{"weights": FULL}, {"preset": "even"}])
def test_the_orchestrator_is_not_asked_where_all_weights_are_named(
    free: Bundle, asked: dict[str, object]
) -> None:
    recommender = FakeRecommender()
    decision = decide(free, recommender=recommender, **asked)  # type: ignore[arg-type]
    assert (recommender.texts, decision.recommended, decision.asked_orchestrator) == ([], None, False)


def test_a_preset_stands_on_the_fallback_where_the_orchestrator_fails(free: Bundle) -> None:
    decision = decide(free, preset="safe", recommender=FakeRecommender(error=RuntimeError()))
    assert (decision.source, decision.reason, decision.weights["harmless"]) == ("fallback", "failed", 0.8)
    assert [step.stage for step in decision.steps] == ["fallback", "preset", "blended", "rounded"]


# Confidence.


@pytest.mark.parametrize(
    ("confidence", "kept"), [(0.0, 0.0), (0.1, 0.25), (0.3, 0.75), (0.4, 1.0), (0.9, 1.0)]
)
def test_below_the_least_confidence_weights_go_to_the_fallback_by_how_far_it_is_below(
    free: Bundle, confidence: float, kept: float
) -> None:
    decision = decide(free, min_confidence=0.4, recommender=FakeRecommender(confidence=confidence))
    fallback = free.info.fallback
    mixed = {name: kept * RECOMMENDED[name] + (1 - kept) * fallback[name] for name in NAMES}
    assert decision.weights == round_weights(mixed, 100)
    assert (decision.source, decision.reason) == ("orchestrator", None if kept == 1 else "unfamiliar")
    assert decision.preference()["recommended"] == RECOMMENDED


def test_what_a_user_names_stays_and_the_rest_is_shared_out_less_surely(free: Bundle) -> None:
    unsure = FakeRecommender(confidence=0.0)
    before = METRICS.unfamiliar._value.get()
    decision = decide(free, weights={"humor": 0.4}, min_confidence=0.4, recommender=unsure)
    assert decision.weights == round_weights(blend({"humor": 0.4}, free.info.fallback, NAMES), 100)
    assert (decision.source, decision.reason) == ("blended", "unfamiliar")
    assert METRICS.unfamiliar._value.get() == before + 1
    assert decide(free, weights=FULL, min_confidence=0.4, recommender=unsure).reason is None


@pytest.mark.parametrize(
    ("mode", "why"), [("shrink", "by themselves"), ("off", "does not tell"), (None, "does not say")]
)
def test_a_least_confidence_wants_a_bundle_that_only_reports_it(
    free: Bundle, mode: str | None, why: str
) -> None:
    method = {} if mode is None else {"confidence": mode}
    other = free.model_copy(update={"info": free.info.model_copy(update={"method": method})})
    with pytest.raises(ValueError, match=f"min_confidence needs a bundle.*{why}"):
        decide(other, min_confidence=0.2)
    assert decide(other).weights == RECOMMENDED


# Bounds.


@pytest.mark.parametrize(
    ("weights", "expected", "clamped"),
    [
        ((0.2, 0.5, 0.3), (0.2, 0.5, 0.3), {}),
        # Rounded, as without bounds.
        ((0.21, 0.5, 0.29), (0.2, 0.5, 0.3), {}),
        ((0.4, 0.2, 0.4), (0.3, 0.35, 0.35), {"harmless": {"low": 0.33}}),
        # Within the bounds, but the level that rounding alone gives is not.
        ((0.33, 0.33, 0.34), (0.3, 0.35, 0.35), {"harmless": {"low": 0.33}}),
        ((0.1, 0.2, 0.7), (0.1, 0.35, 0.55), {"harmless": {"low": 0.33}, "humor": {"high": 0.55}}),
    ],
)
def test_clamped_names_the_bounds_that_acted(
    bundle: Bundle, weights: tuple[float, ...], expected: tuple[float, ...], clamped: dict[str, object]
) -> None:
    bounded = with_bounds(bundle, {"harmless": Bound(low=0.33), "humor": Bound(high=0.55)}, "levels")
    decision = decide(bounded, weights=list(weights))
    assert decision.weights == dict(zip(NAMES, expected, strict=True))
    assert decision.clamped == clamped


def test_the_bounds_of_a_key_are_on_top_of_the_operators(bundle: Bundle) -> None:
    bounded = with_bounds(bundle, {"harmless": Bound(low=0.2), "humor": Bound(high=0.5)})
    caller = api_key({"harmless": Bound(low=0.3), "humor": Bound(high=0.9)})
    weights = {"helpful": 0.0, "harmless": 0.0, "humor": 1.0}
    own = decide(bounded, weights=weights, caller=caller)
    assert own.clamped == {"harmless": {"low": 0.3}, "humor": {"high": 0.5}}
    assert own.weights == {"helpful": 0.2, "harmless": 0.3, "humor": 0.5}
    assert decide(bounded, weights=weights).weights["harmless"] < 0.3
    assert (
        decide(bounded, preset="safe", caller=api_key({"harmless": Bound(high=0.5)})).weights["harmless"]
        == 0.5
    )


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"kind": Bound(low=0.3)}, "API key 'x': unknown objective 'kind'; known are"),
        ({"harmless": Bound(low=0.6)}, "API key 'x' and the operator's together: no weights"),
        ({"helpful": Bound(low=0.4), "humor": Bound(low=0.7)}, "together: no weights"),
        # There are some, but none on the grid.
        ({"humor": Bound(low=0.41, high=0.44)}, r"together: no weights in steps of 0\.05"),
    ],
)
def test_bounds_that_no_weights_satisfy_are_refused_before_anybody_asks(
    bundle: Bundle, bounds: dict[str, Bound], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        decide(with_bounds(bundle, {"harmless": Bound(high=0.5)}, "levels"), caller=api_key(bounds))


intervals = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: Bound(low=min(pair), high=max(pair)))
some_bounds = st.dictionaries(st.sampled_from(NAMES), intervals, max_size=3)
some_weights = st.dictionaries(st.sampled_from(NAMES), st.floats(0, 0.33), min_size=1)
points = st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(any)


@given(
    operators=some_bounds,
    keys=some_bounds,
    encoding=st.sampled_from(["digits", "levels"]),
    recommended=points,
    confidence=st.floats(0, 1),
    weights=st.none() | some_weights,
    preset=st.sampled_from([None, *PRESETS]),
)
def test_no_bound_is_ever_broken_and_the_steps_end_with_what_is_announced(
    bundle: Bundle,
    operators: dict[str, Bound],
    keys: dict[str, Bound],
    encoding: Encoding,
    recommended: list[float],
    confidence: float,
    weights: dict[str, float] | None,
    preset: str | None,
) -> None:
    assume(weights is None or len(weights) < 3 or any(weights.values()))
    shares = {name: value / sum(recommended) for name, value in zip(NAMES, recommended, strict=True)}
    try:
        bounded = with_bounds(bundle, operators, encoding)
        decision = decide(
            bounded,
            weights=weights,
            preset=preset,
            caller=api_key(keys),
            recommender=FakeRecommender(weights=shares, confidence=confidence),
            min_confidence=0.5,
        )
    except ValueError:
        # No weights satisfy them.
        assume(False)
    units = bounded.info.context.units
    assert sum(round(value * units) for value in decision.weights.values()) == units
    for name, value in decision.weights.items():
        assert value == round(value * units) / units
        for bound in (operators.get(name, Bound()), keys.get(name, Bound())):
            assert bound.low - 1e-9 <= value <= bound.high + 1e-9
    *before, last = decision.steps
    assert last.weights == decision.weights
    stages = [step.stage for step in before]
    assert ("clamped" in stages) == bool(decision.clamped)
    unbounded = before[-2 if decision.clamped else -1].weights
    near = max(abs(decision.weights[name] - unbounded[name]) for name in NAMES) < 1 / units
    assert near or decision.clamped
    assert not decision.clamped or decision.weights != round_weights(unbounded, units)
