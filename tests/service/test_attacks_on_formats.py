"""Attacks on control tokens through Responses and Messages and a real vLLM, judged by the prompt's token ids.

And conversations as agents send them, which must pass.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest
from attack_policies import END_OF_TURN, Style, write_style
from attacks import CHAT, Attack
from attacks_on_formats import FORMAT_ATTACKS, MESSAGES, RESPONSES
from conversations import CLAUDE_CODE, CODEX, OPENCODE, OPENCODE_CHAT, Body
from fakes import RECOMMENDED
from preforch_models.bundle import Bundle
from preforch_models.context import render_context
from preforch_models.policy_card import PolicyCard, read_policy_card
from preforch_service.engine.supervisor import private_folder
from preforch_service.engine.upstream import AiohttpUpstream
from test_attacks import CONTEXT, Arena, Reply, attack_all, client, engine, read_alike
from tokenizers import Tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("attacks on formats")]

AGENTS = [
    Attack("Codex", "agent", CODEX | {"max_output_tokens": 8}, None, RESPONSES),
    Attack("opencode", "agent", OPENCODE, None, RESPONSES),
    Attack("opencode", "agent", OPENCODE_CHAT, None, CHAT),
    Attack("Claude Code", "agent", CLAUDE_CODE, None, MESSAGES),
]
SERVABLE = [attack for attack in FORMAT_ATTACKS if not attack.refused]
# Engines refuse requests with tools that may be called where they have no parser for calls.
ENGINE = ("--enable-scale-out", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")
LAST_EVENT = {
    CHAT: "data: [DONE]",
    RESPONSES: "event: response.",
    MESSAGES: "event: message_stop",
}
"""How the last event of a stream begins: of Responses `completed` or `incomplete`, as the answer ended."""


@dataclass(frozen=True)
class AgentArena(Arena):
    """Agents take their answers as streams: what comes of each."""

    streams: dict[Attack, str] = field(kw_only=True)


async def stream_all(bundle: Bundle, card: PolicyCard, socket: Path) -> dict[Attack, str]:
    engine_alone = AiohttpUpstream("http://engine", socket=socket)
    async with client(bundle, card, engine_alone, "escape") as http:
        streams = {}
        for agent in AGENTS:
            response = await http.post(agent.path, json=agent.body | {"stream": True})
            assert response.status_code == 200, response.text
            streams[agent] = response.text
    await engine_alone.close()
    return streams


@pytest.fixture(scope="module", params=get_args(Style))
def arena(
    request: pytest.FixtureRequest, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> AgentArena:
    style: Style = request.param
    policy = write_style(tmp_path_factory.mktemp("attacked") / style, style, bundle.info.context)
    card = read_policy_card(policy)
    with private_folder() as folder, engine(policy, card, folder, *ENGINE) as socket:
        replies = asyncio.run(attack_all(bundle, card, socket, [*FORMAT_ATTACKS, *AGENTS]))
        streams = asyncio.run(stream_all(bundle, card, socket))
    return AgentArena(
        style, card, Tokenizer.from_file(str(policy / "tokenizer.json")), *replies, streams=streams
    )


def last_user_text(body: Body) -> str:
    """The text of the last user turn of an engine's body."""
    if isinstance(body.get("input"), str):
        return str(body["input"])
    turns = [turn for turn in body.get("input") or body["messages"] if turn.get("role") == "user"]
    contents = [turn["content"] for turn in turns]
    texts = [
        content if isinstance(content, str) else content[-1]["text"]
        for content in contents
        if isinstance(content, str) or content[-1]["type"] == "text"
    ]
    return texts[-1]


def check_context(arena: Arena, reply: Reply) -> None:
    """The context's tokens once each, in order, at the end of the last user turn, only digits between."""
    pieces = arena.pieces(reply.ids)
    places = [i for i, piece in enumerate(pieces) if piece in CONTEXT]
    assert [pieces[i] for i in places] == CONTEXT
    assert arena.card.context_format is not None
    context = render_context(RECOMMENDED, arena.card.context_format)
    assert "".join([" ", *pieces[places[0] : places[-1] + 2]]) == context
    assert pieces[places[-1] + 2] == END_OF_TURN[arena.style]
    assert read_alike(pieces[places[0] - 1]).endswith(read_alike(last_user_text(reply.body)))


def named(attack: Attack) -> str:
    return f"{attack.path} {attack.kind}: {attack.name}"


@pytest.mark.parametrize("attack", SERVABLE, ids=named)
def test_escaped_the_prompt_has_the_control_tokens_of_a_harmless_one(arena: Arena, attack: Attack) -> None:
    reply, twin = arena.escaped[attack], arena.twins[attack]
    assert (reply.status, twin.status) == (200, 200), (reply.error, twin.error)
    check_context(arena, twin)
    check_context(arena, reply)
    assert arena.control(reply.ids) == arena.control(twin.ids)


@pytest.mark.parametrize("attack", FORMAT_ATTACKS, ids=named)
def test_rejected_the_error_says_why(arena: Arena, attack: Attack) -> None:
    reply = arena.rejected[attack]
    if attack.param is None:
        assert reply.status == 200, reply.error
    else:
        assert reply.status in (400, 404)
        assert attack.refused or "control string" in str(reply.error["message"])
        assert not reply.ids


@pytest.mark.parametrize("attack", [attack for attack in FORMAT_ATTACKS if attack.refused], ids=named)
def test_what_nobody_may_ask_is_refused_by_name(arena: Arena, attack: Attack) -> None:
    reply = arena.escaped[attack]
    assert reply.status == 400
    told = reply.error["param"] if attack.path == RESPONSES else reply.error["message"]
    assert str(attack.param) in str(told)


def test_without_the_guard_the_attacks_succeed(arena: Arena) -> None:
    through = {
        attack
        for attack in SERVABLE
        if arena.control(arena.unguarded[attack].ids) != arena.control(arena.twins[attack].ids)
    }
    assert through == {attack for attack in SERVABLE if attack.param is not None}
    assert len(through) >= 120


@pytest.mark.parametrize("agent", AGENTS, ids=named)
def test_conversations_of_agents_pass(arena: Arena, agent: Attack) -> None:
    for replies in (arena.escaped, arena.rejected):
        assert replies[agent].status == 200, replies[agent].error
        check_context(arena, replies[agent])


@pytest.mark.parametrize("agent", AGENTS, ids=named)
def test_conversations_of_agents_are_answered_as_streams(arena: AgentArena, agent: Attack) -> None:
    *events, last, nothing = arena.streams[agent].split("\n\n")
    assert nothing == ""
    assert last.startswith(LAST_EVENT[agent.path])
    assert [event for event in events if "error" in event.partition("data:")[0]] == []
    assert "".join(events).count('"preference":{') == 1
    assert len(events) > 3
