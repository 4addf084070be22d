"""Decides the weights of a request.

In:  the text of a conversation, what the user asked for (`carriers`), and who asks.
Out: a `Decision`: weights within the bounds, rounded to what the context prints, and where they came from.

Each step starts with what the one before it left:

1. the orchestrator's recommendation f(x), or the fallback weights where it does not come; not asked for where
   the user, or the preset, names all weights
2. with a confidence c below the least one m: c/m f(x) + (1 - c/m) fallback
3. the preset's weights, all or some; some are pinned and the rest is shared out in the proportions so far
4. the user's weights, in the same way
5. the bounds, then rounding within them
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from preforch_models.bundle import Bundle
from preforch_models.weights import Weights, assignments, blend, entropy, round_weights

from preforch_service.keys import ApiKey
from preforch_service.recommendation.bounds import Acted, Bounds, acted, announced
from preforch_service.recommendation.carriers import Asked, Given
from preforch_service.recommendation.recommender import QueueFull, Recommendation, Recommender
from preforch_service.telemetry.metrics import Metrics

Source = Literal["orchestrator", "user", "preset", "blended", "fallback"]
Stage = Literal["recommended", "fallback", "unfamiliar", "preset", "asked", "blended", "clamped", "rounded"]
HEADER = "X-Preference-Weights"
SOURCE_HEADER = "X-Preference-Source"
PRESET_HEADER = "X-Preference-Preset"
APPLIED_HEADER = "X-Preference-Applied"
"""Only on answers of a policy that does not read the weights, and then `false`; or that was not trained to
follow them, and then `advice`."""
UNFAMILIAR = "unfamiliar"
"""Why a recommendation was blended towards the fallback weights."""

_SOURCES: Mapping[Stage, Source] = {
    "recommended": "orchestrator",
    "unfamiliar": "orchestrator",
    "fallback": "fallback",
    "preset": "preset",
    "asked": "user",
    "blended": "blended",
}
"""By the last stage before the bounds."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """What one stage said or left. Weights of a preset or a user may name some objectives only."""

    stage: Stage
    weights: Weights


@dataclass(frozen=True)
class Decision:
    """Announced weights.

    `recommended` is the orchestrator's answer, None where it was not asked or did not come. `preset`: the one
    that had a say. `steps`: how the weights came about, the last of them are the announced ones.
    """

    weights: Weights
    source: Source
    recommended: Recommendation | None
    clamped: Acted
    bundle: str
    reason: str | None = None
    preset: str | None = None
    steps: tuple[Step, ...] = ()

    def preference(self) -> dict[str, Any]:
        """The `preference` object of a response."""
        recommended = None if self.recommended is None else _shown(self.recommended.weights)
        shown: dict[str, Any] = {
            "weights": self.weights,
            "source": self.source,
            "recommended": recommended,
            "clamped": self.clamped,
            "bundle": self.bundle,
        }
        maybe = {"reason": self.reason, "preset": self.preset}
        return shown | {name: value for name, value in maybe.items() if value is not None}

    def headers(self) -> dict[str, str]:
        """The same in short, as response headers."""
        short = {
            HEADER: assignments(self.weights),
            SOURCE_HEADER: self.source,
            "X-Preference-Bundle": self.bundle,
        }
        return short if self.preset is None else short | {PRESET_HEADER: self.preset}

    @property
    def asked_orchestrator(self) -> bool:
        """Whether a recommendation was wanted, even if none came."""
        return self.recommended is not None or self.source == "fallback"

    def certainty(self) -> dict[str, float | None]:
        """Entropy (nats) of the recommended weights, and the confidence that the orchestrator has in them."""
        if self.recommended is None:
            return {"entropy": None, "confidence": None}
        value, confidence = entropy(self.recommended.weights), self.recommended.confidence
        return {"entropy": round(value, 6), "confidence": round(confidence, 6)}

    def explanation(self) -> list[dict[str, Any]]:
        """The steps, for a response."""
        return [{"step": step.stage, "weights": _shown(step.weights)} for step in self.steps]


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
    agreed = {name: value for name, value in headers[0].items() if all(h.get(name) == value for h in headers)}
    return {"prompts": shown}, {SOURCE_HEADER: "mixed"} | agreed


def _shown(weights: Weights) -> Weights:
    return {name: round(value, 4) for name, value in weights.items()}


class Weigher:
    """Turns what a user asked for and what the orchestrator says into a decision.

    Never fails for the latter.
    """

    def __init__(
        self,
        bundle: Bundle,
        recommender: Recommender,
        *,
        bounds: Bounds,
        presets: Mapping[str, Given],
        deadline: float,
        min_confidence: float,
        metrics: Metrics,
    ) -> None:
        self._bundle = bundle
        self._recommender = recommender
        self._bounds = bounds
        self._presets = presets
        self._deadline = deadline
        self._min_confidence = min_confidence
        self._metrics = metrics

    async def decide(
        self, texts: Sequence[str], asked: Asked | None, *, caller: ApiKey | None = None
    ) -> list[Decision]:
        """One decision per text.

        The orchestrator is not asked when the user, or the preset, has named all weights.
        """
        asked = asked or Asked()
        if any(given.full for _, given in self._layers(asked)):
            decisions = [self._decide(None, asked, caller, None) for _ in texts]
        else:
            recommended, reason = await self._recommend(texts)
            decisions = [self._decide(answer, asked, caller, reason) for answer in recommended]
        for decision in decisions:
            self._count(decision)
        return decisions

    def _layers(self, asked: Asked) -> list[tuple[Stage, Given]]:
        """Weights that were named, each on top of those before it: a preset's, then the user's."""
        if asked.weights is not None and asked.weights.full:
            return [("asked", asked.weights)]
        preset = None if asked.preset is None else self._presets[asked.preset]
        layers: list[tuple[Stage, Given | None]] = [("preset", preset), ("asked", asked.weights)]
        return [(stage, given) for stage, given in layers if given is not None]

    def _count(self, decision: Decision) -> None:
        self._metrics.decisions.labels(decision.source).inc()
        if decision.reason == UNFAMILIAR:
            self._metrics.unfamiliar.inc()
        raw = None
        if decision.recommended is not None:
            raw = decision.recommended.weights
            self._metrics.confidence.observe(decision.recommended.confidence)
        self._metrics.weights.observe(decision.bundle, announced=decision.weights, recommended=raw)

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

    def _decide(
        self, recommended: Recommendation | None, asked: Asked, caller: ApiKey | None, reason: str | None
    ) -> Decision:
        layers = self._layers(asked)
        steps = list(self._open(recommended, reason))
        if any(step.stage == UNFAMILIAR for step in steps):
            reason = UNFAMILIAR
        for stage, given in layers:
            steps.append(Step(stage, given.weights))
            if not given.full:
                below = steps[-2].weights
                steps.append(Step("blended", blend(given.weights, below, self._bundle.names)))
        objectives, units = self._bounds.of(caller), self._bundle.info.context.units
        last = steps[-1]
        within, rounded = announced(last.weights, objectives, units)
        # Two ways of rounding may break a tie differently where no bound acted.
        changed = rounded != round_weights(last.weights, units)
        clamped = acted(rounded, objectives, units) if changed else {}
        steps += [Step("clamped", within)] if clamped else []
        return Decision(
            weights=rounded,
            source="fallback" if steps[0].stage == "fallback" else _SOURCES[last.stage],
            recommended=recommended,
            clamped=clamped,
            bundle=self._bundle.revision,
            reason=reason,
            preset=asked.preset if any(stage == "preset" for stage, _ in layers) else None,
            steps=(*steps, Step("rounded", rounded)),
        )

    def _open(self, recommended: Recommendation | None, reason: str | None) -> Iterator[Step]:
        """What there is before anybody has named weights; nothing, where the orchestrator was not asked."""
        fallback = self._bundle.info.fallback
        if recommended is None:
            if reason is not None:
                yield Step("fallback", fallback)
            return
        yield Step("recommended", recommended.weights)
        if recommended.confidence < self._min_confidence:
            kept = recommended.confidence / self._min_confidence
            mixed = {
                name: kept * value + (1 - kept) * fallback[name]
                for name, value in recommended.weights.items()
            }
            yield Step("unfamiliar", mixed)
