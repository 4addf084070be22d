"""Log lines are one format, and never hold what users write, whatever fails."""

import asyncio
import io
import json
import logging
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes import (
    FakeAnswer,
    FakeRecommender,
    FakeUpstream,
    chunk,
    json_answer,
    make_gateway,
    running,
    stream_answer,
)
from preforch_models.bundle import Bundle
from preforch_service.engine.upstream import UpstreamDown
from preforch_service.telemetry.logs import JsonFormatter, TextFormatter, describe

# Outside the alphabet of request ids: an id within it is the client's to choose, and is logged.
MARKER = "Zq7!secret/Zq7"
INNER = "secret"
HELLO = {"messages": [{"role": "user", "content": MARKER}]}


@contextmanager
def logged(formatter: logging.Formatter) -> Iterator[io.StringIO]:
    """All that is logged meanwhile, at the levels of a gateway."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root, ours = logging.getLogger(), logging.getLogger("preforch_service")
    levels = root.level, ours.level
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    ours.setLevel(logging.INFO)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(levels[0])
        ours.setLevel(levels[1])


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    """The lines of a JSON log."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def send_marked(client: httpx.Client) -> None:
    """The marker in every place that a client can write to."""
    for path in ("/weights", "/generate", "/v1/chat/completions", "/v1/completions", f"/{MARKER}"):
        client.post(f"{path}?{MARKER}={MARKER}", json={MARKER: MARKER})
        client.post(
            path, content=f'{{"prompt": "{MARKER}'.encode(), headers={"Content-Type": "application/json"}
        )
        client.post(
            path, json={"prompt": MARKER}, headers={"X-Preference-Weights": MARKER, "X-Request-Id": MARKER}
        )
        client.post(
            path, json={"prompt": MARKER}, headers={"Authorization": f"Bearer {MARKER}", "Cookie": MARKER}
        )
        client.post(path, content=MARKER.encode(), headers={"Content-Type": MARKER})
        client.post(path, json={"prompt": MARKER, "weights": {MARKER: 1}})
        client.post(path, json={"prompt": {MARKER: MARKER}, "inputs": MARKER, "weights": MARKER})
        client.post(path, json=HELLO | {"model": MARKER})
        client.post(path, json=HELLO | {"tools": [{MARKER: f"<W1>{MARKER}"}], "user": MARKER})
        client.post(
            path, json={"messages": [{"role": MARKER, "name": MARKER, "content": [{"type": MARKER}]}]}
        )
        client.post(path, json=HELLO, headers={"Host": MARKER})
    client.request("PUT", f"/weights/{MARKER}")


def send_raw(url: str, *, data: bytes) -> bytes:
    """Bytes that no HTTP client sends."""
    parts = httpx.URL(url)
    with socket.create_connection((parts.host, parts.port or 80)) as sock:
        sock.sendall(data)
        return b"".join(iter(lambda: sock.recv(4096), b""))


BROKEN = (
    f"GET /{MARKER} {MARKER}\r\n{MARKER}\r\n\r\n".encode(),
    f"SECRET{INNER} / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(),
    f"POST / HTTP/1.1\r\nContent-Length: {MARKER}\r\n\r\n".encode(),
)


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_nothing_that_a_client_sends_is_logged(bundle: Bundle, formatter: logging.Formatter) -> None:
    upstream = FakeUpstream()
    with logged(formatter) as stream, running(make_gateway(bundle, upstream=upstream)) as url:
        with httpx.Client(base_url=url, timeout=60) as client:
            send_marked(client)
        for data in BROKEN:
            send_raw(url, data=data)
    text = stream.getvalue()
    assert text.count("request") > 50
    assert INNER not in text.lower()


def failing(kind: type[Exception]) -> Exception:
    """An error whose message, note and cause hold the marker."""
    error = kind(f"input was {MARKER}")
    error.add_note(MARKER)
    error.__cause__ = ExceptionGroup(MARKER, [KeyError(MARKER), OSError(24, MARKER, MARKER)])
    return error


def raising(error: Exception) -> FakeAnswer:
    raise error


def test_errors_of_handlers_are_logged_without_their_messages(bundle: Bundle) -> None:
    upstream, recommender = FakeUpstream(), FakeRecommender(error=failing(ValueError))
    gateway = make_gateway(bundle, upstream=upstream, recommender=recommender)
    with (
        logged(JsonFormatter()) as stream,
        running(gateway) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        assert client.post("/weights", json={"prompt": MARKER}).json()["source"] == "fallback"
        upstream.answer = lambda body: raising(failing(RuntimeError))
        assert client.post("/generate", json={"prompt": MARKER}).status_code == 500
        upstream.answer = lambda body: json_answer({"choices": MARKER, "error": MARKER})
        assert client.post("/generate", json={"prompt": MARKER}).status_code == 500
        upstream.answer = lambda body: stream_answer(chunk(MARKER), failing(UpstreamDown))
        assert client.post("/generate", json={"prompt": MARKER, "stream": True}).status_code == 200
        # The broken stream has marked the engine down.
        assert asyncio.run(gateway.readiness.check())
        upstream.answer = lambda body: stream_answer(chunk(MARKER), failing(RuntimeError))
        with pytest.raises(httpx.RemoteProtocolError):
            client.post("/generate", json={"prompt": MARKER, "stream": True})
    lines = read(stream)
    assert INNER not in stream.getvalue()
    failed = [line for line in lines if line["message"] == "request failed"]
    assert len(failed) == 3
    assert "RuntimeError" in failed[0]["exception"]
    assert "OSError (Too many open files)" in failed[0]["exception"]
    assert re.fullmatch(r"[0-9a-f]{32}", failed[0]["request_id"])
    assert [line for line in lines if line.get("broken_off")]


def test_a_request_is_one_line_of_facts(bundle: Bundle) -> None:
    gateway = make_gateway(bundle, upstream=FakeUpstream())
    with logged(JsonFormatter()) as stream, running(gateway) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=HELLO, headers={"X-Request-Id": "mine"})
        httpx.get(f"{url}/livez")
        httpx.get(f"{url}/nowhere")
    first, second = (line for line in read(stream) if line["logger"] == "preforch_service.access")
    assert {
        name: first[name]
        for name in ("message", "level", "method", "route", "status", "request_id", "source")
    } == {
        "message": "request",
        "level": "info",
        "method": "POST",
        "route": "/v1/chat/completions",
        "status": 200,
        "request_id": "mine",
        "source": "orchestrator",
    }
    assert first["bundle"] == bundle.revision
    assert first["bytes"] == len(answer.content)
    assert 0 < first["first_byte_seconds"] < first["seconds"]
    assert not {"client_left", "broken_off", "key", "trace_id"} & set(first)
    assert (second["route"], second["status"]) == ("other", 404)


def test_the_access_log_can_be_off(bundle: Bundle) -> None:
    with logged(JsonFormatter()) as stream, running(make_gateway(bundle, access_log=False)) as url:
        httpx.get(f"{url}/objectives")
    assert [line for line in read(stream) if line["logger"] == "preforch_service.access"] == []


def test_text_lines_have_the_same_facts() -> None:
    record = logging.makeLogRecord(
        {"name": "n", "levelname": "INFO", "msg": "did %d", "args": (3,), "facts": {"a": 1}}
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z INFO n: did 3 a=1", TextFormatter().format(record))


def test_an_exception_is_described_by_types_and_code() -> None:
    try:
        raise ValueError(MARKER) from KeyError(MARKER)
    except ValueError as error:
        shown = describe(error)
    assert shown.splitlines()[0] == "KeyError"
    assert shown.splitlines()[-1] == "ValueError"
    assert f'File "{__file__}"' in shown
    assert INNER not in shown


def test_a_chain_of_exceptions_without_end_is_cut() -> None:
    one, other = ValueError(), KeyError()
    one.__context__, other.__context__ = other, one
    assert describe(one).count("ValueError") < 10


FAILURES = f"""
import asyncio, gc, sys, threading, warnings
from preforch_service.telemetry.logs import configure_logging

configure_logging("json", sys.stderr)
warnings.warn("{MARKER}", stacklevel=1)

def fail():
    raise RuntimeError("{MARKER}")

thread = threading.Thread(target=fail)
thread.start()
thread.join()

async def forgotten():
    raise RuntimeError("{MARKER}")

async def main():
    task = asyncio.ensure_future(forgotten())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    gc.collect()

class Falling:
    def __del__(self):
        fail()

Falling()
asyncio.run(main())
fail()
"""


def test_warnings_and_uncaught_exceptions_have_the_format_too(tmp_path: Path) -> None:
    # The lines of a program are shown in tracebacks; those of a string are not.
    done = subprocess.run([sys.executable, "-c", FAILURES], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"] for line in lines] == [
        "UserWarning at <string>:6",
        "uncaught exception in a thread",
        "an exception that could not be raised",
        "Task exception was never retrieved",
        "uncaught exception",
    ]
    assert all("RuntimeError" in line["exception"] for line in lines[1:])
    assert INNER not in done.stderr


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_real_gateway_logs_no_marker(bundle_folder: Path, tmp_path: Path, log_format: str) -> None:
    options = ["--weights-only", "--port", "0", "--log-format", log_format]
    command = [sys.executable, "-m", "preforch_service", str(bundle_folder), *options]
    with (tmp_path / "log").open("w+", encoding="utf-8") as log:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            with httpx.Client(base_url=url, timeout=60) as client:
                send_marked(client)
            for data in BROKEN:
                send_raw(url, data=data)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert INNER not in process.stdout.read()
        log.seek(0)
        lines = log.read().splitlines()
    assert INNER not in "\n".join(lines).lower()
    if log_format == "json":
        loggers = {json.loads(line)["logger"] for line in lines}
        assert loggers == {"preforch_service.access", "preforch_service.listener", "uvicorn.error"}
    else:
        assert all(re.match(r"\d{4}-\d\d-\d\dT\S+Z (INFO|WARNING) \S+: ", line) for line in lines)
    assert len(lines) > 50
