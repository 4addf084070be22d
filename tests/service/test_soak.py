"""The soak benchmark's verdict: every kind of fault is found, and a good run passes."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "soak.py"
GOOD_ERROR = b'{"error": {"message": "no such model", "type": "t", "param": "model", "code": null}}'


@pytest.fixture(scope="module")
def soak() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def samples(soak: dict[str, Any], rss: Callable[[int], float], fds: Callable[[int], float]) -> list[Any]:
    return [soak["Sample"](5.0 * i, int(rss(i)), int(fds(i)), 3, 9) for i in range(100)]


def good_tally(soak: dict[str, Any]) -> Any:
    tally = soak["Tally"](weights_checked=1)
    tally.answered("chat")
    tally.error("bad", 404, GOOD_ERROR)
    return tally


def test_a_good_run_passes(soak: dict[str, Any]) -> None:
    # What grows while it warms up is no leak.
    steady = samples(soak, rss=lambda i: 300e6 if i > 15 else 200e6, fds=lambda i: 40 + i % 5)
    assert soak["faults"](good_tally(soak), steady, exit_code=0) == []


@pytest.mark.parametrize(
    ("rss", "fds", "said"),
    [(lambda i: 200e6 + i * 1e6, lambda i: 40, "memory grew"), (lambda i: 2e8, lambda i: 40 + i, "descriptors grew")],
)
def test_a_leak_is_found(
    soak: dict[str, Any], rss: Callable[[int], float], fds: Callable[[int], float], said: str
) -> None:
    (found,) = soak["faults"](good_tally(soak), samples(soak, rss, fds), exit_code=0)
    assert said in found


def test_what_clients_saw_is_judged(soak: dict[str, Any]) -> None:
    tally = soak["Tally"]()
    tally.nothing("stream", "ends with []")
    tally.error("chat", 500, b'{"error": {"message": "internal error", "type": "t", "param": null, "code": null}}')
    tally.error("chat", 503, b"Service Unavailable")
    tally.wrong_weights.append("chat: announced {}")
    found = soak["faults"](tally, samples(soak, lambda i: 1e8, lambda i: 40), exit_code=1)
    starts = ["unanswered stream", "error without cause chat: 500", "error without cause chat: 503", "wrong weights"]
    assert all(one.startswith(start) for one, start in zip(found, [*starts, "no weights", "exit code 1"], strict=True))


def test_weights_are_compared_with_the_prompt_that_was_read(soak: dict[str, Any], run_folder: Path) -> None:
    policy = run_folder / "policy" / "wic" / "round-0"
    rendered = soak["Rendered"](
        soak["read_policy_card"](policy), soak["Tokenizer"].from_file(str(policy / "tokenizer.json"))
    )
    weights = {"helpful": 0.7, "harmless": 0.2, "humor": 0.1}
    context = soak["render_context"](weights, rendered.card.context)
    ids = rendered.tokenizer.encode(f"hello {context}").ids
    assert rendered.agrees(ids, weights)
    assert not rendered.agrees(ids, weights | {"helpful": 0.6, "harmless": 0.3})
    assert not rendered.agrees(ids + ids, weights)
