"""Attacks on control tokens through the gateway and a real vLLM, judged by the token ids of the prompt."""

import asyncio
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from attack_policies import END_OF_TURN, Style, write_style
from attacks import ATTACKS, COMPLETION, Attack, Body, harmless
from fakes import RECOMMENDED, FakeAnswer, FakeRecommender
from preforch_models.bundle import Bundle
from preforch_models.context import objective_tokens, render_context
from preforch_models.policy_card import PolicyCard, read_policy_card
from preforch_service.app import create_app
from preforch_service.engine.supervisor import LAUNCHER, EngineCommand, private_folder
from preforch_service.engine.upstream import AiohttpUpstream, Answer, Upstream, read_all
from preforch_service.gateway import build_gateway
from preforch_service.recommendation.active_bundle import InForce, assemble
from preforch_service.settings import ControlMode, ServeSettings
from preforch_service.telemetry.metrics import Metrics
from tokenizers import Tokenizer

START_SECONDS = 600
SERVABLE = [attack for attack in ATTACKS if not attack.refused]
CONTEXT = objective_tokens(3)


RENDERED = ("/v1/responses", "/v1/messages")
"""Routes whose answers do not hold the prompt's token ids; the engine tells them at `ROUTE/render`."""


@dataclass
class Watched:
    """The engine; by request id the body that every generation got, and the ids that it read."""

    engine: AiohttpUpstream
    bodies: dict[str, Body] = field(default_factory=dict)
    prompts: dict[str, list[int]] = field(default_factory=dict)

    async def request(
        self, method: str, path: str, body: bytes | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        if body is None or not path.startswith("/v1/"):
            return await self.engine.request(method, path, body)
        sent = json.loads(body)
        request_id = sent.get("request_id", (headers or {}).get("X-Request-Id"))
        if request_id is None:  # the gateway's own probe
            return await self.engine.request(method, path, body)
        name = request_id.removeprefix("resp_").rpartition("-")[0]
        if path in RENDERED:
            rendered = json.loads(await read_all(await self.engine.request(method, f"{path}/render", body)))
            self.bodies[name], self.prompts[name] = sent, rendered.get("token_ids", [])
            return await self.engine.request(method, path, body, headers=headers)
        asked = sent | {"return_token_ids": True, "max_tokens": 1}
        answer = await self.engine.request(method, path, json.dumps(asked).encode())
        content = await read_all(answer)
        if answer.status == 200:
            read = json.loads(content)
            self.bodies[name] = sent
            self.prompts[name] = (read if "prompt_token_ids" in read else read["choices"][0])[
                "prompt_token_ids"
            ]
        return FakeAnswer([content], answer.status)

    async def close(self) -> None:
        await self.engine.close()


@dataclass(frozen=True)
class Reply:
    """The gateway's answer, and what the engine read, where it was asked."""

    status: int
    error: dict[str, str | None]
    ids: list[int]
    body: Body


@dataclass(frozen=True)
class Arena:
    """One policy, and what every attack came to: escaped, rejected, let through, and without its poison."""

    style: Style
    card: PolicyCard
    tokenizer: Tokenizer
    escaped: dict[Attack, Reply]
    rejected: dict[Attack, Reply]
    unguarded: dict[Attack, Reply]
    twins: dict[Attack, Reply]

    def control(self, ids: list[int]) -> list[str]:
        """The control tokens of a prompt, in order."""
        tokens = [self.tokenizer.id_to_token(i) for i in ids]
        return [token for token in tokens if token in self.card.control_strings]

    def pieces(self, ids: list[int]) -> list[str]:
        """The prompt cut at its control tokens: text, token, text, token, ..., text."""
        found, text = [], list[int]()
        for i in ids:
            token = self.tokenizer.id_to_token(i)
            if token in self.card.control_strings:
                found += [self.tokenizer.decode(text), token]
                text = []
            else:
                text.append(i)
        return [*found, self.tokenizer.decode(text)]


@contextmanager
def engine(policy: Path, card: PolicyCard, folder: Path, *more: str) -> Iterator[Path]:
    """A vLLM server for a policy, with more arguments; gives its socket."""
    socket = folder / "engine.sock"
    command = EngineCommand(policy, card, "tiny", ("--uds", str(socket), *more), dict(RECOMMENDED), cpu=True)
    launch = [sys.executable, "-m", LAUNCHER, str(os.getpid()), sys.executable, *command.arguments()]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(launch, env=command.environment(), stdout=log, stderr=log) as process,
    ):
        try:
            yield socket
        finally:
            process.terminate()


@asynccontextmanager
async def client(
    bundle: Bundle, card: PolicyCard, upstream: Upstream, mode: ControlMode
) -> AsyncIterator[httpx.AsyncClient]:
    """The gateway's application, when its engine is ready."""
    settings = ServeSettings(path=Path("run"), control_tokens=mode, template_kwargs=("style",))
    metrics = Metrics()
    bundles = InForce(assemble(settings, bundle, FakeRecommender(), metrics))
    gateway = build_gateway(settings, bundles, metrics=metrics, card=card, upstreams={"engine": upstream})
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    while not await gateway.readiness.check():
        assert asyncio.get_running_loop().time() < deadline, gateway.readiness.blocked
        await asyncio.sleep(0.5)
    transport = httpx.ASGITransport(create_app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=120) as http:
        yield http


async def send(http: httpx.AsyncClient, watched: Watched, attack: Attack, name: str, body: Body) -> Reply:
    response = await http.post(attack.path, json=body, headers={**attack.headers, "X-Request-Id": name})
    answer: dict[str, Any] = response.json()
    return Reply(
        response.status_code,
        answer.get("error") or {},
        watched.prompts.get(name, []),
        watched.bodies.get(name, {}),
    )


async def attack_all(
    bundle: Bundle, card: PolicyCard, socket: Path, attacks: Sequence[Attack] = ATTACKS
) -> list[dict[Attack, Reply]]:
    """Escaped, rejected, unguarded, twins."""
    watched = Watched(AiohttpUpstream("http://engine", socket=socket))
    # The strings of a card that has none are those of a guard that looks for nothing.
    blind = card.model_construct(**(dict(card) | {"control_strings": ()}))
    kinds: list[tuple[PolicyCard, ControlMode, bool]] = [
        (card, "escape", False),
        (card, "reject", False),
        (blind, "escape", False),
        (card, "escape", True),
    ]
    found = []
    for number, (used, mode, tame) in enumerate(kinds):
        async with client(bundle, used, watched, mode) as http:
            replies = {}
            for i, attack in enumerate(attacks):
                body = harmless(attack.body) if tame else attack.body
                replies[attack] = await send(http, watched, attack, f"{number}.{i}", body)
            found.append(replies)
    await watched.engine.close()
    return found


@pytest.fixture(scope="module", params=get_args(Style))
def arena(request: pytest.FixtureRequest, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Arena:
    style: Style = request.param
    policy = write_style(tmp_path_factory.mktemp("attacked") / style, style, bundle.info.context)
    card = read_policy_card(policy)
    with private_folder() as folder, engine(policy, card, folder) as socket:
        replies = asyncio.run(attack_all(bundle, card, socket))
    return Arena(style, card, Tokenizer.from_file(str(policy / "tokenizer.json")), *replies)


def read_alike(text: str) -> str:
    """Text as either tokenizer may have normalised it, without the spaces that a template trims."""
    return unicodedata.normalize("NFKC", text).strip()


def check_context(arena: Arena, attack: Attack, reply: Reply) -> None:
    """The context's tokens once each, in order, at the end of the last user turn, only digits between."""
    pieces = arena.pieces(reply.ids)
    (first, *_), places = (
        [pieces.index(CONTEXT[0])],
        [i for i, piece in enumerate(pieces) if piece in CONTEXT],
    )
    assert [pieces[i] for i in places] == CONTEXT
    assert arena.card.context_format is not None
    context = render_context(RECOMMENDED, arena.card.context_format)
    assert "".join([" ", *pieces[first : places[-1] + 2]]) == context
    before, after = pieces[first - 1], pieces[places[-1] + 2 :]
    assert after[:1] == ([] if attack.path == COMPLETION else [END_OF_TURN[arena.style]])
    if attack.path == COMPLETION:
        last = reply.body["prompt"].removesuffix(context)
    else:
        last = [message["content"] for message in reply.body["messages"] if message["role"] == "user"][-1]
    assert read_alike(before).endswith(read_alike(last))


@pytest.mark.parametrize("attack", SERVABLE, ids=lambda attack: f"{attack.kind}: {attack.name}")
def test_escaped_the_prompt_has_the_control_tokens_of_a_harmless_one(arena: Arena, attack: Attack) -> None:
    reply, twin = arena.escaped[attack], arena.twins[attack]
    assert (reply.status, twin.status) == (200, 200), (reply.error, twin.error)
    check_context(arena, attack, twin)
    check_context(arena, attack, reply)
    assert arena.control(reply.ids) == arena.control(twin.ids)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.kind}: {attack.name}")
def test_rejected_the_error_names_the_place(arena: Arena, attack: Attack) -> None:
    reply = arena.rejected[attack]
    if attack.param is None:
        assert reply.status == 200, reply.error
        assert arena.control(reply.ids) == arena.control(arena.twins[attack].ids)
    else:
        assert reply.status in (400, 404)
        assert reply.error["param"] == attack.param
        assert attack.refused or reply.error["code"] == "control_string"
        assert not reply.ids


@pytest.mark.parametrize(
    "attack", [a for a in ATTACKS if a.refused], ids=lambda attack: f"{attack.kind}: {attack.name}"
)
def test_what_nobody_may_ask_is_refused_also_where_control_strings_are_escaped(
    arena: Arena, attack: Attack
) -> None:
    reply = arena.escaped[attack]
    assert reply.status in (400, 404)
    assert reply.error["param"] == attack.param


def test_without_the_guard_the_attacks_succeed(arena: Arena) -> None:
    through = {
        attack
        for attack in SERVABLE
        if arena.control(arena.unguarded[attack].ids) != arena.control(arena.twins[attack].ids)
    }
    assert through == {attack for attack in SERVABLE if attack.param is not None and attack.printed}
    assert len(through) >= 60
