"""2,000 malformed requests, over real connections: never a 500, never a crash, never a prompt in the log.

Requests are raw bytes, made from a seed by the table MUTATIONS. Each holds a marker where a prompt would be;
the marker must not reach the log. Whatever is answered is an error in the route's shape with a request id. A
client that closes its sending side counts as gone, for uvicorn does not tell the two apart.
"""

import gzip
import json
import random
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fakes import FakeUpstream, any_answer, engine_app, running_app
from processes import wait_until

MARKER = "xyzzymarkertext"
REQUESTS = 2000
WORKERS = 16
LIMIT = 100_000
# With the fake engine nothing is ever down, so that not even a 503 may come.
EXPECTED = {200, 204, 400, 403, 404, 405, 408, 413, 415, 417, 431}
ROUTES = (
    *("/weights", "/generate", "/v1/chat/completions", "/v1/completions"),
    *("/v1/responses", "/v1/messages", "/v1/messages/count_tokens"),
)
BODIES: dict[str, dict[str, object]] = {
    "/weights": {"prompt": MARKER},
    "/generate": {"prompt": MARKER, "max_tokens": 4},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": MARKER}], "max_tokens": 4},
    "/v1/completions": {"prompt": MARKER, "max_tokens": 4},
    "/v1/responses": {"input": MARKER, "max_output_tokens": 4},
    "/v1/messages": {"messages": [{"role": "user", "content": MARKER}], "max_tokens": 4},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": MARKER}]},
}
ODD_VALUES: tuple[object, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1.5,
        2**63,
        10**400,
        "",
        MARKER,
        "\0",
        [],
        [[]],
        {},
        {"": {}},
        [None],
        [MARKER],
        {MARKER: 1},
    ),
    *(
        [{"role": "user"}],
        [{"role": MARKER, "content": 1}],
        [{"role": "user", "content": [{"type": MARKER}]}],
    ),
    *(
        [{"role": ["user"], "content": MARKER}],
        [{"role": "user", "content": {"text": MARKER}}],
        float("nan"),
        1e308,
    ),
    [{"role": "assistant", "content": MARKER, "tool_calls": [{"function": {"arguments": {"x": MARKER}}}]}],
    [{"role": "user", "content": MARKER, "tool_calls": MARKER}],
    [{"type": "function_call", "call_id": "1", "name": {}, "arguments": MARKER}],
    [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": [MARKER]}]}],
    [{"type": [MARKER]}, {"role": "user", "content": MARKER}],
    [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": 1}]}]}],
    [{"role": "assistant", "content": [{"type": "tool_use", "id": 1, "name": "f", "input": [MARKER]}]}],
    [{"type": "namespace", "name": MARKER, "tools": {"type": MARKER}}],
    [{"name": MARKER, "input_schema": MARKER}],
    {"type": "enabled", "budget_tokens": MARKER},
    {"format": {"type": "json_schema", "schema": MARKER}},
)
ODD_WEIGHTS: tuple[object, ...] = (
    *(
        {},
        [],
        [1],
        [1, 2, 3, 4],
        [0, 0, 0],
        [1, -1, 1],
        ["1", "2", "3"],
        {"helpful": "1"},
        {"helpful": -1},
        {MARKER: 1},
    ),
    *(
        {"helpful": float("inf")},
        {"helpful": float("nan")},
        {"helpful": 0.9, "harmless": 0.9},
        {"helpful": None},
        True,
    ),
    *(
        {"helpful": {"x": MARKER}},
        MARKER,
        1,
        [[1, 2, 3]],
        {"helpful": 10**400},
        {"helpful": True},
        {"": 1},
        [None] * 3,
    ),
)
ODD_ASSIGNMENTS = (
    *(
        "",
        "=",
        "helpful",
        "helpful=",
        "=1",
        "helpful=x",
        "helpful=nan",
        "helpful=inf",
        "helpful=-1",
        "helpful=1e999",
    ),
    *(
        "helpful=1,helpful=2",
        f"{MARKER}=1",
        "helpful=1;harmless=1",
        "helpful==1",
        ",",
        "helpful=0x1",
        "helpful=1_0",
    ),
    *("helpful=\u0661", "helpful=0,harmless=0,humor=0", "helpful=" + "9" * 5000, "a=1," * 3000),
)
FIELDS = (
    *(
        "prompt",
        "messages",
        "model",
        "stream",
        "n",
        "stop",
        "seed",
        "max_tokens",
        "temperature",
        "tools",
        "documents",
    ),
    *(
        "tool_choice",
        "chat_template_kwargs",
        "response_format",
        "logit_bias",
        "reasoning_effort",
        "stream_options",
    ),
    *("inputs", "weights", "preference_weights", "request_id", "prompt_embeds", "suffix", MARKER, ""),
    *("input", "instructions", "reasoning", "text", "include", "store", "max_output_tokens", "truncation"),
    *("system", "thinking", "output_config", "stop_sequences", "metadata", "previous_response_id"),
)


@dataclass(frozen=True)
class Wire:
    """Bytes to send.

    `half_closed`: the client says that nothing follows; `answered`: it waits for an answer.
    """

    data: bytes
    half_closed: bool = False
    answered: bool = True


def http(
    path: str,
    body: bytes,
    *,
    method: str = "POST",
    headers: tuple[bytes, ...] = (),
    length: str | None = None,
) -> bytes:
    """A request that ends its connection, so that the answer ends, too."""
    lines = [
        f"{method} {path} HTTP/1.1".encode("latin-1"),
        b"Host: localhost",
        b"Content-Type: application/json",
        b"Connection: close",
        *headers,
        f"Content-Length: {len(body) if length is None else length}".encode(),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def dumped(value: object) -> bytes:
    return json.dumps(value).encode()


def field_of_wrong_type(rng: random.Random, path: str) -> Wire:
    return Wire(http(path, dumped(BODIES[path] | {rng.choice(FIELDS): rng.choice(ODD_VALUES)})))


def wrong_weights(rng: random.Random, path: str) -> Wire:
    carrier = rng.choice(("weights", "preference_weights", "header", "model"))
    given = rng.choice(ODD_ASSIGNMENTS)
    if carrier == "header":
        return Wire(http(path, dumped(BODIES[path]), headers=(b"X-Preference-Weights: " + given.encode(),)))
    if carrier == "model":
        return Wire(http(path, dumped(BODIES[path] | {"model": f"tiny@{given}"})))
    return Wire(http(path, dumped(BODIES[path] | {carrier: rng.choice(ODD_WEIGHTS)})))


def broken_json(rng: random.Random, path: str) -> Wire:
    body = bytearray(dumped(BODIES[path]))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(body))
        body[at : at + rng.randint(0, 1)] = rng.randbytes(1)
    return Wire(http(path, bytes(body[: rng.choice((len(body), rng.randrange(len(body))))])))


def wrong_encoding(rng: random.Random, path: str) -> Wire:
    text = json.dumps(BODIES[path])
    umlaut = text.replace(MARKER, f"{MARKER}\u00e4")
    body, header = rng.choice(
        (
            (text.encode("utf-16"), b"X: 1"),
            (text.encode("utf-16-le"), b"X: 1"),
            (text.encode("utf-32"), b"X: 1"),
            (b"\xef\xbb\xbf" + text.encode(), b"X: 1"),
            (umlaut.encode("latin-1"), b"Accept-Charset: latin-1"),
            (text.replace(MARKER, f"{MARKER}\\ud800").encode(), b"X: 1"),
            (text.replace(MARKER, f"\\udfff{MARKER}").encode(), b"X: 1"),
            (text.replace(MARKER, MARKER + "\x00\x1f").encode(), b"X: 1"),
            (gzip.compress(text.encode()), b"Content-Encoding: gzip"),
            (gzip.compress(text.encode()), b"X: 1"),
            (text.encode(), b"Content-Encoding: gzip"),
            (text.encode(), b"Content-Encoding: br, identity"),
        )
    )
    return Wire(http(path, body, headers=(header,)))


def odd_numbers_and_nesting(rng: random.Random, path: str) -> Wire:
    depth = rng.choice((50, 200, 900, 990, 3000, 20_000))
    odd = rng.choice(
        (
            *(
                "NaN",
                "Infinity",
                "-Infinity",
                "1e999",
                "-0",
                "9" * 4000,
                "9" * 6000,
                "1.0e-400",
                "00",
                "0x10",
            ),
            *(
                "[" * depth + "]" * depth,
                '{"a":' * depth + "1" + "}" * depth,
                "[" * depth,
                '["' + MARKER * 3000 + '"]',
            ),
        )
    )
    name = rng.choice(
        ("weights", "preference_weights", "temperature", "tools", "seed", "messages", "stop", "logit_bias")
    )
    text = json.dumps(BODIES[path])[:-1]
    return Wire(http(path, rng.choice((f'{text}, "{name}": {odd}}}', f'{{"{name}": {odd}}}', odd)).encode()))


def duplicate_keys(rng: random.Random, path: str) -> Wire:
    text = json.dumps(BODIES[path])[1:-1]
    return Wire(
        http(path, f'{{{text}, {text}, "weights": {{"helpful": 1, "helpful": "{MARKER}"}}}}'.encode())
    )


def odd_headers(rng: random.Random, path: str) -> Wire:
    marker = MARKER.encode()
    header = rng.choice(
        (
            b"X-Request-Id: " + marker + b"\xff\xfe",
            b"X-Request-Id: " + marker * 100,
            b"X-Request-Id: a\r\nX-Request-Id: b",
            b"X-Preference-Weights: helpful=1\r\nX-Preference-Weights: helpful=2",
            b"X-Preference-Weights: \xc3\xa4=1",
            b"X-Preference-Weights: helpful=1\rX-Injected: 1",
            b"X-Preference-Weights: helpful=1\nX-Injected: 1",
            b"Host: evil.example",
            b"Host: " + marker,
            b"Content-Type: text/plain",
            b"Content-Type: application/json; charset=utf-16",
            b"Content-Type:",
            b"Authorization: Bearer \xff" + marker,
            b"Authorization: " + marker,
            b"Traceparent: 00-" + marker,
            b"Expect: 100-continue",
            b"Upgrade: websocket\r\nConnection: Upgrade",
            b"Upgrade: h2c",
            b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\nUpgrade: h2c",
            b"Expect: " + marker,
            b"Content-Encoding: gzip",
            b"Content-Encoding: " + marker,
            b"Transfer-Encoding: " + marker,
            b"Huge: " + marker * 6000,
            marker + b"\0: x",
            b": no name",
            b"no colon " + marker,
            b" folded: " + marker,
            b"\r\n".join(b"H%d: %s" % (i, marker) for i in range(300)),
        )
    )
    return Wire(http(path, dumped(BODIES[path]), headers=(header,)))


def odd_targets(rng: random.Random, path: str) -> Wire:
    target = rng.choice(
        (
            *(
                f"http://localhost{path}",
                f"http://evil.example{path}",
                f"{path}/",
                f"/{path}",
                f"{path}/../weights",
            ),
            *(
                f"{path}?{MARKER}=%ff",
                f"{path}%00",
                f"{path}%2e%2e",
                f"/%2e%2e/{MARKER}",
                "*",
                f"{path}#{MARKER}",
            ),
            *(
                f"//evil.example{path}",
                f"/{MARKER}",
                f"{path}\\..\\x",
                "/" + "a/" * 3000,
                f"{path};{MARKER}",
                "/\u00ff",
            ),
            *(
                f"/docs/{MARKER}",
                f"/openapi.json/{MARKER}",
                "/metrics",
                "/tokenize",
                "/invocations",
                "/admin/reload",
            ),
        )
    )
    return Wire(http(target, dumped(BODIES[path])))


def wrong_method(rng: random.Random, path: str) -> Wire:
    method = rng.choice(
        ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "CONNECT", "PRI", "post", MARKER)
    )
    return Wire(http(path, dumped(BODIES[path]), method=method))


def chunked_garbage(rng: random.Random, path: str) -> Wire:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    ).encode()
    body = dumped(BODIES[path])
    chunk = b"%x\r\n%s\r\n" % (len(body), body)
    garbage = rng.choice(
        (
            *(chunk + b"0\r\n\r\n", b"zz\r\n" + body, b"-5\r\n" + body, b"ffffffffffffffffff\r\n" + body),
            *(
                b"%x;ext=%s\r\n%s\r\n0\r\n\r\n" % (len(body), MARKER.encode() * 50, body),
                chunk + b"0\r\nBad Trailer\r\n\r\n",
            ),
            *(
                b"5\r\n" + body + b"\r\n0\r\n\r\n",
                chunk + b"\r\n\r\n",
                rng.randbytes(200),
                chunk * 3 + b"0\r\n\r\n",
            ),
        )
    )
    return Wire(head + garbage, half_closed=True)


def lying_length(rng: random.Random, path: str) -> Wire:
    body = dumped(BODIES[path])
    length = rng.choice(
        (str(len(body) + 50), str(len(body) - 5), "-1", "1e3", "99999999999999999999", "", "0", MARKER)
    )
    extra = rng.choice(((), (b"Content-Length: 3",), (b"Transfer-Encoding: chunked",)))
    return Wire(http(path, body, length=length, headers=extra), half_closed=True)


def oversize(rng: random.Random, path: str) -> Wire:
    return Wire(http(path, dumped(BODIES[path] | {"user": MARKER * (LIMIT // len(MARKER) + 10)})))


def gone_early(rng: random.Random, path: str) -> Wire:
    data = http(path, dumped(BODIES[path] | {"stream": rng.choice((True, False))}))
    return Wire(data[: rng.randrange(1, len(data) + 1)], answered=False)


def half_closed(rng: random.Random, path: str) -> Wire:
    data = http(path, dumped(BODIES[path]))
    return Wire(data[: rng.randrange(1, len(data) + 1)], half_closed=True)


def pipelined(rng: random.Random, path: str) -> Wire:
    first = http(path, dumped(BODIES[path] | {"": 1})).replace(b"Connection: close\r\n", b"")
    return Wire(first * rng.randint(1, 5) + rng.choice((http(path, b"{"), MARKER.encode() + b"\r\n\r\n")))


def not_http(rng: random.Random, path: str) -> Wire:
    return Wire(
        rng.choice(
            (
                rng.randbytes(300),
                b"\x16\x03\x01\x02\x00" + rng.randbytes(200),
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            )
        )
        + MARKER.encode(),
        half_closed=True,
    )


Mutation = Callable[[random.Random, str], Wire]
MUTATIONS: tuple[Mutation, ...] = (
    *(
        field_of_wrong_type,
        wrong_weights,
        broken_json,
        wrong_encoding,
        odd_numbers_and_nesting,
        duplicate_keys,
    ),
    *(
        odd_headers,
        odd_targets,
        wrong_method,
        chunked_garbage,
        lying_length,
        oversize,
        gone_early,
        half_closed,
    ),
    *(pipelined, not_http),
)


@dataclass(frozen=True)
class Served:
    """A gateway in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    metrics_url: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def in_flight(self) -> float:
        text = httpx.get(self.metrics_url).text
        return float(text.split("\npreforch_requests_in_flight ")[1].split()[0])


@pytest.fixture(scope="module")
def served(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`preforch serve` with the real orchestrator of the tiny bundle and an engine that takes everything."""
    log = tmp_path_factory.mktemp("gateway") / "log"
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = free.getsockname()[1]
    with running_app(engine_app(FakeUpstream(any_answer))) as upstream, log.open("w") as errors:
        card = run_folder / "policy" / "wic" / "round-0" / "preference.json"
        options = ["--upstream", upstream, "--policy-card", card, "--port", 0, "--metrics-port", metrics]
        command = [
            sys.executable,
            "-m",
            "preforch_service",
            run_folder / "bundle",
            *options,
            "--max-body-bytes",
            LIMIT,
        ]
        with subprocess.Popen(
            [*map(str, command)], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            yield Served(process, url, f"http://127.0.0.1:{metrics}/metrics", log)
            process.terminate()
            assert process.wait(40) == 0


def exchange(port: int, wire: Wire) -> bytes:
    """Send the bytes; all that comes back until the server closes. A server that hangs is a TimeoutError."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        try:
            sock.sendall(wire.data)
            if not wire.answered:
                return b""
            if wire.half_closed:
                sock.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: sock.recv(65536), b""))
        except (ConnectionResetError, BrokenPipeError):
            # The server has answered and closed before it has read everything.
            return b""


def answers(raw: bytes) -> Iterator[tuple[int, dict[str, str], bytes]]:
    """The answers on a connection: status, headers, body."""
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(first.split()[1])
        if status == 100:
            raw = rest
            continue
        length = int(headers.get("content-length", len(rest)))
        yield status, headers, rest[:length]
        raw = rest[length:]


OPENAIS, ANTHROPICS = (
    ({"error"}, {"message", "type", "param", "code"}),
    ({"type", "error"}, {"type", "message"}),
)


def shape(error: dict[str, dict[str, object]]) -> tuple[set[str], set[str]]:
    """The keys of an error, outside and inside."""
    return set(error), set(error["error"])


def shapes_of(wire: Wire) -> tuple[tuple[set[str], set[str]], ...]:
    """The shapes that an error may have. What is no request to a route yet has no format, and is OpenAI's."""
    line = wire.data.partition(b"\r\n")[0]
    return (OPENAIS, ANTHROPICS) if b"/v1/messages" in line else (OPENAIS,)


def check(wire: Wire, raw: bytes) -> int:
    """The number of answers, each of which must be a documented one. Raises AssertionError."""
    count = 0
    for status, headers, body in answers(raw):
        count += 1
        assert status in EXPECTED, (wire, raw)
        assert "x-request-id" in headers, (wire, raw)
        assert (status == 204) == (wire.data.startswith(b"OPTIONS") and not body), (wire, raw)
        if status not in (200, 204) and not wire.data.startswith(b"HEAD"):
            assert shape(json.loads(body)) in shapes_of(wire), (wire, raw)
    return count


def test_2000_malformed_requests(served: Served) -> None:
    rng = random.Random(4)
    wires = [MUTATIONS[i % len(MUTATIONS)](rng, rng.choice(ROUTES)) for i in range(REQUESTS)]
    with ThreadPoolExecutor(WORKERS) as pool:
        raws = list(pool.map(lambda wire: exchange(served.port, wire), wires))
    counts = [check(wire, raw) for wire, raw in zip(wires, raws, strict=True)]
    # Half-closed connections and ones that are reset with an answer on the way may end without one, and no
    # others.
    silent = [wire for wire, count in zip(wires, counts, strict=True) if wire.answered and not count]
    assert all(wire.half_closed or len(wire.data) > LIMIT // 2 for wire in silent), silent
    assert len(silent) < REQUESTS // 5
    for path in ROUTES:
        answer = httpx.post(f"{served.url}{path}", json=BODIES[path])
        assert answer.status_code == 200, answer.text
    assert served.process.poll() is None
    assert wait_until(lambda: served.in_flight() == 0)
    log = served.log.read_text(encoding="utf-8")
    assert MARKER not in log
    assert not re.findall(r".* (?:ERROR|CRITICAL) .*|.*Traceback.*|.*File \".*", log)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_mutation_makes_different_requests(mutation: Mutation) -> None:
    made = {mutation(random.Random(seed), ROUTES[seed % len(ROUTES)]).data for seed in range(40)}
    assert len(made) >= 4
    assert any(MARKER.encode() in data for data in made)
