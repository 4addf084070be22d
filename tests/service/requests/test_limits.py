"""What one request may ask for: every limit over a real port, one below and one above."""

import json
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fakes import FakeUpstream, make_gateway, running
from preforch_models.bundle import Bundle
from preforch_service.errors import BadRequest
from preforch_service.requests.body import check_shape
from preforch_service.requests.limits import RequestLimits
from raw_http import BODY, HEAD, connection, raw_answer, read_answer

JSON = {"content-type": "application/json"}
LIMITS: dict[str, Any] = {
    "max_n": 4,
    "max_tokens": 100,
    "max_stop": 3,
    "max_messages": 5,
    "max_inputs": 6,
    "max_characters": 200,
    "max_depth": 10,
    "max_body_bytes": 4000,
    "max_header_bytes": 4096,
    "receive_timeout": 1.0,
}


@pytest.fixture(scope="module")
def url(bundle: Bundle) -> Iterator[str]:
    with running(make_gateway(bundle, upstream=FakeUpstream(), **LIMITS)) as url:
        yield url


def turns(count: int, text: str = "x") -> list[dict[str, str]]:
    return [{"role": "user", "content": text}] * count


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


CHAT, COMPLETION, WEIGHTS = "/v1/chat/completions", "/v1/completions", "/weights"


@pytest.mark.parametrize(
    ("path", "most", "more", "param"),
    [
        (CHAT, {"messages": turns(1), "n": 4}, {"messages": turns(1), "n": 5}, "n"),
        ("/generate", {"prompt": "x", "n": 4}, {"prompt": "x", "n": 5}, "n"),
        (COMPLETION, {"prompt": "x", "n": 4.0}, {"prompt": "x", "n": 4.5}, "n"),
        (COMPLETION, {"prompt": "x", "max_tokens": 100}, {"prompt": "x", "max_tokens": 101}, "max_tokens"),
        (
            CHAT,
            {"messages": turns(1), "max_completion_tokens": 100},
            {"messages": turns(1), "max_completion_tokens": 101},
            "max_completion_tokens",
        ),
        (COMPLETION, {"prompt": "x", "stop": ["x"] * 3}, {"prompt": "x", "stop": ["x"] * 4}, "stop"),
        (
            COMPLETION,
            {"prompt": "x", "bad_words": ["x"] * 3},
            {"prompt": "x", "bad_words": ["x"] * 4},
            "bad_words",
        ),
        (CHAT, {"messages": turns(5)}, {"messages": turns(6)}, "messages"),
        (WEIGHTS, {"messages": turns(5)}, {"messages": turns(6)}, "messages"),
        (WEIGHTS, {"inputs": ["a", turns(5)]}, {"inputs": ["a", turns(6)]}, "inputs[1]"),
        (WEIGHTS, {"inputs": ["a"] * 6}, {"inputs": ["a"] * 7}, "inputs"),
        (WEIGHTS, {"inputs": ["a" * 100] * 2}, {"inputs": ["a" * 67] * 3}, "inputs"),
        (COMPLETION, {"prompt": "é" * 200}, {"prompt": "é" * 201}, "prompt"),
        (CHAT, {"messages": turns(2, "x" * 70)}, {"messages": turns(2, "x" * 90)}, "messages"),
    ],
)
def test_each_limit_allows_the_most_and_refuses_more(
    url: str, path: str, most: dict[str, object], more: dict[str, object], param: str
) -> None:
    assert httpx.post(url + path, json=most).status_code == 200
    error = error_of(httpx.post(url + path, json=more), 400)
    assert (error["param"], error["code"]) == (param, "limit_exceeded")
    assert "at most" in error["message"]


def test_tool_definitions_count_as_text(url: str) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"x" * 200: 1}}}
    assert (
        error_of(httpx.post(url + CHAT, json={"messages": turns(1), "tools": [tool]}), 400)["param"]
        == "tools"
    )


@pytest.mark.parametrize(
    ("raw", "depth"),
    [
        (b"[" * 11 + b"]" * 11, 11),
        (b'{"a":' * 11 + b"1" + b"}" * 11, 11),
        (b"[" * 3000, 3000),
        (b'["[[[[[[[[[[", {"]]]\\"[[[[[": ' + b"[" * 9, 11),
    ],
)
def test_deep_json_is_refused_without_parsing(url: str, raw: bytes, depth: int) -> None:
    error = error_of(httpx.post(url + WEIGHTS, content=raw, headers=JSON), 400)
    assert error["code"] == "invalid_json"
    assert f"{depth} levels, at most 10" in error["message"]


def shape(value: object, **limits: int) -> None:
    check_shape(value if isinstance(value, bytes) else json.dumps(value).encode(), RequestLimits(**limits))


def test_brackets_in_strings_and_side_by_side_are_not_depth() -> None:
    deep_in_text: dict[str, object] = {"a": "[" * 100, 'b"\\': ["\\", "{{{" * 20, '"[[' * 40]}
    shape([[deep_in_text]] * 3, max_depth=8)
    shape([[]] * 1000, max_depth=8)
    for _ in range(8):
        deep_in_text = {"c": deep_in_text}
    with pytest.raises(BadRequest, match="10 levels, at most 8"):
        shape(deep_in_text, max_depth=8)


def test_many_small_values_are_refused_without_parsing_and_commas_in_text_are_not_values() -> None:
    shape([{}] * 50, max_values=100, max_depth=200)
    shape(["," * 5000 + "[" * 5000] * 99, max_values=100)
    values: tuple[object, ...] = ([{}] * 51, [0] * 101, {"a": [[1, 2]] * 50}, b"[" + b"{}," * 51)
    for value in values:
        with pytest.raises(BadRequest, match="values, at most 100") as refused:
            shape(value, max_values=100)
        assert refused.value.code == "limit_exceeded"


@pytest.mark.parametrize(
    ("name", "value"), [("user", "x"), ("stop", ["x"]), ("structured_outputs", {"choice": ["x"]})]
)
def test_text_for_the_engine_counts_as_text(url: str, name: str, value: object) -> None:
    long = json.loads(json.dumps(value).replace("x", "x" * 201))
    error = error_of(httpx.post(url + COMPLETION, json={"prompt": "p", name: long}), 400)
    assert (error["param"], error["code"]) == (name, "limit_exceeded")


def test_bad_words_are_few_characters_for_the_engine_makes_many_tokens_of_them(bundle: Bundle) -> None:
    with running(make_gateway(bundle, upstream=FakeUpstream())) as url:
        for length, status in ((250, 200), (251, 400)):
            answer = httpx.post(url + COMPLETION, json={"prompt": "p", "bad_words": ["x" * length] * 2})
            assert answer.status_code == status


def test_other_encodings_than_utf8_are_refused(url: str) -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        content = '{"prompt": "x"}'.encode(encoding)
        assert (
            error_of(httpx.post(url + WEIGHTS, content=content, headers=JSON), 400)["code"] == "invalid_json"
        )
    assert (
        httpx.post(url + WEIGHTS, content='{"prompt": "x"}'.encode("utf-8-sig"), headers=JSON).status_code
        == 200
    )


def test_chunked_bodies_are_read_and_limited(url: str) -> None:
    def pieces(count: int) -> Iterator[bytes]:
        yield b'{"prompt": "x"'
        yield from [b" " * 1000] * count
        yield b"}"

    assert httpx.post(url + WEIGHTS, content=pieces(3), headers=JSON).status_code == 200
    error = error_of(httpx.post(url + WEIGHTS, content=pieces(4), headers=JSON), 413)
    assert (error["code"], "at most 4000" in error["message"]) == ("body_too_large", True)


def test_a_length_over_the_limit_is_refused_before_the_body_comes(url: str) -> None:
    status, body = raw_answer(url, HEAD + b"Content-Length: 4001\r\n\r\n")
    assert (status, "4001 bytes" in body["error"]["message"]) == (413, True)
    status, _ = raw_answer(url, HEAD + b"Content-Length: 4001\r\nExpect: 100-continue\r\n\r\n")
    assert status == 413


def test_a_body_shorter_than_announced_is_waited_for_a_while(url: str) -> None:
    status, body = raw_answer(url, HEAD + b"Content-Length: 99\r\n\r\n" + BODY)
    assert (status, body["error"]["code"]) == (408, "request_timeout")


def test_a_body_longer_than_announced_is_cut_there(url: str) -> None:
    status, body = raw_answer(url, HEAD + b"Content-Length: 15\r\n\r\n" + BODY + b"GARBAGE")
    assert status in (200, 400)
    assert "weights" in body or body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "lengths",
    [
        b"Content-Length: -1\r\n",
        b"Content-Length: x\r\n",
        b"Content-Length: 15\r\nContent-Length: 16\r\n",
        b"Content-Length: 15\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, x\r\n",
    ],
)
def test_lengths_that_contradict_are_a_400(url: str, lengths: bytes) -> None:
    status, body = raw_answer(url, HEAD + lengths + b"\r\n" + BODY)
    assert (status, set(body["error"])) == (400, {"message", "type", "param", "code"})


@pytest.mark.parametrize(
    "start", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n"]
)
def test_what_is_not_http_is_a_400_in_the_same_shape(url: str, start: bytes) -> None:
    status, body = raw_answer(url, start)
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /objectives HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 5000 + b"\r\n\r\n",
        b"GET /objectives HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: a\r\n" * 2000 + b"\r\n",
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /objectives?" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_heads_over_the_limit_are_a_431(url: str, head: bytes) -> None:
    status, body = raw_answer(url, head)
    assert (status, "4096 bytes" in body["error"]["message"]) == (431, True)


def test_a_head_that_never_ends_is_a_431_or_a_408(url: str) -> None:
    with connection(url) as sock:
        sock.sendall(b"GET /objectives HTTP/1.1\r\nX-A: ")
        for _ in range(3):
            sock.sendall(b"a" * 2500)
            time.sleep(0.05)
        assert read_answer(sock)[0] == 431
    assert raw_answer(url, b"GET /objectives HTTP/1.1\r\nX-A: a")[0] == 408


def test_a_head_that_comes_byte_by_byte_has_no_more_time(url: str) -> None:
    with connection(url) as sock:
        sock.sendall(b"GET /objectives HTTP/1.1\r\nX-A: ")
        for _ in range(20):
            if select.select([sock], [], [], 0.2)[0]:
                break
            sock.sendall(b"a")
        else:
            pytest.fail("no answer after four times the receive timeout")
        assert read_answer(sock)[0] == 408


def test_a_large_body_in_one_piece_with_its_head_is_not_a_large_head(url: str) -> None:
    body = b'{"prompt": "x"' + b" " * 3000 + b"}"
    assert raw_answer(url, HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)[0] == 200


def test_a_limit_of_tokens_is_also_the_default(bundle: Bundle) -> None:
    upstream = FakeUpstream()
    with running(make_gateway(bundle, upstream=upstream, max_tokens=100)) as url:
        httpx.post(url + COMPLETION, json={"prompt": "x"})
        httpx.post(url + CHAT, json={"messages": turns(1), "max_completion_tokens": 7})
        httpx.post(url + "/generate", json={"prompt": "x", "max_tokens": None})
    sent = [(body.get("max_tokens"), body.get("max_completion_tokens")) for body in upstream.bodies]
    assert sent == [(100, None), (None, 7), (100, None)]


@pytest.mark.parametrize(("name", "path"), [("n", CHAT), ("max_tokens", COMPLETION), ("max_tokens", CHAT)])
@pytest.mark.parametrize("given", ["4000", [5], {}])
def test_a_limit_is_not_passed_by_another_type(url: str, name: str, path: str, given: object) -> None:
    text: dict[str, object] = {"prompt": "x"} if path == COMPLETION else {"messages": turns(1)}
    error = error_of(httpx.post(url + path, json=text | {name: given}), 400)
    assert error["param"] == name


def test_strings_that_do_not_end_are_read_once() -> None:
    with pytest.raises(BadRequest, match="65 levels"):
        shape(b"[" * 65 + b'"' + b'\\"' * 2_000_000)


def send_for_ever(sock: socket.socket, piece: bytes) -> None:
    for _ in range(10_000):
        sock.sendall(piece)


def test_trailers_have_an_end(url: str) -> None:
    with connection(url) as sock:
        sock.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
        trailer = b"a: " + b"b" * 1000 + b"\r\n"
        with pytest.raises(ConnectionError):
            send_for_ever(sock, trailer)


def test_trailers_that_are_too_large_are_named(url: str) -> None:
    with connection(url) as sock:
        sock.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
        time.sleep(0.2)  # not in one piece with the head
        sock.sendall((b"a: " + b"b" * 1000 + b"\r\n") * 5)
        status, body = read_answer(sock)
    message = "trailers and the frames of chunks are larger than 4096 bytes"
    assert (status, body["error"]["message"]) == (431, message)


def test_trailers_of_several_requests_on_one_connection_do_not_add_up(url: str) -> None:
    trailer = b"a: " + b"b" * 1500 + b"\r\n"
    with connection(url) as sock:
        for _ in range(4):
            sock.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            time.sleep(0.2)  # not in one piece with the head
            sock.sendall(b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY) + trailer + b"\r\n")
            assert read_answer(sock)[0] == 200


def test_small_chunks_are_no_trailers(url: str) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"prompt": "x"' + b" " * 2000 + b"}")
    assert raw_answer(url, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")[0] == 200


@pytest.mark.parametrize("stray", [b"\r\n", b"\n"])
def test_a_byte_after_an_answer_does_not_keep_the_connection_open(url: str, stray: bytes) -> None:
    with connection(url) as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(sock)[0] == 200
        sock.sendall(stray)
        assert sock.recv(1) == b""
