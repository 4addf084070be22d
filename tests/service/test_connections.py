"""What follows what on one connection: offers to upgrade it, expectations, requests that do not wait."""

import time
from collections.abc import Iterator
from itertools import pairwise

import httpx
import pytest
from fakes import FakeUpstream, make_gateway, running
from preforch_models.bundle import Bundle
from raw_http import BODY, HEAD, connection, everything, raw_answer, read_answer


@pytest.fixture(scope="module")
def url(bundle: Bundle) -> Iterator[str]:
    gateway = make_gateway(bundle, upstream=FakeUpstream(), max_body_bytes=4000, receive_timeout=1.0)
    with running(gateway) as url:
        yield url


def test_a_connection_serves_several_requests(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        for _ in range(3):
            assert client.post("/weights", json={"prompt": "x" * 200}).status_code == 200
            time.sleep(0.5)  # together longer than receive_timeout, which is for each request anew


UPGRADE = b"Connection: Upgrade\r\nUpgrade: "
SMUGGLED = b"GET /objectives HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: smuggled\r\n\r\n"


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c", b"foo\r\nUpgrade: h2c"])
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_an_upgrade_is_not_made(url: str, version: bytes, upgrade: bytes) -> None:
    head = b"GET /objectives " + version + b"\r\nHost: localhost\r\n" + UPGRADE + upgrade + b"\r\n\r\n"
    with connection(url) as sock:
        sock.sendall(head)
        assert read_answer(sock)[0] == 200
        if version == b"HTTP/1.1":
            sock.sendall(SMUGGLED)  # a request of its own: the first one has been answered
            assert read_answer(sock)[0] == 200
        else:
            assert sock.recv(1) == b""


@pytest.mark.parametrize("pause", [0, 0.05])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("start", [HEAD, b"GET /objectives HTTP/1.1\r\nHost: localhost\r\n"])
def test_a_body_after_an_upgrade_never_becomes_a_request(
    url: str, start: bytes, chunked: bool, pause: float
) -> None:
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(SMUGGLED)
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED) if chunked else SMUGGLED
    with connection(url) as sock:
        sock.sendall(start + UPGRADE + b"foo\r\n" + length + b"\r\n\r\n")
        time.sleep(pause)
        for half in (body[:9], body[9:]):
            sock.sendall(half)
            time.sleep(pause)
        status, answer = read_answer(sock)
        assert status == (400 if start == HEAD else 200)
        assert start != HEAD or answer["error"]["code"] == "invalid_json"
        sock.sendall(HEAD + b"Connection: close\r\nContent-Length: 15\r\n\r\n" + BODY)
        rest = everything(sock)
    assert rest.startswith(b"HTTP/1.1 200")
    assert rest.count(b"HTTP/1.1") == 1
    assert b"smuggled" not in rest


@pytest.mark.parametrize(
    "lengths",
    [
        b"Content-Length: 15\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 15\r\nContent-Length: 16\r\n",
        b"X: a\r\n b\r\nContent-Length: +15\r\n",
    ],
)
def test_an_upgrade_makes_no_length_right(url: str, lengths: bytes) -> None:
    status, body = raw_answer(url, HEAD + UPGRADE + b"h2c\r\n" + lengths + b"\r\n" + BODY)
    assert (status, "not a valid HTTP request" in body["error"]["message"]) == (400, True)


JAVA = (
    b"POST /weights HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 15\r\n"
    b"Host: localhost\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAABgAGAAA\r\nUpgrade: h2c\r\n"
    b"User-Agent: Java-http-client/21\r\nContent-Type: application/json\r\n\r\n"
)


@pytest.mark.parametrize("cuts", [(), (len(JAVA),), (5, len(JAVA) - 2, len(JAVA) + 3)], ids=str)
def test_what_javas_client_sends_is_answered_and_so_is_what_it_sends_next(
    url: str, cuts: tuple[int, ...]
) -> None:
    sent = JAVA + BODY
    with connection(url) as sock:
        for _ in range(3):
            for start, end in pairwise((0, *cuts, len(sent))):
                sock.sendall(sent[start:end])
                time.sleep(0.03)
            status, body = read_answer(sock)
            assert (status, body["source"]) == (200, "orchestrator")


def test_a_tunnel_is_refused(url: str) -> None:
    status, body = raw_answer(url, b"CONNECT example:80 HTTP/1.1\r\nHost: example:80\r\n\r\n" + SMUGGLED)
    assert (status, "not a proxy" in body["error"]["message"]) == (400, True)


EXPECT = b"Expect: 100-continue\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_client_that_asks_whether_to_send_its_body_is_told_to_and_may_ask_again(url: str) -> None:
    with connection(url) as sock:
        for _ in range(2):
            sock.sendall(HEAD + EXPECT + b"Content-Length: 15\r\n\r\n")
            assert sock.recv(len(CONTINUE)) == CONTINUE
            sock.sendall(BODY)
            assert read_answer(sock)[0] == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (HEAD + EXPECT + b"Content-Length: 4001\r\n\r\n", 413),
        (HEAD.replace(b"application/json", b"text/plain") + EXPECT + b"Content-Length: 15\r\n\r\n", 415),
        (HEAD.replace(b"localhost", b"evil") + EXPECT + b"Content-Length: 15\r\n\r\n", 400),
        (HEAD + b"Expect: a-miracle\r\nContent-Length: 15\r\n\r\n", 417),
    ],
)
def test_a_client_whose_body_is_not_wanted_is_told_so_and_its_next_bytes_are_not_read(
    url: str, head: bytes, status: int
) -> None:
    with connection(url) as sock:
        sock.sendall(head)
        raw = everything(sock)
    assert raw.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in raw.lower()
    assert raw.count(b"HTTP/1.1") == 1


def test_a_client_too_old_for_an_answer_100_gets_none(url: str) -> None:
    old = HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + EXPECT + b"Content-Length: 15\r\n\r\n" + BODY
    with connection(url) as sock:
        sock.sendall(old)
        assert read_answer(sock)[0] == 200


def test_a_request_that_does_not_wait_for_the_answer_is_not_read(url: str) -> None:
    with connection(url) as sock:
        sock.sendall(HEAD + b"Content-Length: 15\r\n\r\n" + BODY + SMUGGLED)
        raw = everything(sock)
    assert raw.startswith(b"HTTP/1.1 200")
    assert b"smuggled" not in raw
    assert raw.count(b"HTTP/1.1") == 1
