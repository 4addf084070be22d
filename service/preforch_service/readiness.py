"""Decides whether the gateway is ready.

In:  the bundle (its golden answers), the policy card, the engine.
Out: `replay_golden` raises when the recommender does not give the golden answers; `Readiness` watches the engine and,
     each time that it has come up, checks that its chat template really prints the weights.
"""

import asyncio
import json
import logging
from collections.abc import Callable

from preforch_models.bundle import Bundle
from preforch_models.context import ContextFormat, context_tokens, objective_tokens
from preforch_models.conversation import conversation_text
from preforch_models.manifest import ArtifactError
from preforch_models.weights import Weights

from preforch_service.metrics import Metrics
from preforch_service.recommender import OnnxRecommender
from preforch_service.upstream import Upstream, UpstreamDown, read_all

POLL = 1.0
HEALTH_SECONDS = 10.0

logger = logging.getLogger(__name__)


class TemplateError(ValueError):
    """The engine's chat template does not print the weights as this gateway expects."""


def replay_golden(bundle: Bundle, recommender: OnnxRecommender) -> float:
    """The largest difference to a golden answer. Raises ArtifactError when it is over the precision's tolerance."""
    allowed, allowed_confidence = bundle.golden_tolerances(recommender.precision)
    answers = recommender.run([conversation_text(golden.messages) for golden in bundle.golden])
    largest = 0.0
    for number, (golden, answer) in enumerate(zip(bundle.golden, answers, strict=True), start=1):
        difference = max(abs(answer.weights[name] - golden.weights[name]) for name in bundle.names)
        confidence_difference = abs(answer.confidence - golden.confidence)
        if difference > allowed or confidence_difference > allowed_confidence:
            raise ArtifactError(
                f"{bundle.path}: golden prompt {number} gives {answer.weights}, confidence {answer.confidence:.4f}, "
                f"expected {golden.weights}, confidence {golden.confidence:.4f} "
                f"(largest difference {difference:.2g}, allowed {allowed:.2g}; "
                f"of the confidence {confidence_difference:.2g}, allowed {allowed_confidence:.2g})"
            )
        largest = max(largest, difference, confidence_difference)
    return largest


def expected_tokens(weights: Weights, form: ContextFormat) -> list[str]:
    """The added tokens that a context consists of, in order."""
    tokens = objective_tokens(len(form.objectives))
    if form.encoding == "digits":
        return tokens
    return [f"{token} {weights[name]:.2f}" for token, name in zip(tokens, form.objectives, strict=True)]


def _corner(form: ContextFormat, place: int) -> Weights:
    return {name: float(name == form.objectives[place]) for name in form.objectives}


async def check_template(upstream: Upstream, *, model: str, form: ContextFormat) -> None:
    """Render two weight vectors through the engine. Raises TemplateError or UpstreamDown."""
    rendered = []
    for weights in (_corner(form, 0), _corner(form, -1)):
        tokens = await _tokenize(upstream, model, weights)
        found = [token for token in tokens if token in set(context_tokens(form))]
        if found != expected_tokens(weights, form):
            raise TemplateError(
                f"model {model!r}: its chat template printed the control tokens {found} for the weights {weights}, "
                f"expected {expected_tokens(weights, form)}"
            )
        rendered.append(tokens)
    if rendered[0] == rendered[1]:
        raise TemplateError(f"model {model!r}: its chat template prints the same prompt for different weights")


async def _tokenize(upstream: Upstream, model: str, weights: Weights) -> list[str]:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Which weights do you read?"}],
        "chat_template_kwargs": {"weights": weights},
        "return_token_strs": True,
    }
    answer = await upstream.request("POST", "/tokenize", json.dumps(body).encode())
    content = await read_all(answer)
    if answer.status != 200:
        raise TemplateError(f"/tokenize of the engine answers {answer.status}: {content[:300]!r}")
    try:
        return [str(token) for token in json.loads(content)["token_strs"]]
    except (ValueError, KeyError, TypeError) as error:
        raise TemplateError(f"/tokenize of the engine answers without token_strs: {content[:300]!r}") from error


class Readiness:
    """Whether the gateway takes work: `blocked` says why not, or is None. Without an upstream it always does."""

    def __init__(
        self,
        upstream: Upstream | None,
        *,
        model: str,
        form: ContextFormat,
        metrics: Metrics,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._upstream = upstream
        self._model = model
        self._form = form
        self._metrics = metrics
        self._on_ready = on_ready
        self.engine_blocked: str | None = None if upstream is None else "the engine is loading"
        self.draining = False

    @property
    def blocked(self) -> str | None:
        """Why the gateway is not ready, or None."""
        return "the gateway is shutting down" if self.draining else self.engine_blocked

    def report_down(self) -> None:
        """A request has found the engine dead; do not wait for the next poll to say so."""
        self._set("the engine is down")

    def _set(self, blocked: str | None) -> None:
        if blocked == self.engine_blocked:
            return
        if blocked is not None:
            logger.warning("not ready: %s", blocked)
        self.engine_blocked = blocked
        self._metrics.ready.set(blocked is None)
        if blocked is None:
            self._on_ready()

    async def check(self) -> bool:
        """Ask the engine once; on the way up also check its template."""
        if self._upstream is None:
            return True
        try:
            if not await asyncio.wait_for(self._healthy(self._upstream), HEALTH_SECONDS):
                self._set(self.engine_blocked or "the engine is down")
            elif self.engine_blocked is not None:
                await check_template(self._upstream, model=self._model, form=self._form)
                self._set(None)
        except (UpstreamDown, TimeoutError):
            self._set(self.engine_blocked or "the engine is down")
        except TemplateError as error:
            self._set(str(error))
        return self.engine_blocked is None

    async def _healthy(self, upstream: Upstream) -> bool:
        answer = await upstream.request("GET", "/health")
        await read_all(answer)
        return answer.status == 200

    async def watch(self) -> None:
        """Keep checking, forever."""
        if self._upstream is None:
            self._metrics.ready.set(1)
            self._on_ready()
        while True:
            await self.check()
            await asyncio.sleep(POLL)
