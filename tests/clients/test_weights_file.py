"""`preforch weights --file` against a real gateway in a process of its own; faults are played by a script."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway_process import GatewayProcess, gateway_process
from preforch_cli.main import main
from preforch_cli.prompt_lines import format_of, read_lines
from preforch_client import Client
from processes import wait_until
from scripted_server import WEIGHED, answer, scripted_server

Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def weigher(bundle_folder: Path) -> Iterator[GatewayProcess]:
    """A gateway that several tests ask, and that none kills."""
    with gateway_process(bundle_folder) as gateway:
        yield gateway


def weigh(url: str, file: Path, out: Path, *options: str) -> int:
    return main(["weights", "--file", str(file), "--out", str(out), "--url", url, *options])


def read(out: Path) -> Results:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def write_prompts(file: Path, number: int) -> None:
    file.write_text("".join(f"Tell me joke {i} about a penguin.\n" for i in range(number)), encoding="utf-8")


def process(url: str, file: str, *options: str) -> list[str]:
    """The command line of a run in a process of its own."""
    return [sys.executable, "-m", "preforch_cli", "weights", "--file", file, "--url", url, *options]


def test_each_line_of_text_gets_its_weights_in_order(weigher: GatewayProcess, tmp_path: Path) -> None:
    prompts = ["Tell me a joke.", "How do I repair\u2028a tyre? 🐧", "  ", "I feel sad."]
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(prompts).encode())
    assert weigh(weigher.url, file, tmp_path / "out.jsonl", "--batch", "2") == 0
    results = read(tmp_path / "out.jsonl")
    assert [result["line"] for result in results] == [1, 2, 4]
    with Client(weigher.url) as client:
        for result in results:
            asked = client.weights(prompts[result["line"] - 1]).model_dump(mode="json")
            assert {name: result[name] for name in asked} == asked


def test_json_lines_hold_prompts_and_conversations(weigher: GatewayProcess, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Tell me a joke."}, {"role": "assistant", "content": "No."}]
    turns.append({"role": "user", "content": "I feel sad."})
    rows = [{"prompt": "Two\nlines", "id": 7}, {"messages": turns, "prompt": None}]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert weigh(weigher.url, file, tmp_path / "out.jsonl") == 0
    with Client(weigher.url) as client:
        expected = [client.weights("Two\nlines").weights, client.weights(messages=turns).weights]
    assert [result["weights"] for result in read(tmp_path / "out.jsonl")] == expected


def test_standard_input_is_weighed_to_standard_output(weigher: GatewayProcess) -> None:
    command = process(weigher.url, "-", "--format", "jsonl")
    done = subprocess.run(
        command, input=b'{"prompt": "Hello"}\n', capture_output=True, timeout=60, check=True
    )
    assert [json.loads(line)["line"] for line in done.stdout.splitlines()] == [1]
    # No progress bar where nobody looks.
    assert done.stderr == b"1 lines have results\n"


def test_a_terminal_shows_progress(weigher: GatewayProcess, tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.txt", 3)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    command = process(weigher.url, str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "out"))
    subprocess.run(command, stderr=theirs, timeout=60, check=True)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert "3/3" in shown
    assert "prompt/s" in shown


@contextmanager
def at_work(command: list[str], out: Path) -> Iterator["subprocess.Popen[str]"]:
    """The command, once it has written a few more results."""
    size = out.stat().st_size if out.exists() else 0
    # What a shell starts in the background ignores the signal, and so would this.
    with subprocess.Popen(
        ["env", "--default-signal=INT", *command], stderr=subprocess.PIPE, text=True
    ) as run:
        assert wait_until(lambda: out.exists() and out.stat().st_size > size + 5_000)
        yield run


@pytest.mark.slow
def test_kills_of_command_and_gateway_lose_and_double_nothing(bundle_folder: Path, tmp_path: Path) -> None:
    file, out, whole = tmp_path / "prompts.txt", tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    write_prompts(file, 500)
    with gateway_process(bundle_folder) as gateway:
        command = process(gateway.url, str(file), "--out", str(out), "--batch", "1", "--max-retries", "0")
        with at_work(command, out) as run:
            run.kill()
        with at_work(command, out) as run:
            run.send_signal(signal.SIGINT)
            _, said = run.communicate(timeout=60)
        assert run.returncode == 130
        assert said == f"{len(read(out))} lines have results in {out}; the same command goes on from here\n"
        with at_work(command, out) as run:
            gateway.kill()
            gateway.start()
            _, said = run.communicate(timeout=60)
        assert run.returncode == 0
        waiting, end = said.splitlines()
        assert waiting.endswith("; trying again for up to 600 seconds")
        assert end == f"500 lines have results in {out}"
        assert weigh(gateway.url, file, whole) == 0
    assert [result["line"] for result in read(out)] == list(range(1, 501))
    for one, other in zip(read(out), read(whole), strict=True):
        assert one["hash"] == other["hash"]
        # The last digits depend on the batch.
        assert one["weights"] == pytest.approx(other["weights"], abs=0.011)


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_half_written_line_is_cut_and_written_anew(
    weigher: GatewayProcess, tmp_path: Path, cut: int
) -> None:
    file, out = tmp_path / "prompts.txt", tmp_path / "out.jsonl"
    write_prompts(file, 4)
    assert weigh(weigher.url, file, out) == 0
    whole = out.read_bytes()
    third = sum(map(len, whole.splitlines(keepends=True)[:2]))
    for left in (third, third + cut):
        out.write_bytes(whole[:left])
        assert weigh(weigher.url, file, out) == 0
        assert out.read_bytes() == whole


@pytest.mark.parametrize("held", [b"my own notes", b"my own notes\n", b'{"line": 1, "hash": "'])
def test_a_file_that_holds_something_else_is_refused_and_left_alone(
    weigher: GatewayProcess, tmp_path: Path, held: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "prompts.txt", tmp_path / "out.jsonl"
    write_prompts(file, 1)
    out.write_bytes(held)
    if held.startswith(b"my"):
        assert weigh(weigher.url, file, out) == 2
        assert f"{out}, line 1: not the result of line 1 of the input" in capsys.readouterr().err
        assert out.read_bytes() == held
    else:
        assert weigh(weigher.url, file, out) == 0


@pytest.mark.parametrize("changed", ["Tell me joke 1 about a dog.", "", None])
def test_a_changed_input_is_refused_in_words(
    weigher: GatewayProcess, tmp_path: Path, changed: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "prompts.txt", tmp_path / "out.jsonl"
    write_prompts(file, 3)
    assert weigh(weigher.url, file, out) == 0
    before, lines = out.read_bytes(), file.read_text(encoding="utf-8").splitlines()
    file.write_text(
        "\n".join([lines[0], *([] if changed is None else [changed, lines[2]])]), encoding="utf-8"
    )
    assert weigh(weigher.url, file, out) == 2
    which = {None: "any line", "": "line 3"}.get(changed, "line 2")
    assert (
        f"{out}, line 2: not the result of {which} of the input: the input has changed"
        in capsys.readouterr().err
    )
    assert out.read_bytes() == before
    file.write_text("\n".join([*lines, "One more."]), encoding="utf-8")
    assert weigh(weigher.url, file, out) == 0
    assert out.read_bytes().startswith(before)
    assert len(read(out)) == 4


def test_two_processes_do_not_write_to_one_file(
    weigher: GatewayProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    with subprocess.Popen(process(weigher.url, "-", "--out", str(out)), stdin=subprocess.PIPE) as first:
        assert first.stdin is not None
        assert wait_until(out.exists)
        write_prompts(tmp_path / "prompts.txt", 1)
        assert weigh(weigher.url, tmp_path / "prompts.txt", out) == 2
        assert f"another process is writing to {out}" in capsys.readouterr().err
        first.stdin.close()
    assert first.returncode == 0


BAD = [
    (b"\xff", "is not UTF-8: byte 0xff in column 1"),
    (b'{"prompt": ', "is not JSON"),
    (b"[" * 100_000, "is not JSON"),
    (b'"Hello"', "is not an object, got str; allowed is"),
    (b"{}", "holds neither of prompt and messages; allowed is"),
    (b'{"prompt": "a", "messages": [{}]}', "holds both of prompt and messages"),
    (b'{"prompt": 3}', "prompt is not a text"),
    (b'{"prompt": " "}', "prompt is not a text"),
    (b'{"messages": ["Hello"]}', "messages is not a list of objects"),
    (b'{"prompt": "\\ud800"}', "cannot be sent"),
    (b'{"messages": [{"role": "user", "content": NaN}]}', "cannot be sent"),
    (
        b'{"messages": [{"role": "king", "content": "a"}]}',
        "is refused by the gateway: role 'king' is not allowed",
    ),
    (
        b'{"messages": [{"role": "assistant", "content": "a"}]}',
        "is refused by the gateway: a conversation needs a user turn",
    ),
]


def test_a_bad_line_is_named_and_stops_or_is_written(
    weigher: GatewayProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.jsonl"
    good = b'{"prompt": "Tell me a joke."}\n'
    for number, (line, said) in enumerate(BAD):
        file.write_bytes(good * 3 + line + b"\n" + good)
        out = tmp_path / f"{number}.jsonl"
        assert weigh(weigher.url, file, out) == 2
        assert f"{file}, line 4: {said}" in capsys.readouterr().err
        assert [result["line"] for result in read(out)] == [1, 2, 3]
    file.write_bytes(b"".join(line + b"\n" + good for line, _ in BAD))
    assert weigh(weigher.url, file, tmp_path / "all.jsonl", "--bad-lines", "write") == 0
    results = read(tmp_path / "all.jsonl")
    assert [result["line"] for result in results] == list(range(1, 2 * len(BAD) + 1))
    assert [said in result["error"] for result, (_, said) in zip(results[::2], BAD, strict=True)] == [
        True
    ] * len(BAD)
    assert all(result["source"] == "orchestrator" for result in results[1::2])
    assert f"{len(BAD)} of this run are bad lines, written as errors" in capsys.readouterr().err


def test_a_request_that_is_too_large_is_made_in_parts(bundle_folder: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "prompts.txt", tmp_path / "out.jsonl"
    write_prompts(file, 20)
    with gateway_process(bundle_folder, "--max-inputs", "3", "--max-characters", "90") as gateway:
        assert weigh(gateway.url, file, out) == 0
    assert [result["line"] for result in read(out)] == list(range(1, 21))


BATCH = answer(body={"results": [WEIGHED], "bundle": "abc"})


def test_a_gateway_that_is_away_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "prompts.txt", tmp_path / "out.jsonl"
    write_prompts(file, 1)
    away = [answer("502 Bad Gateway", {}), BATCH[:-9]]
    with scripted_server(*away, BATCH) as server:
        assert weigh(server.url, file, out) == 0
    assert len(server.bodies) == 3
    assert [result["weights"] for result in read(out)] == [WEIGHED["weights"]]
    assert capsys.readouterr().err.count("trying again for up to 600 seconds") == 1
    with scripted_server(away[0]) as server:
        assert weigh(server.url, file, tmp_path / "other.jsonl", "--patience", "0") == 1
    assert "HTTP 502" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (answer("401 Unauthorized", {"error": {"message": "wrong key"}}), 2, "error: wrong key (HTTP 401)"),
        (answer("500 Internal Server Error", {"error": {"message": "oops"}}), 1, "error: oops (HTTP 500)"),
        (answer(body={"results": []}), 1, "the gateway answered 1 prompts with 0 results"),
    ],
)
def test_what_is_no_fault_of_a_line_ends_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: bytes, code: int, said: str
) -> None:
    write_prompts(tmp_path / "prompts.txt", 1)
    with scripted_server(fault) as server:
        out = tmp_path / "out.jsonl"
        assert weigh(server.url, tmp_path / "prompts.txt", out, "--bad-lines", "write") == code
    assert (said in capsys.readouterr().err, out.read_bytes()) == (True, b"")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "give a prompt, or --file FILE"),
        (["Hello", "--file", "-"], "one of the two"),
        (["Hello", "--bad-lines", "stop"], "--bad-lines goes with --file"),
        (["--file", "-", "--json"], "--json goes with a prompt"),
        (["--file", "-", "--batch", "0"], "--batch is 0; it must be 1 or more"),
        (["--file", "-", "--patience", "-1"], "--patience is -1.0; it must be 0 or more"),
        (["--file", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", *argv, "--url", "http://127.0.0.1:1"]) == 2
    assert said in capsys.readouterr().err


def test_the_format_is_told_by_the_name() -> None:
    assert [format_of(name) for name in ("a.jsonl", "a.txt", "-", "jsonl")] == [
        "jsonl",
        "text",
        "text",
        "text",
    ]


def test_a_line_is_known_by_its_number_and_its_bytes() -> None:
    one, two, three = read_lines([b"a\n", b"\n", b"a\r\n", b"b"], "text")
    assert (one.number, two.number, three.number) == (1, 3, 4)
    assert one.hash == two.hash != three.hash
    assert (two.content, three.content) == ("a", "b")
