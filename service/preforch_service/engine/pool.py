"""The engines behind one gateway: which of them takes a request, and which are up.

In:  a request. Out: the answer of the engine with the fewest requests in flight (ties in turn). One that
     fails before the first byte of its answer is replaced once by another, and is down until its health check
     passes.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from time import monotonic

from preforch_service.engine.upstream import Answer, Upstream, UpstreamDown, UpstreamLate
from preforch_service.telemetry.metrics import Metrics

LOADING = "the engine is loading"
DOWN = "the engine is down"
# Seconds without a byte, while requests run, after which one that is late makes its engine suspect.
SILENCE = 1.0

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Member:
    """One engine. `blocked` says why it takes no requests, or is None."""

    name: str
    upstream: Upstream
    blocked: str | None = LOADING
    in_flight: int = 0
    # Something is wrong that its health check may not see; asks for a closer look.
    suspect: bool = False
    # Read and made by the engine when it was last asked, which is when it is late.
    tokens: float | None = None
    # Whether it reads the tool calls that the policy writes; so until it is known better.
    parses_tool_calls: bool = True
    last_byte: float = field(default_factory=monotonic)

    def silent(self, seconds: float) -> bool:
        """Whether it has requests and has sent nothing for so long."""
        return self.in_flight > 0 and monotonic() - self.last_byte > seconds


class PooledAnswer:
    """An answer of a `member`. `closing` runs what has to happen when it is closed."""

    def __init__(
        self,
        answer: Answer,
        member: Member,
        *,
        closing: ExitStack,
        on_failure: Callable[[UpstreamDown], None],
    ) -> None:
        self._answer = answer
        self.member = member
        self._on_failure = on_failure
        self.closing = closing

    @property
    def status(self) -> int:
        """HTTP status."""
        return self._answer.status

    @property
    def content_type(self) -> str:
        """Media type, without parameters."""
        return self._answer.content_type

    @property
    def begun(self) -> bool:
        """Whether something of the body, or its end, is there."""
        return self._answer.begun

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises UpstreamDown."""
        try:
            async for chunk in self._answer.chunks():
                self.member.last_byte = monotonic()
                yield chunk
        except UpstreamDown as error:
            self._on_failure(error)
            raise

    def close(self) -> None:
        """Stop reading; harmless a second time."""
        self._answer.close()
        self.closing.close()


class Pool:
    """Several engines that serve the same model, or one."""

    def __init__(self, upstreams: Mapping[str, Upstream], *, metrics: Metrics) -> None:
        self.members = [Member(name, upstream) for name, upstream in upstreams.items()]
        self._metrics = metrics
        self._turn = 0
        self._closed = False
        for member in self.members:
            metrics.upstream_up.labels(member.name).set(0)
            metrics.upstream_in_flight.labels(member.name).set(0)

    @property
    def blocked(self) -> str | None:
        """Why no engine takes requests, or None when one does."""
        reasons = [member.blocked for member in self.members]
        if None in reasons:
            return None
        return "; ".join(dict.fromkeys(reason for reason in reasons if reason is not None))

    @property
    def parses_tool_calls(self) -> bool:
        """Whether whichever engine takes a request reads the tool calls that the policy writes."""
        return all(member.parses_tool_calls for member in self.members if member.blocked is None)

    def mark(self, member: Member, blocked: str | None) -> None:
        """Note whether an engine takes requests."""
        if blocked == member.blocked:
            return
        if blocked is not None:
            logger.warning("engine %s takes no requests: %s", member.name, blocked)
        member.blocked = blocked
        self._metrics.upstream_up.labels(member.name).set(blocked is None)

    def mark_all_down(self) -> None:
        """The supervisor has seen its engine end; do not wait for the next health check to say so."""
        for member in self.members:
            self.mark(member, member.blocked or DOWN)

    async def request(
        self, method: str, path: str, body: bytes | None = None, *, headers: Mapping[str, str] | None = None
    ) -> PooledAnswer:
        """The first bytes of an answer, of a second engine where the first one fails. Raises UpstreamDown."""
        first = self._choose(self.members)
        others = [member for member in self.members if member is not first]
        try:
            answer = await self._ask(first, method, path, body, headers)
        except UpstreamLate:
            # The client has waited its time.
            raise
        except UpstreamDown:
            if all(member.blocked for member in others):
                raise
            logger.info("asking another engine than %s", first.name)
        else:
            if answer.status < 500 or all(member.blocked for member in others):
                return answer
            answer.close()
        return await self._ask(self._choose(others), method, path, body, headers)

    def _choose(self, members: Sequence[Member]) -> Member:
        up = [member for member in members if member.blocked is None]
        if not up:
            raise UpstreamDown(self.blocked or DOWN)
        fewest = min(member.in_flight for member in up)
        least = [member for member in up if member.in_flight == fewest]
        self._turn += 1
        return least[self._turn % len(least)]

    async def _ask(
        self, member: Member, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> PooledAnswer:
        begun = monotonic()
        if not member.in_flight:
            member.last_byte = begun
        with ExitStack() as stack:
            stack.enter_context(self._counted(member))

            def failed(error: UpstreamDown) -> None:
                self._failed(member, error, begun)

            try:
                answer = await member.upstream.request(method, path, body, headers=headers)
            except UpstreamDown as error:
                failed(error)
                raise
            if answer.status >= 500:
                self._metrics.upstream_failures.labels("status").inc()
                # 503 is a full queue, or an engine whose health check says that it is dead.
                member.suspect = member.suspect or answer.status != 503
            if answer.begun:
                member.last_byte = monotonic()
            return PooledAnswer(answer, member, closing=stack.pop_all(), on_failure=failed)

    @contextmanager
    def _counted(self, member: Member) -> Iterator[None]:
        gauge = self._metrics.upstream_in_flight.labels(member.name)
        member.in_flight += 1
        gauge.inc()
        try:
            yield
        finally:
            member.in_flight -= 1
            gauge.dec()

    def _failed(self, member: Member, error: UpstreamDown, begun: float) -> None:
        if self._closed:
            return
        self._metrics.upstream_failures.labels(error.reason).inc()
        logger.warning("engine %s failed: %s", member.name, error.kind)
        if not isinstance(error, UpstreamLate):
            self.mark(member, DOWN)
        elif member.last_byte <= begun or member.silent(SILENCE):
            # The others have not heard of it either.
            member.suspect = True

    async def close(self) -> None:
        """Break off all answers."""
        self._closed = True
        for member in self.members:
            await member.upstream.close()
