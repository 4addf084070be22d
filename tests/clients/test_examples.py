"""Each example runs as it is; only the address differs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rote_gateway import ANSWER, Gateway

EXAMPLES = Path(__file__).parents[2] / "clients" / "examples"
TEXT = "".join(ANSWER)


def run_example(name: str, gateway: Gateway) -> str:
    """The output of an example, which must succeed."""
    command = ["sh"] if name.endswith(".sh") else [sys.executable]
    environment = os.environ | {"PREFORCH_URL": gateway.url, "PREFORCH_API_KEY": "secret"}
    done = subprocess.run(
        [*command, str(EXAMPLES / name)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(headers["authorization"] == "Bearer secret" for _, headers, _ in gateway.requests)
    return done.stdout


def test_curl(gateway: Gateway) -> None:
    output = run_example("curl.sh", gateway)
    paths = [path for path, _, _ in gateway.requests]
    assert paths == ["/objectives", "/weights", "/generate", "/generate", "/v1/chat/completions"]
    assert [body.get("weights") for body in gateway.bodies("/generate")] == [None, {"helpful": 0.7}]
    assert '"helpful": 0.7' in output.partition("streamed")[2]
    assert "data: [DONE]" in output


def test_openai_chat(gateway: Gateway) -> None:
    lines = run_example("openai_chat.py", gateway).split("\n")
    assert [line.partition(":")[0] for line in lines if ": {" in line] == [
        "recommended",
        "blended",
        "streamed with",
    ]
    assert lines.count(TEXT) == 3
    weights = [body.get("preference_weights") for body in gateway.bodies("/v1/chat/completions")]
    assert weights == [None, {"helpful": 0.7}, None]


def test_python_client(gateway: Gateway) -> None:
    output = run_example("python_client.py", gateway)
    assert "objectives: ['helpful', 'harmless', 'humor']" in output
    assert "refused: unknown objective 'no-such-objective' (HTTP 400" in output
    assert output.count(TEXT) == 4
    assert f"blended -> {TEXT}" in output


def test_every_example_is_run() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in EXAMPLES.iterdir() if path.is_file()} <= tested


@pytest.mark.parametrize("name", ["curl.sh", "openai_chat.py", "python_client.py"])
def test_examples_fail_where_nothing_listens(name: str) -> None:
    command = ["sh"] if name.endswith(".sh") else [sys.executable]
    environment = os.environ | {"PREFORCH_URL": "http://127.0.0.1:1"}
    done = subprocess.run(
        [*command, str(EXAMPLES / name)], env=environment, capture_output=True, timeout=60, check=False
    )
    assert done.returncode != 0
