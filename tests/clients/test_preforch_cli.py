"""The command through `main(argv)`, and as a process where stdin, signals or missing packages matter."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time

import pytest
from preforch_cli.chat import used
from preforch_cli.main import COMMANDS, main
from preforch_cli.weights import bar_character, weights_table
from preforch_client import Preference
from preforch_process import preforch
from rote_gateway import ANSWER, BUNDLE, RECOMMENDED, Gateway

TEXT = "".join(ANSWER)


def unused_url() -> str:
    """An address where nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_help_lists_all_commands_with_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    # argparse breaks the line after a long name.
    text = " ".join(capsys.readouterr().out.split())
    for name, command in COMMANDS.items():
        assert f" {name} {command.summary}" in text


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("preforch ")


@pytest.mark.parametrize("argv", [[], ["bogus"], ["weights"], ["chat", "--max-tokens", "many"]])
def test_wrong_arguments_are_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert "error:" in capsys.readouterr().err


def test_weights_prints_an_aligned_table_with_bars(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", "How do I calm a dog?", "--url", gateway.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["helpful", "0.20"],
        ["harmless", "0.75"],
        ["humor", "0.05"],
    ]
    assert [len(line.split()[2]) for line in lines[:3]] == [8, 30, 2]
    assert len({line.index("0.") for line in lines[:3]}) == 1
    assert lines[3] == f"source orchestrator, confidence 0.38, entropy 0.69 nats, bundle {BUNDLE[:12]}"
    assert gateway.bodies("/weights") == [{"prompt": "How do I calm a dog?"}]


def test_weights_prints_json_for_scripts(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "Hello", "--url", gateway.url, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["weights"], answer["source"], answer["bundle"]) == (RECOMMENDED, "orchestrator", BUNDLE)


def test_the_api_key_is_sent(gateway: Gateway) -> None:
    assert main(["weights", "Hello", "--url", gateway.url, "--api-key", "secret"]) == 0
    assert gateway.requests[0][1]["authorization"] == "Bearer secret"


def test_bars_fall_back_to_ascii() -> None:
    assert [bar_character(encoding) for encoding in ("utf-8", "ascii", None, "no-such")] == [
        "█",
        "#",
        "#",
        "#",
    ]
    assert weights_table({"a": 0.0, "long": 1.0}, bar="#") == "a     0.00\nlong  1.00  " + "#" * 40


def test_chat_answers_one_prompt(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["chat", "--url", gateway.url, "--weights", "helpful=0.7", "--max-tokens", "9", "Hello"]
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert captured.out == TEXT + "\n"
    assert captured.err == "[helpful 0.70  harmless 0.75  humor 0.05 | blended]\n"
    expected = {"messages": [{"role": "user", "content": "Hello"}], "preference_weights": {"helpful": 0.7}}
    assert gateway.bodies("/v1/chat/completions") == [expected | {"max_tokens": 9, "stream": True}]


def test_chat_says_that_a_policy_does_not_read_the_weights() -> None:
    said = {
        "weights": {"helpful": 0.7, "harmless": 0.3},
        "source": "user",
        "clamped": {"humor": {"low": 0.1}},
    }
    assert used(Preference.model_validate(said | {"applied": False})) == (
        "[helpful 0.70  harmless 0.30 | user, within bounds, not read by this policy]"
    )
    assert used(Preference.model_validate(said | {"applied": True, "advice": True})) == (
        "[helpful 0.70  harmless 0.30 | user, within bounds, advice to a model not trained to follow them]"
    )


def test_chat_reads_turns_from_a_pipe(gateway: Gateway) -> None:
    turns = "One\n\n/weights helpful=0.7\nTwo\n/reset\n/weights auto\nThree\n/quit\nnever\n"
    done = preforch("chat", "--url", gateway.url, stdin=turns)
    assert (done.returncode, done.stdout) == (0, f"{TEXT}\n" * 3)
    first, second, third = gateway.bodies("/v1/chat/completions")
    assert [message["content"] for message in second["messages"]] == ["One", TEXT, "Two"]
    assert [message["content"] for message in third["messages"]] == ["Three"]
    assert [body.get("preference_weights") for body in (first, second, third)] == [
        None,
        {"helpful": 0.7},
        None,
    ]
    assert done.stderr.splitlines()[1].startswith("[helpful 0.70 ")


def test_an_error_ends_a_script(gateway: Gateway) -> None:
    done = preforch("chat", "--url", gateway.url, stdin="/weights wit=1\nOne\nTwo\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "preforch: error: unknown objective 'wit' (HTTP 400, param preference_weights, request request-1)\n"
    )


def test_an_error_in_a_terminal_does_not_end_the_conversation(gateway: Gateway) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "preforch_cli.main", "chat", "--url", gateway.url, "--max-retries", "0"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.write(ours, b"/bogus\n/weights x\n/weights wit=1\noverload\n/weights auto\noverload\nOne\n/quit\n")
        out, err = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0
    assert TEXT in out
    assert [line.split(" (")[0] for line in err.splitlines() if "error" in line] == [
        "preforch: error: unknown command '/bogus'; there are /weights, /preset, /reset, /help, /quit",
        "preforch: error: weights are written name=number,name=number, got 'x'",
        "preforch: error: unknown objective 'wit'",
        "preforch: error: the queue is full",
    ]
    # Turns that failed are forgotten.
    assert [m["content"] for m in gateway.bodies("/v1/chat/completions")[-1]["messages"]] == ["One"]


@pytest.mark.parametrize("text", ["", "helpful", "helpful=", "=1", "helpful=high", "a=1,a=2", "a=1,,b=1"])
def test_weights_that_cannot_be_read_are_exit_code_2(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "--weights", text, "--url", unused_url(), "Hello"]) == 2
    assert capsys.readouterr().err.startswith("preforch: error: weight")


@pytest.mark.parametrize("argv", [["weights", "Hello"], ["chat", "Hello"]])
def test_no_gateway_is_one_line_and_exit_code_1(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    url = unused_url()
    assert main([*argv, "--url", url, "--max-retries", "0"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"preforch: error: cannot reach {url}: ")
    assert error.count("\n") == 1


def test_an_overloaded_gateway_is_exit_code_1(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "overload", "--url", gateway.url, "--max-retries", "0"]) == 1
    assert "the queue is full (HTTP 429" in capsys.readouterr().err


def test_an_address_that_is_none_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "Hello", "--url", "localhost:8000"]) == 2
    assert "must look like http://host:port" in capsys.readouterr().err


@pytest.mark.parametrize("given", [None, "0"])
def test_no_usage_is_reported_unless_asked_for(given: str | None) -> None:
    script = "import os, sys; from preforch_cli.main import main; main(['--help']); "
    script += "print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['VLLM_NO_USAGE_STATS'], file=sys.stderr)"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"ORT_DISABLE_TELEMETRY": given} if given else {}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr.split()[0] == (given or "1")


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """What comes up to these bytes."""
    received = b""
    while not received.endswith(end):
        received += connection.recv(65536)
    return received


def test_an_interrupt_is_exit_code_130() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with subprocess.Popen(
            # What a shell starts in the background ignores the signal, and so would this.
            [
                "env",
                "--default-signal=INT",
                sys.executable,
                "-m",
                "preforch_cli.main",
                "weights",
                "Hello",
                "--url",
                url,
            ],
            stderr=subprocess.PIPE,
        ) as process:
            connection, _ = silent.accept()
            with connection:
                assert b"Hello" in read_until(connection, b"}")
                # It is about to wait for the answer. A signal in the moment before it does would be seen only
                # after.
                time.sleep(2)
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")


def test_a_missing_extra_is_named() -> None:
    service = ("fastapi", "uvicorn", "aiohttp", "onnxruntime", "tokenizers", "prometheus_client")
    for argv, blocked, extra in [
        (("weights", "Hello"), ("httpx",), "client"),
        (("chat", "Hello"), ("httpx",), "client"),
        (("serve", "nowhere", "--weights-only"), service, "service"),
    ]:
        done = preforch(*argv, blocked=blocked)
        assert done.returncode == 1
        assert f"pip install 'preference-orchestrator[{extra}]'" in done.stderr
        assert any(f"`preforch {argv[0]}` needs the package {name!r}" in done.stderr for name in blocked)
        assert done.stderr.count("\n") == 1


def test_help_and_weights_need_no_other_extra(gateway: Gateway) -> None:
    others = (
        "torch",
        "transformers",
        "trl",
        "vllm",
        "fastapi",
        "uvicorn",
        "aiohttp",
        "onnxruntime",
        "tokenizers",
    )
    assert preforch("--help", blocked=(*others, "httpx", "pydantic", "numpy")).returncode == 0
    assert preforch("chat", "--help", blocked=(*others, "httpx")).returncode == 0
    for command in ("serve", "engine-args", "keygen"):
        assert preforch(command, "--help", blocked=others).returncode == 0
    wrong = preforch("serve", "nowhere", "--port", "70000", blocked=others)
    assert (wrong.returncode, "port" in wrong.stderr) == (2, True)
    assert preforch("weights", "Hello", "--url", gateway.url, blocked=(*others, "numpy")).returncode == 0


@pytest.mark.parametrize("argv", [["--preset", "safe", "Hello"], None])
def test_a_preset_is_sent_in_the_place_of_weights(gateway: Gateway, argv: list[str] | None) -> None:
    if argv is None:
        turns = "/weights helpful=1\n/preset safe\nHello\n/weights helpful=0.7\nHello\n"
        assert preforch("chat", "--url", gateway.url, stdin=turns).returncode == 0
        assert gateway.bodies("/v1/chat/completions")[1].get("preference_preset") is None
    else:
        assert main(["chat", "--url", gateway.url, *argv]) == 0
    body = gateway.bodies("/v1/chat/completions")[0]
    assert (body["preference_preset"], body.get("preference_weights")) == ("safe", None)


def test_a_preset_and_weights_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "--preset", "safe", "--weights", "helpful=1", "Hello"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err
