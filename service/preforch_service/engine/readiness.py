"""Decides whether the gateway is ready.

In:  the bundle (its golden answers), the policy card, the engines.
Out: `replay_golden` raises when the recommender does not give the golden answers; `Readiness` watches the
     engines. Each time that one has come up, it must pass its conditioner's self-test and generate a token,
     and is asked whether it has a parser for tool calls.
     One that is silent while it has requests must generate a token too: vLLM's own health check does not see
     a core that hangs.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from preforch_models.bundle import Bundle
from preforch_models.conversation import conversation_text
from preforch_models.manifest import ArtifactError
from preforch_models.policy_card import PolicyCard

from preforch_service.conditioning import Conditioner
from preforch_service.conditioning.rendering import PROBE, TemplateError, corner
from preforch_service.engine.pool import DOWN, Member, Pool
from preforch_service.engine.upstream import Answer, Upstream, UpstreamDown, UpstreamLate, read_all
from preforch_service.errors import says_no_tool_parser
from preforch_service.recommendation.recommender import OnnxRecommender
from preforch_service.telemetry.metrics import Metrics

TOKEN_COUNTERS = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
POLL = 1.0
HUNG = "the engine does not answer"

logger = logging.getLogger(__name__)


def replay_golden(bundle: Bundle, recommender: OnnxRecommender) -> float:
    """The largest difference to a golden answer.

    Raises ArtifactError when it is over the precision's tolerance.
    """
    allowed, allowed_confidence = bundle.golden_tolerances(recommender.precision)
    answers = recommender.run([conversation_text(golden.messages) for golden in bundle.golden])
    largest = 0.0
    for number, (golden, answer) in enumerate(zip(bundle.golden, answers, strict=True), start=1):
        difference = max(abs(answer.weights[name] - golden.weights[name]) for name in bundle.names)
        confidence_difference = abs(answer.confidence - golden.confidence)
        if difference > allowed or confidence_difference > allowed_confidence:
            raise ArtifactError(
                f"{bundle.path}: golden prompt {number} gives {answer.weights}, "
                f"confidence {answer.confidence:.4f}, expected {golden.weights}, "
                f"confidence {golden.confidence:.4f} "
                f"(largest difference {difference:.2g}, allowed {allowed:.2g}; "
                f"of the confidence {confidence_difference:.2g}, allowed {allowed_confidence:.2g})"
            )
        largest = max(largest, difference, confidence_difference)
    return largest


async def check_template(upstream: Upstream, conditioner: Conditioner, *, model: str) -> None:
    """The conditioner's self-test against one engine. Raises TemplateError or UpstreamDown."""

    async def render(text: str, template_kwargs: Mapping[str, object]) -> list[str]:
        asked = _conversation(model, text, chat_template_kwargs=template_kwargs, return_token_strs=True)
        return await _tokens(upstream, asked)

    await conditioner.self_test(render, model=model)
    if conditioner.models:
        await check_models(upstream, conditioner.models)


async def check_models(upstream: Upstream, expected: frozenset[str]) -> None:
    """Raise TemplateError unless the engine serves all of these models."""
    answer = await upstream.request("GET", "/v1/models")
    content = await read_all(answer)
    if answer.status != 200:
        raise TemplateError(f"/v1/models of the engine answers {answer.status}")
    served = {model["id"] for model in json.loads(content)["data"]}
    if missing := sorted(expected - served):
        raise TemplateError(
            f"the engine does not serve {missing[0]!r}, a member of the policy (it lacks {len(missing)} of "
            f"{len(expected)}); `preforch engine-args` prints the arguments that it needs"
        )


def _conversation(model: str, text: str, **fields: object) -> dict[str, object]:
    """A body of one user turn."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


async def _tokens(upstream: Upstream, body: Mapping[str, object]) -> list[str]:
    answer, content = await _ask(upstream, "/tokenize", body)
    if answer.status != 200:
        logger.warning("/tokenize of the engine answers %d: %r", answer.status, content[:300])
        raise TemplateError(f"/tokenize of the engine answers {answer.status}")
    try:
        return [str(token) for token in json.loads(content)["token_strs"]]
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("/tokenize of the engine answers without token_strs: %r", content[:300])
        raise TemplateError("/tokenize of the engine answers without token_strs") from error


async def generation_fault(
    upstream: Upstream, conditioner: Conditioner, *, model: str, objectives: Sequence[str]
) -> str | None:
    """Why the engine does not generate a token, or None, also for a full queue. Raises UpstreamDown."""
    body = conditioner.chat(_conversation(model, PROBE, max_tokens=1), corner(objectives, 0))
    answer, content = await _ask(upstream, "/v1/chat/completions", body)
    if answer.status in (200, 503):
        return None
    logger.warning("the engine answers a request for one token with %d: %r", answer.status, content[:300])
    return f"the engine generates nothing, it answers {answer.status}"


async def parses_tool_calls(
    upstream: Upstream, conditioner: Conditioner, *, model: str, objectives: Sequence[str]
) -> bool:
    """Whether the engine takes tools that may be called: it does unless it says that it has no parser.

    On some routes vLLM says nothing, and gives a call out as the text that the policy wrote. An engine that
    generates and is late to answer this comes up all the same. Raises UpstreamDown.
    """
    tool = {"type": "function", "function": {"name": "probe", "parameters": {"type": "object"}}}
    asked = _conversation(model, PROBE, max_tokens=1, tools=[tool])
    body = conditioner.chat(asked, corner(objectives, 0))
    try:
        answer, content = await _ask(upstream, "/v1/chat/completions", body)
    except UpstreamLate:
        return True
    return answer.status == 200 or not says_no_tool_parser(content)


async def _ask(upstream: Upstream, path: str, body: Mapping[str, object]) -> tuple[Answer, bytes]:
    answer = await upstream.request("POST", path, json.dumps(body).encode())
    return answer, await read_all(answer)


async def _healthy(upstream: Upstream) -> bool:
    answer = await upstream.request("GET", "/health")
    await read_all(answer)
    return answer.status == 200


async def tokens_so_far(upstream: Upstream) -> float | None:
    """All tokens that vLLM has read and made, by its metrics; None where it does not say.

    Raises UpstreamDown.
    """
    answer = await upstream.request("GET", "/metrics")
    content = await read_all(answer)
    if answer.status != 200:
        return None
    lines = [
        line.split()
        for line in content.decode("utf-8", "replace").splitlines()
        if line.startswith(TOKEN_COUNTERS)
    ]
    return sum(float(line[-1]) for line in lines) if lines else None


class Readiness:
    """Whether the gateway takes work: `blocked` says why not, or is None. Without engines it always does."""

    def __init__(
        self,
        pool: Pool | None,
        *,
        model: str,
        card: PolicyCard | None,
        conditioner: Conditioner | None,
        metrics: Metrics,
        timeout: float = 10.0,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._pool = pool
        self._model = model
        self._card = card
        self._conditioner = conditioner
        self._timeout = timeout
        self._on_ready = on_ready
        self._running: dict[Member, asyncio.Future[None]] = {}
        self.draining = False
        metrics.ready.set_function(lambda: float(self.blocked is None))

    @property
    def engine_blocked(self) -> str | None:
        """Why no engine takes requests, or None."""
        return None if self._pool is None else self._pool.blocked

    @property
    def blocked(self) -> str | None:
        """Why the gateway is not ready, or None."""
        return "the gateway is shutting down" if self.draining else self.engine_blocked

    async def check(self) -> bool:
        """Ask every engine once. Whether one takes requests."""
        if self._pool is None:
            return True
        await asyncio.gather(*(self.look_at(member) for member in self._pool.members))
        return self._pool.blocked is None

    async def look_at(self, member: Member) -> bool:
        """Ask one engine; who comes while it is asked gets the same answer. Whether it takes requests."""
        assert self._pool is not None, "it has members"
        running = self._running.get(member)
        if running is None or running.done():
            running = self._running[member] = asyncio.ensure_future(self._check(self._pool, member))
        await asyncio.shield(running)
        return member.blocked is None

    async def _check(self, pool: Pool, member: Member) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                blocked = await self._fault(member)
        except (TimeoutError, UpstreamLate):
            # Until it has been up for the first time, it is loading.
            blocked = member.blocked or (None if await self._works(member) else HUNG)
        except UpstreamDown as error:
            if member.blocked is None:
                logger.warning("engine %s fails its health check: %s", member.name, error.kind)
            blocked = member.blocked or DOWN
        except TemplateError as error:
            blocked = str(error)
        before = pool.blocked
        pool.mark(member, blocked)
        if before is not None and pool.blocked is None:
            self._on_ready()

    async def _works(self, member: Member) -> bool:
        """Whether the engine has read or made tokens since the last look.

        Then it is busy, and the probe waits.
        """
        before = member.tokens
        try:
            async with asyncio.timeout(self._timeout):
                member.tokens = await tokens_so_far(member.upstream)
        except (UpstreamDown, TimeoutError):
            return False
        return member.tokens is not None and member.tokens != before

    async def _fault(self, member: Member) -> str | None:
        """What is wrong with an engine, or None. Raises UpstreamDown or TemplateError."""
        assert self._card is not None, "engines come with the card of their policy"
        assert self._conditioner is not None, "and with its conditioner"
        if not await _healthy(member.upstream):
            return member.blocked or DOWN
        if member.blocked is not None:
            await check_template(member.upstream, self._conditioner, model=self._model)
        if member.blocked is not None or member.suspect or member.silent(self._timeout):
            member.suspect = True
            fault = await generation_fault(
                member.upstream, self._conditioner, model=self._model, objectives=self._card.objectives
            )
            if fault is not None:
                return fault
            if member.blocked is not None:
                member.parses_tool_calls = await parses_tool_calls(
                    member.upstream, self._conditioner, model=self._model, objectives=self._card.objectives
                )
            member.suspect = False
            member.last_byte = monotonic()
        return None

    async def watch(self) -> None:
        """Keep checking, forever. An engine that hangs does not hold up the checks of the others."""
        if self._pool is None:
            self._on_ready()
            await asyncio.Event().wait()
            return
        await asyncio.gather(*(self._watch(member) for member in self._pool.members))

    async def _watch(self, member: Member) -> None:
        while True:
            await self.look_at(member)
            await asyncio.sleep(POLL)
