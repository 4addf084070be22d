"""`preforch chat` in a terminal, with a real gateway on a port; only the engine behind it is a stand-in."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeUpstream, chunk, make_gateway, running, stream_answer
from preforch_models.bundle import Bundle
from terminal import HOME, UP, Terminal, terminal

DONE = b"data: [DONE]\n\n"


@pytest.fixture
def engine() -> FakeUpstream:
    return FakeUpstream(answer=lambda _body: stream_answer(chunk("Woof."), DONE))


@pytest.fixture
def url(bundle: Bundle, engine: FakeUpstream) -> Iterator[str]:
    with running(make_gateway(bundle, upstream=engine)) as address:
        yield address


def asked(engine: FakeUpstream) -> list[list[str]]:
    """What each request held: the contents of its messages."""
    return [[message["content"] for message in body["messages"]] for body in engine.bodies]


def end(shown: Terminal) -> None:
    shown.type("/quit\r")
    assert shown.process.wait(20) == 0


def test_lines_are_edited_and_recalled_in_the_next_conversation(
    engine: FakeUpstream, url: str, tmp_path: Path
) -> None:
    history = tmp_path / "state" / "preforch" / "chat_history"
    environment = {"XDG_STATE_HOME": str(tmp_path / "state"), "PREFORCH_HISTORY": ""}
    with terminal("chat", "--url", url, environment=environment) as shown:
        shown.wait_for("> ")
        shown.type("tell me a joke\r")
        shown.wait_for("Woof.")
        # Written at once: a conversation that is killed leaves its lines.
        assert history.read_text(encoding="utf-8") == "tell me a joke\n"
    assert history.stat().st_mode & 0o777 == 0o600
    with terminal("chat", "--url", url, environment=environment) as shown:
        shown.wait_for("> ")
        shown.type(f"{UP}{HOME}Please \r")
        shown.wait_for("Woof.")
        end(shown)
    assert asked(engine) == [["tell me a joke"], ["Please tell me a joke"]]
    assert history.read_text(encoding="utf-8").splitlines() == [
        "tell me a joke",
        "Please tell me a joke",
        "/quit",
    ]


def test_no_history_is_kept_where_it_is_off_or_cannot_be(url: str, tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path / "state"), "PREFORCH_HISTORY": ""}
    (tmp_path / "file").touch()
    for history in ("off", str(tmp_path / "file" / "history")):
        with terminal("chat", "--url", url, "--history", history, environment=environment) as shown:
            shown.wait_for("> ")
            shown.type("Hello\r")
            shown.wait_for("Woof.")
            end(shown)
        assert ("preforch: no history is kept: " in shown.text) is (history != "off")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_commands_are_completed_and_weights_and_presets_are_asked_for(engine: FakeUpstream, url: str) -> None:
    with terminal("chat", "--url", url, "--history", "off") as shown:
        shown.wait_for("> ")
        shown.type("/we\thelpful=0.8\rone\r")
        assert "helpful 0.80" in shown.wait_for("Woof.")
        shown.type("/help\r")
        assert "/preset NAME" in shown.wait_for("Ctrl-C stops an answer")
        # The words about a preset that does not exist are the gateway's.
        shown.type("/preset bold\rtwo\r")
        assert "'bold' does not exist" in shown.wait_for("preference_preset")
        shown.type("/preset\r")
        shown.wait_for("a preset is named: /preset NAME")
        shown.type("/preset auto\rthree\r")
        assert "orchestrator" in shown.wait_for("Woof.")
        shown.type("/reset\rfour\r")
        shown.wait_for("Woof.")
        end(shown)
    assert asked(engine) == [["one"], ["one", "Woof.", "three"], ["four"]]


def test_an_interrupt_ends_the_answer_and_not_the_conversation(engine: FakeUpstream, url: str) -> None:
    never = stream_answer(chunk("Once upon"), threading.Event())
    engine.answer = lambda _body: never
    with terminal("chat", "--url", url, "--history", "off") as shown:
        shown.wait_for("> ")
        shown.type("a story\r")
        shown.wait_for("Once upon")
        shown.interrupt()
        shown.wait_for("stopped; this turn is forgotten")
        assert never.closed.wait(10), "the engine is still at work on an answer that nobody reads"
        engine.answer = lambda _body: stream_answer(chunk("Woof."), DONE)
        shown.type("a joke\r")
        shown.wait_for("Woof.")
        shown.interrupt()
        assert shown.process.wait(20) == 130
    assert asked(engine) == [["a story"], ["a joke"]]
