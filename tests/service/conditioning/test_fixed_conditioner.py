"""A policy of kind `fixed`: weights are announced as not applied, and never reach the engine."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fakes import FakeUpstream, any_answer, fixed_upstream, make_gateway, policy_card
from preforch_models.bundle import Bundle
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_models.control_strings import JOINER
from preforch_models.weights import Weights
from preforch_service.conditioning import conditioner_of
from served import HELLO, Served, error_of, serve

FIXED = FixedConditioning()
FULL = {"helpful": 0.7, "harmless": 0.2, "humor": 0.1}
TURN = ["<|im_start|>", "user", "<|im_end|>"]
CHAT, COMPLETION, GENERATE = "/v1/chat/completions", "/v1/completions", "/generate"
PROMPTS: dict[str, dict[str, Any]] = {
    CHAT: HELLO,
    COMPLETION: {"prompt": "hello"},
    GENERATE: {"prompt": "hello"},
}


@pytest.fixture
def served(bundle: Bundle) -> Iterator[Served]:
    upstream = fixed_upstream()
    upstream.answer = any_answer
    yield from serve(bundle, upstream=upstream, conditioning=FIXED)


def ask(served: Served, path: str, **fields: object) -> httpx.Response:
    """Ask with weights, which each route takes under a name of its own."""
    name = "weights" if path == GENERATE else "preference_weights"
    return served.post(path, PROMPTS[path] | {name: FULL} | fields)


def said(path: str, content: dict[str, Any]) -> dict[str, Any]:
    """What an answer or an event says of the weights."""
    about: dict[str, Any] = content if path == GENERATE else content["preference"]
    return {name: about[name] for name in ("weights", "source", "applied")}


@pytest.mark.parametrize("path", [CHAT, COMPLETION, GENERATE])
def test_an_answer_announces_the_weights_and_says_that_they_are_not_applied(
    served: Served, path: str
) -> None:
    response = ask(served, path)
    assert said(path, response.json()) == {"weights": FULL, "source": "user", "applied": False}
    assert response.headers["X-Preference-Weights"] == "helpful=0.70,harmless=0.20,humor=0.10"
    assert response.headers["X-Preference-Applied"] == "false"


@pytest.mark.parametrize("path", [CHAT, GENERATE])
def test_the_first_event_of_a_stream_says_it_too(served: Served, path: str) -> None:
    response = ask(served, path, stream=True)
    first = json.loads(response.text.split("\n\n")[0].removeprefix("data: "))
    assert said(path, first) == {"weights": FULL, "source": "user", "applied": False}
    assert response.headers["X-Preference-Applied"] == "false"


@pytest.mark.parametrize("path", [CHAT, COMPLETION, GENERATE])
def test_nothing_of_the_weights_reaches_the_engine(served: Served, path: str) -> None:
    ask(served, path)
    served.post(path, PROMPTS[path])
    served.post(path, PROMPTS[path], headers={"X-Preference-Weights": "humor=0.9"})
    with_weights, without, in_header = served.upstream.bodies
    for body in (with_weights, without, in_header):
        del body["request_id"]
    assert with_weights == without == in_header
    sent = json.dumps([with_weights, *map(dict, served.upstream.headers)])
    assert "weight" not in sent.lower()
    assert "helpful" not in sent
    assert "<W" not in sent
    assert "0.7" not in sent


def test_control_strings_of_a_user_are_escaped_all_the_same(served: Served) -> None:
    served.chat(messages=[{"role": "user", "content": "<|im_end|>"}])
    (message,) = served.upstream.bodies[0]["messages"]
    assert message["content"] == f"<{JOINER}|im_end|>"


def test_a_user_cannot_hand_weights_to_the_template(served: Served) -> None:
    error = error_of(served.chat(chat_template_kwargs={"weights": FULL}), 400)
    assert error["param"] == "chat_template_kwargs.weights"


def test_wrong_weights_are_still_wrong(served: Served) -> None:
    assert error_of(served.chat(preference_weights={"kind": 1}), 400)["code"] == "invalid_weights"


def test_the_model_says_that_it_reads_no_weights(served: Served) -> None:
    (model,) = served.client.get("/v1/models").json()["data"]
    assert model["preference"] == {"conditioning": "fixed", "applied": False}


def test_recommendations_are_as_with_any_policy(served: Served) -> None:
    response = served.post("/weights", {"prompt": "hello"})
    assert "applied" not in response.json()
    assert "X-Preference-Applied" not in response.headers


def test_an_engine_gets_no_weights_by_default_and_operators_are_told(bundle: Bundle) -> None:
    conditioner = conditioner_of(policy_card(bundle.info.context, FIXED))
    assert conditioner.default_template_kwargs(FULL) == {}
    assert conditioner.notice is not None
    assert "policy 'tiny' does not read weights" in conditioner.notice
    assert "preference.applied is false" in conditioner.notice


# The self-test.


def blocked(bundle: Bundle, upstream: FakeUpstream) -> str | None:
    return make_gateway(bundle, upstream=upstream, conditioning=FIXED).readiness.blocked


def test_a_template_that_prints_no_weights_is_ready(bundle: Bundle) -> None:
    assert blocked(bundle, fixed_upstream()) is None


@pytest.mark.parametrize(
    "tokens",
    [
        lambda weights: [*TURN, *map(str, weights.values())],
        # Only one of the weights, and then only when it is the last one's.
        lambda weights: TURN + ["very funny"] * (weights.get("humor") == 1.0),
        # Weights make no difference to each other, but having any does.
        lambda weights: TURN + ["weighed"] * bool(weights),
    ],
)
def test_a_template_that_prints_weights_is_never_ready(
    bundle: Bundle, tokens: Callable[[Weights], list[str]]
) -> None:
    reason = blocked(bundle, FakeUpstream(tokens=tokens))
    assert reason is not None
    assert "prints another prompt for the weights" in reason


def test_a_template_that_undoes_the_escaping_is_never_ready(bundle: Bundle) -> None:
    upstream = fixed_upstream()
    upstream.drops = "x"
    assert blocked(bundle, upstream) is None
    upstream = fixed_upstream()
    upstream.drops = JOINER
    reason = blocked(bundle, upstream)
    assert reason is not None
    assert "makes the control tokens ['<W1>', '<W2>', '<W3>', '<|im_end|>', '<|im_start|>']" in reason


def test_the_template_is_checked_again_when_the_engine_comes_back(bundle: Bundle) -> None:
    upstream = fixed_upstream()
    readiness = make_gateway(bundle, upstream=upstream, conditioning=FIXED).readiness
    upstream.down = True
    assert not asyncio.run(readiness.check())
    upstream.down, upstream.tokens = False, lambda weights: [*TURN, *weights]
    assert not asyncio.run(readiness.check())
    upstream.tokens = fixed_upstream().tokens
    assert asyncio.run(readiness.check())
