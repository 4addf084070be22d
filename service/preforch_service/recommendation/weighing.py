"""Decides the weights of a request.

In:  the text of a conversation and what the user asked for (body, header, model alias).
Out: a `Decision`: weights within the operator's bounds, rounded to what the context prints, and where they
     came from.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from preforch_models.bundle import Bundle, BundleInfo
from preforch_models.weights import (
    Weights,
    WeightsError,
    assignments,
    blend,
    check_values,
    clamp,
    entropy,
    normalise,
    parse_assignments,
    round_weights,
    round_within,
)

from preforch_service.errors import BadRequest
from preforch_service.recommendation.recommender import QueueFull, Recommendation, Recommender
from preforch_service.telemetry.metrics import Metrics

Source = Literal["orchestrator", "user", "blended", "fallback"]
HEADER = "X-Preference-Weights"
SOURCE_HEADER = "X-Preference-Source"
APPLIED_HEADER = "X-Preference-Applied"
"""Only on answers of a policy that does not read the weights, and then `false`; or that was not trained to
follow them, and then `advice`."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """Weights that a user gave, checked. `full`: all objectives are named, and the values sum to 1."""

    weights: Weights
    full: bool


@dataclass(frozen=True)
class Decision:
    """Announced weights.

    `recommended` is the orchestrator's answer, None where it was not asked or did not come.
    """

    weights: Weights
    source: Source
    recommended: Recommendation | None
    clamped: bool
    bundle: str
    reason: str | None = None

    def preference(self) -> dict[str, Any]:
        """The `preference` object of a response."""
        recommended = None
        if self.recommended is not None:
            recommended = {name: round(value, 4) for name, value in self.recommended.weights.items()}
        shown: dict[str, Any] = {
            "weights": self.weights,
            "source": self.source,
            "recommended": recommended,
            "clamped": self.clamped,
            "bundle": self.bundle,
        }
        return shown if self.reason is None else shown | {"reason": self.reason}

    def headers(self) -> dict[str, str]:
        """The same in short, as response headers."""
        return {
            HEADER: assignments(self.weights),
            SOURCE_HEADER: self.source,
            "X-Preference-Bundle": self.bundle,
        }

    def certainty(self) -> dict[str, float | None]:
        """Entropy (nats) of the recommended weights, and the confidence that the orchestrator has in them."""
        if self.recommended is None:
            return {"entropy": None, "confidence": None}
        value, confidence = entropy(self.recommended.weights), self.recommended.confidence
        return {"entropy": round(value, 6), "confidence": round(confidence, 6)}


def announcement(
    decisions: Sequence[Decision], effects: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The `preference` object and the headers of an answer to one prompt or several.

    `effects`: what the weights have to do with the answer, of each. Of several prompts the object holds one
    for each, in order, and the headers are those on which all agree.
    """
    shown = [{**decision.preference(), **effect} for decision, effect in zip(decisions, effects, strict=True)]
    if len(decisions) == 1:
        return shown[0], decisions[0].headers()
    headers = [decision.headers() for decision in decisions]
    agreed = {name: value for name, value in headers[0].items() if all(h[name] == value for h in headers)}
    return {"prompts": shown}, {SOURCE_HEADER: "mixed"} | agreed


def check_asked(given: object, names: Sequence[str]) -> Asked:
    """What one carrier says: `name=number` text, a mapping, or a list of all weights. Raises WeightsError."""
    if isinstance(given, str):
        given = parse_assignments(given)
    if isinstance(given, Mapping):
        checked = check_values(given, names)
        if len(checked) < len(names):
            # Tells at once, and without the orchestrator, whether the pinned ones fit together.
            blend(checked, dict.fromkeys(names, 1 / len(names)), names)
            return Asked({name: checked[name] for name in names if name in checked}, full=False)
        return Asked(normalise(checked, names), full=True)
    if isinstance(given, list):
        return Asked(normalise(given, names), full=True)
    raise WeightsError(f"weights must be an object or a list of numbers, got {type(given).__name__}")


def combine_carriers(carriers: Mapping[str, object], names: Sequence[str]) -> Asked | None:
    """The weights that all carriers (by their `param` name, None where unused) agree on.

    Raises BadRequest.
    """
    found: tuple[str, Asked] | None = None
    for param, given in carriers.items():
        if given is None:
            continue
        try:
            asked = check_asked(given, names)
        except WeightsError as error:
            raise BadRequest(str(error), param=param, code="invalid_weights") from error
        if found is not None and not _same(found[1], asked):
            message = (
                f"{found[0]} and {param} ask for different weights: {found[1].weights} and {asked.weights}"
            )
            raise BadRequest(message, param=param, code="conflicting_weights")
        found = found or (param, asked)
    return found[1] if found else None


def _same(one: Asked, other: Asked) -> bool:
    same_names = one.weights.keys() == other.weights.keys()
    return same_names and all(abs(value - other.weights[name]) < 1e-9 for name, value in one.weights.items())


def announced(weights: Weights, info: BundleInfo) -> tuple[Weights, bool]:
    """Weights in the operator's bounds, rounded as the context prints them; whether bounds changed them."""
    units = info.context.units
    rounded = round_within(clamp(weights, info.objectives), info.objectives, units=units)
    return rounded, rounded != round_weights(weights, units)


class Weigher:
    """Turns what a user asked for and what the orchestrator says into a decision.

    Never fails for the latter.
    """

    def __init__(
        self, bundle: Bundle, recommender: Recommender, *, deadline: float, metrics: Metrics
    ) -> None:
        self._bundle = bundle
        self._recommender = recommender
        self._deadline = deadline
        self._metrics = metrics

    async def decide(self, texts: Sequence[str], asked: Asked | None) -> list[Decision]:
        """One decision per text. The orchestrator is not asked when the user has named all weights."""
        if asked is not None and asked.full:
            decisions = [self._announce(asked.weights, "user") for _ in texts]
        else:
            recommended, reason = await self._recommend(texts)
            decisions = [self._merge(answer, asked, reason) for answer in recommended]
        for decision in decisions:
            self._metrics.decisions.labels(decision.source).inc()
            raw = None
            if decision.recommended is not None:
                raw = decision.recommended.weights
                self._metrics.confidence.observe(decision.recommended.confidence)
            self._metrics.weights.observe(decision.bundle, announced=decision.weights, recommended=raw)
        return decisions

    async def _recommend(self, texts: Sequence[str]) -> tuple[list[Recommendation | None], str | None]:
        """An answer for each text, or none for any and the reason.

        The deadline counts from here, waiting included.
        """
        try:
            with self._metrics.orchestrator_seconds.time():
                # Not wait_for, which forgets a cancellation that comes with the answer.
                async with asyncio.timeout(self._deadline * len(texts)):
                    return list(await self._recommender.recommend(texts)), None
        except TimeoutError:
            reason = "late"
        except QueueFull:
            reason = "overloaded"
        except Exception:  # weights are advice: no request fails for want of them, whatever went wrong
            logger.exception("the orchestrator failed")
            reason = "failed"
        self._metrics.fallbacks.labels(reason).inc()
        return [None] * len(texts), reason

    def _merge(self, recommended: Recommendation | None, asked: Asked | None, reason: str | None) -> Decision:
        base = self._bundle.info.fallback if recommended is None else recommended.weights
        weights = base if asked is None else blend(asked.weights, base, self._bundle.names)
        source: Source = "orchestrator" if asked is None else "blended"
        return self._announce(weights, source if recommended else "fallback", recommended, reason)

    def _announce(
        self,
        weights: Weights,
        source: Source,
        recommended: Recommendation | None = None,
        reason: str | None = None,
    ) -> Decision:
        rounded, clamped = announced(weights, self._bundle.info)
        return Decision(
            weights=rounded,
            source=source,
            recommended=recommended,
            clamped=clamped,
            bundle=self._bundle.revision,
            reason=reason,
        )
