"""Rewards: what is scored does not depend on what is scored beside it, and a broken reward is named."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_world
from preforch_training.records import Prompt
from preforch_training.reward.scoring import (
    ClassifierReward,
    Config,
    EndpointReward,
    FunctionReward,
    check_rewards,
    score,
)
from small_world import FUNNY, SAFE, make_prompt
from transformers import AutoTokenizer

NOWHERE = Path("nowhere")
PROMPTS = [
    make_prompt("joke about bear one"),
    make_prompt("danger near dog two", "careful", "joke about lamp three"),
    make_prompt("danger"),
    make_prompt(" ".join(["old text"] * 6 + ["joke about fire four"])),
    make_prompt("joke about kettle five"),
]
RESPONSES = [FUNNY, SAFE, " ".join([SAFE] * 3), "haha", FUNNY]


def reward(config: Config, prompts: list[Prompt] = PROMPTS, responses: list[str] = RESPONSES) -> np.ndarray:
    return score(config, NOWHERE, NOWHERE, prompts, responses, None)


# Classifiers.


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClassifierReward]:
    """Tiny random classifiers, by architecture and padding side."""
    folder = tmp_path_factory.mktemp("classifiers")
    small_world.write_bert_classifier(folder / "bert")
    small_world.write_qwen_classifier(folder / "qwen")
    small_world.write_qwen_classifier(folder / "qwen-left", padding="left")
    return {
        name: ClassifierReward(model=str(folder / name), max_tokens=48)
        for name in ("bert", "qwen", "qwen-left")
    }


@pytest.mark.parametrize("name", ["bert", "qwen", "qwen-left"])
def test_scores_do_not_depend_on_batch_size_padding_or_order(
    classifiers: dict[str, ClassifierReward], name: str
) -> None:
    config = classifiers[name]
    alone = np.array([reward(config, [p], [r])[0] for p, r in zip(PROMPTS, RESPONSES, strict=True)])
    assert np.ptp(alone) > 0.01
    for size in (1, 2, 5):
        together = reward(config.model_copy(update={"batch_size": size}))
        np.testing.assert_allclose(together, alone, atol=1e-4)
    backwards = reward(config, PROMPTS[::-1], RESPONSES[::-1])
    np.testing.assert_allclose(backwards[::-1], alone, atol=1e-4)


@pytest.mark.parametrize("name", ["bert", "qwen"])
def test_a_long_conversation_loses_its_beginning_and_never_the_response(
    classifiers: dict[str, ClassifierReward], name: str
) -> None:
    config = classifiers[name].model_copy(update={"max_tokens": 40})
    tail = " ".join(["old text"] * 40)
    base = reward(config, [make_prompt(f"joke {tail}")], [FUNNY])[0]
    other_beginning = reward(config, [make_prompt(f"danger {tail}")], [FUNNY])[0]
    other_response = reward(config, [make_prompt(f"joke {tail}")], [SAFE])[0]
    assert other_beginning == pytest.approx(base, abs=1e-6)
    assert abs(other_response - base) > 1e-3


def test_the_logit_of_the_asked_label_is_the_reward(classifiers: dict[str, ClassifierReward]) -> None:
    first, second = (reward(classifiers["bert"].model_copy(update={"label": label})) for label in (0, 1))
    assert np.abs(first - second).min() > 1e-4


def test_a_chat_template_writes_the_special_tokens_and_none_are_added(tmp_path: Path) -> None:
    """With brackets of its own and a template, a text must not begin with two [CLS]."""
    folder = small_world.write_bert_classifier(tmp_path / "templated")
    template = "[CLS] {% for m in messages %}{{ m.content }} {% endfor %}[SEP]"
    plain = reward(ClassifierReward(model=str(folder), max_tokens=48))
    small_world.save_tokenizer(folder, brackets=True, chat_template=template)
    templated = reward(ClassifierReward(model=str(folder), max_tokens=48))
    small_world.save_tokenizer(folder, brackets=False, chat_template=template)
    bare = reward(ClassifierReward(model=str(folder), max_tokens=48))
    np.testing.assert_allclose(templated, bare, atol=1e-6)
    assert np.abs(templated - plain).max() > 1e-4
    assert AutoTokenizer.from_pretrained(folder).chat_template == template


# Functions.


def test_a_function_is_called_with_prompts_and_responses() -> None:
    np.testing.assert_array_equal(reward(FunctionReward(function="small_world:funny")), [1, 0, 0, 1, 1])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "small_world:not_a_number",
            "function reward of response 0 is nan, it must be finite; prompt 'joke about bear",
        ),
        ("small_world:one_too_few", r"function reward: expected 5 numbers, got an array of shape \(4,\)"),
        (
            "small_world:fails",
            r"reward function 'small_world:fails' failed: ZeroDivisionError\('no responses'\)",
        ),
        ("small_world:nothing", "reward function 'small_world:nothing' cannot be loaded"),
        ("no_such_module:nothing", "reward function 'no_such_module:nothing' cannot be loaded"),
    ],
)
def test_a_broken_function_is_named(function: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reward(FunctionReward(function=function))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_reward_that_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(ValueError, match=f"demo reward of response 1 is {value}.*response 'yes'"):
        check_rewards([0.0, value, value], ["a", "b", "c"], ["no", "yes", "no"], source="demo")


# Endpoints.

Answer = Callable[[dict[str, Any]], bytes | int]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], tuple[str, list[dict[str, Any]]]]]:
    """Start a real HTTP server on the loopback: answer -> (url, requests so far). A number is an error status."""
    servers = []

    def start(answer: Answer) -> tuple[str, list[dict[str, Any]]]:
        seen: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen.append(body)
                reply = answer(body)
                self.send_response(reply if isinstance(reply, int) else 200)
                self.end_headers()
                self.wfile.write(b"" if isinstance(reply, int) else reply)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/reward", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


Serve = Callable[[Answer], tuple[str, list[dict[str, Any]]]]


def lengths(body: dict[str, Any]) -> bytes:
    return json.dumps({"rewards": [len(response) for response in body["labels"]]}).encode()


def test_an_endpoint_is_asked_in_batches_by_the_contract(serve: Serve) -> None:
    url, seen = serve(lengths)
    rewards = reward(EndpointReward(url=url, batch_size=2))
    np.testing.assert_array_equal(rewards, [len(response) for response in RESPONSES])
    assert [len(body["query"]) for body in seen] == [2, 2, 1]
    assert seen[0]["prompts"] == [prompt.text for prompt in PROMPTS[:2]]
    assert seen[0]["query"] == [p.text + r for p, r in zip(PROMPTS[:2], RESPONSES[:2], strict=True)]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b'{"rewards": [1, NaN]}', "endpoint reward of response 1 is nan, it must be finite"),
        (b'{"rewards": [1, Infinity]}', "endpoint reward of response 1 is inf"),
        (b'{"rewards": [1]}', "1 rewards for 2 responses"),
        (b'{"rewards": [1, "x"]}', "expected {'rewards'"),
        (b'{"rewards": [1, null]}', "expected {'rewards'"),
        (b'{"scores": [1, 2]}', "KeyError.*expected {'rewards'"),
        (b"[1, 2]", "expected {'rewards'"),
        (b"not json", "expected {'rewards'"),
        (500, "500 Internal Server Error"),
    ],
)
def test_a_wrong_answer_of_an_endpoint_is_named(serve: Serve, reply: bytes | int, message: str) -> None:
    url, _ = serve(lambda body: reply)
    with pytest.raises(ValueError, match=message):
        reward(EndpointReward(url=url), PROMPTS[:2], RESPONSES[:2])


def test_counts_that_are_wrong_in_two_batches_but_right_together_are_found(serve: Serve) -> None:
    replies = iter([b'{"rewards": [1, 2, 3]}', b'{"rewards": [4]}'])
    url, _ = serve(lambda body: next(replies))
    with pytest.raises(ValueError, match="3 rewards for 2 responses"):
        reward(EndpointReward(url=url, batch_size=2), PROMPTS[:4], RESPONSES[:4])


def test_an_endpoint_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"reward endpoint http://127\.0\.0\.1:1/: ConnectError"):
        reward(EndpointReward(url="http://127.0.0.1:1/"))
