"""The soak benchmark's verdict: every kind of fault is found, and a good run passes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from preforch_models.context import render_context
from preforch_models.policy_card import read_policy_card
from soak import Sample, faults
from soak_load import Rendered, Tally
from tokenizers import Tokenizer

GOOD_ERROR = b'{"error": {"message": "no such model", "type": "t", "param": "model", "code": null}}'


def samples(rss: Callable[[int], float], fds: Callable[[int], float]) -> list[Sample]:
    return [Sample(5.0 * i, int(rss(i)), int(fds(i)), 3, 9) for i in range(100)]


def good_tally() -> Tally:
    tally = Tally(weights_checked=1)
    tally.answered("chat")
    tally.error("bad", 404, GOOD_ERROR)
    return tally


def test_a_good_run_passes() -> None:
    # What grows while it warms up is not a leak.
    steady = samples(rss=lambda i: 300e6 if i > 15 else 200e6, fds=lambda i: 40 + i % 5)
    assert faults(good_tally(), steady, exit_code=0) == []


@pytest.mark.parametrize(
    ("rss", "fds", "said"),
    [
        (lambda i: 200e6 + i * 1e6, lambda i: 40, "memory grew"),
        (lambda i: 2e8, lambda i: 40 + i, "descriptors grew"),
    ],
)
def test_a_leak_is_found(rss: Callable[[int], float], fds: Callable[[int], float], said: str) -> None:
    (found,) = faults(good_tally(), samples(rss, fds), exit_code=0)
    assert said in found


def test_what_clients_saw_is_judged() -> None:
    tally = Tally()
    tally.nothing("stream", "ends with []")
    tally.error(
        "chat", 500, b'{"error": {"message": "internal error", "type": "t", "param": null, "code": null}}'
    )
    tally.error("chat", 503, b"Service Unavailable")
    tally.wrong_weights.append("chat: announced {}")
    found = faults(tally, samples(lambda i: 1e8, lambda i: 40), exit_code=1)
    starts = [
        "unanswered stream",
        "error without cause chat: 500",
        "error without cause chat: 503",
        "wrong weights",
    ]
    assert all(
        one.startswith(start)
        for one, start in zip(found, [*starts, "no weights", "exit code 1"], strict=True)
    )


def test_weights_are_compared_with_the_prompt_that_was_read(run_folder: Path) -> None:
    policy = run_folder / "policy" / "wic" / "round-0"
    context_format = read_policy_card(policy).context_format
    assert context_format is not None
    rendered = Rendered(context_format, Tokenizer.from_file(str(policy / "tokenizer.json")))
    weights = {"helpful": 0.7, "harmless": 0.2, "humor": 0.1}
    context = render_context(weights, rendered.context_format)
    ids = rendered.tokenizer.encode(f"hello {context}").ids
    assert rendered.agrees(ids, weights)
    assert not rendered.agrees(ids, weights | {"helpful": 0.6, "harmless": 0.3})
    assert not rendered.agrees(ids + ids, weights)
