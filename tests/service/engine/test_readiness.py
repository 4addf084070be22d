"""The gateway is ready only while an engine answers whose template prints the weights."""

import asyncio

import pytest
from fakes import FakeUpstream, make_gateway
from preforch_models.bundle import Bundle
from preforch_models.control_strings import JOINER
from preforch_models.weights import Weights


def test_a_template_that_prints_the_weights_is_ready(bundle: Bundle) -> None:
    assert make_gateway(bundle, upstream=FakeUpstream()).readiness.blocked is None


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        ([], "chat template prints the control tokens []"),
        (["<W1>", "<W3>", "<W2>"], "chat template prints the control tokens"),
        (["<W1>", "<W2>", "<W3>", "<W1>"], "chat template prints the control tokens"),
        (["<W1>", "<W2>", "<W3>"], "the same prompt for different weights"),
    ],
)
def test_a_template_that_does_not_is_never_ready(bundle: Bundle, tokens: list[str], reason: str) -> None:
    def printed(_weights: Weights) -> list[str]:
        return tokens

    readiness = make_gateway(bundle, upstream=FakeUpstream(tokens=printed)).readiness
    assert readiness.blocked is not None
    assert reason in readiness.blocked


def test_a_template_that_undoes_the_escaping_is_never_ready(bundle: Bundle) -> None:
    assert make_gateway(bundle, upstream=FakeUpstream(drops="x")).readiness.blocked is None
    blocked = make_gateway(bundle, upstream=FakeUpstream(drops=JOINER)).readiness.blocked
    assert blocked is not None
    assert (
        "makes the control tokens ['<W1>', '<W2>', '<W3>', '<|im_end|>', '<|im_start|>'] of a user's text"
        in blocked
    )


def test_the_template_is_checked_again_when_the_engine_comes_back(bundle: Bundle) -> None:
    upstream = FakeUpstream()
    readiness = make_gateway(bundle, upstream=upstream).readiness
    upstream.down = True
    assert not asyncio.run(readiness.check())
    assert readiness.blocked == "the engine is down"
    upstream.down, upstream.health = False, 503
    assert not asyncio.run(readiness.check())
    upstream.health, upstream.tokens = 200, lambda weights: []
    assert not asyncio.run(readiness.check())
    upstream.tokens = FakeUpstream().tokens
    assert asyncio.run(readiness.check())
