"""Examples that need no more than the lock, against gateways without an engine."""

from collections.abc import Iterator
from typing import Any

import pytest
from examples import ASKED, OTHERS, names_of_examples, run_example, weights_asked_for
from fakes import RESPONSE, FakeAnswer, FakeUpstream, any_answer, json_answer
from preforch_models.bundle import Bundle
from rote_gateway import ANSWER, Gateway
from served import Served, serve

TEXT = "".join(ANSWER)


def output_of(name: str, gateway: Gateway) -> str:
    """The output of an example, which must succeed."""
    done = run_example(name, gateway.url, key="secret")
    assert done.returncode == 0, done.stderr
    assert all(headers["authorization"] == "Bearer secret" for _, headers, _ in gateway.requests)
    return done.stdout


def test_curl(gateway: Gateway) -> None:
    output = output_of("curl.sh", gateway)
    paths = [path for path, _, _ in gateway.requests]
    assert paths == ["/objectives", "/weights", "/generate", "/generate", "/v1/chat/completions"]
    assert [body.get("weights") for body in gateway.bodies("/generate")] == [None, {"helpful": 0.7}]
    assert '"helpful": 0.7' in output.partition("streamed")[2]
    assert "data: [DONE]" in output


def test_openai_chat(gateway: Gateway) -> None:
    lines = output_of("openai_chat.py", gateway).split("\n")
    assert [line.partition(":")[0] for line in lines if ": {" in line] == [
        "recommended",
        "blended",
        "streamed with",
    ]
    assert lines.count(TEXT) == 3
    weights = [body.get("preference_weights") for body in gateway.bodies("/v1/chat/completions")]
    assert weights == [None, {"helpful": 0.7}, None]


def test_python_client(gateway: Gateway) -> None:
    output = output_of("python_client.py", gateway)
    assert "objectives: ['helpful', 'harmless', 'humor']" in output
    assert "refused: unknown objective 'no-such-objective' (HTTP 400" in output
    assert output.count(TEXT) == 4
    assert f"blended -> {TEXT}" in output


def answer_in_json(body: dict[str, Any]) -> FakeAnswer:
    """That of an engine which keeps to the form that was asked for."""
    if body.get("stream") is True or body["path"] != "/v1/responses":
        return any_answer(body)
    text = {"type": "output_text", "text": '{"urgency": "low"}', "annotations": []}
    return json_answer(RESPONSE | {"output": [RESPONSE["output"][0] | {"content": [text]}]})


@pytest.fixture(scope="module")
def served(bundle: Bundle) -> Iterator[Served]:
    yield from serve(bundle, upstream=FakeUpstream(answer_in_json))


@pytest.mark.parametrize("name", ["openai_responses.py", "anthropic_messages.py"])
def test_other_formats(name: str, served: Served) -> None:
    done = run_example(name, str(served.client.base_url).rstrip("/"), model="tiny")
    assert done.returncode == 0, done.stderr
    assert weights_asked_for(done.stdout) == ASKED[name]


def test_every_example_is_run() -> None:
    assert names_of_examples() == {*ASKED, *OTHERS}


@pytest.mark.parametrize("name", ["curl.sh", "openai_chat.py", "python_client.py"])
def test_examples_fail_where_nothing_listens(name: str) -> None:
    assert run_example(name, "http://127.0.0.1:1").returncode != 0
