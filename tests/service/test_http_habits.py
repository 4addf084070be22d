"""What HTTP clients of all kinds count on: HEAD, OPTIONS, a slash at the end of a path, compressed bodies."""

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Iterator

import httpx
import pytest
from fakes import any_answer
from preforch_models.bundle import Bundle
from preforch_service.keys import ApiKey, Keys, digest_of
from processes import wait_until
from raw_http import connection, read_answer
from served import HELLO, Served, error_of, serve


@pytest.fixture(scope="module")
def served(bundle: Bundle) -> Iterator[Served]:
    yield from serve(bundle)


@pytest.mark.parametrize(
    "path",
    ["/", "/objectives", "/v1/models", "/v1/models/tiny", "/livez", "/readyz", "/openapi.json", "/docs"],
)
def test_head_is_get_without_a_body(served: Served, path: str) -> None:
    get, head = served.client.get(path), served.client.head(path)
    own = {"x-request-id", "date"}
    assert (head.status_code, head.content) == (get.status_code, b"") == (200, b"")
    assert {name: value for name, value in head.headers.items() if name not in own} == {
        name: value for name, value in get.headers.items() if name not in own
    }


def test_options_say_what_a_path_allows(served: Served) -> None:
    for path, allow in {
        "/v1/chat/completions": "OPTIONS, POST",
        "/v1/models/": "GET, HEAD, OPTIONS",
        "/livez": "GET, HEAD, OPTIONS",
        "/weights": "OPTIONS, POST",
        **dict.fromkeys(("/v1/responses", "/v1/messages", "/v1/messages/count_tokens/"), "OPTIONS, POST"),
    }.items():
        response = served.client.options(path)
        assert (response.status_code, response.content) == (204, b""), path
        assert response.headers["Allow"] == allow
    error_of(served.client.options("/nothing"), 404)
    for path in ("/weights", "/v1/responses", "/v1/messages"):
        head = served.client.head(path)
        assert (head.status_code, head.headers["Allow"]) == (405, "OPTIONS, POST")


def test_options_of_the_whole_server_say_what_any_path_allows(served: Served) -> None:
    with connection(str(served.client.base_url)) as sock:
        sock.sendall(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = sock.recv(65536)
        assert head.startswith(b"HTTP/1.1 204 ")
        assert b"\r\nallow: GET, HEAD, OPTIONS, POST\r\n" in head
        for other in (b"OPTIONS /*", b"GET *"):
            sock.sendall(other + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_answer(sock)[0] == 404


def test_a_slash_at_the_end_of_a_path_is_answered_body_included(served: Served) -> None:
    for path in ("/weights/", "/v1/chat/completions/", "/generate/"):
        body = HELLO if "chat" in path else {"prompt": "x"}
        assert served.post(path, body).status_code == 200
    served.upstream.answer = any_answer
    for path in ("/v1/responses/", "/v1/messages/", "/v1/messages/count_tokens/"):
        conversation = {"input": "x"} if "responses" in path else HELLO
        assert served.post(path, conversation).json()["preference"]["applied"] is True
    assert served.post("/v1/messages/", {}).json()["type"] == "error", "the shape of its format"
    for path in ("/objectives/", "/v1/models/", "/v1/models/tiny/", "/livez/"):
        assert served.client.get(path).status_code == 200
    error_of(served.client.get("/docs/"), 404)  # its links would lead nowhere
    registry = served.gateway.metrics.registry
    labels = {"route": "/v1/chat/completions", "status": "200"}
    assert wait_until(lambda: registry.get_sample_value("preforch_requests_total", labels) == 1)


def test_a_slash_at_the_end_of_a_path_opens_no_door(bundle: Bundle) -> None:
    keys = Keys(keys=(ApiKey(name="a", sha256=digest_of("k")),))
    for served in serve(bundle, keys=keys):
        for path in ("/objectives/", "/v1/models/", "/v1/models/tiny/", "/docs/"):
            assert served.client.get(path).status_code == 401
        assert served.client.post("/admin/reload/").status_code == 403
        assert served.client.get("/livez/").status_code == 200


def compressed(served: Served, content: bytes | Iterator[bytes], encoding: str = "gzip") -> httpx.Response:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    return served.client.post("/v1/chat/completions", content=content, headers=headers)


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def test_a_compressed_body_is_read(served: Served) -> None:
    sent = gzip.compress(json.dumps(HELLO | {"user": "x" * 3000}).encode())
    for encoding in ("gzip", "GZIP", "x-gzip", "identity, gzip"):
        assert compressed(served, sent, encoding).status_code == 200
    assert compressed(served, pieces(sent, 7)).status_code == 200
    assert [body["user"] for body in served.upstream.bodies[-5:]] == ["x" * 3000] * 5
    assert compressed(served, json.dumps(HELLO).encode(), "identity").status_code == 200


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "gzip, br", "x"])
def test_other_encodings_are_a_415_that_names_the_one_that_is_read(served: Served, encoding: str) -> None:
    response = compressed(served, gzip.compress(json.dumps(HELLO).encode()), encoding)
    error = error_of(response, 415)
    assert f"must be gzip or none, got {encoding!r}" in error["message"]
    assert response.headers["Accept-Encoding"] == "gzip, identity"


EMPTY = gzip.compress(b"{}", mtime=0)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{}", "cannot be inflated"),
        (zlib.compress(b"{}"), "cannot be inflated"),
        (EMPTY[:-8] + b"sums" + EMPTY[-4:], "cannot be inflated"),
        (EMPTY[:-1], "breaks off"),
        (b"", "breaks off"),
        (EMPTY + b"x", "something follows"),
        (EMPTY * 2, "something follows"),
    ],
)
def test_what_is_no_gzip_is_a_400(served: Served, content: bytes, why: str) -> None:
    error = error_of(compressed(served, content), 400)
    assert (error["code"], why in error["message"]) == ("invalid_gzip", True)


def test_the_limit_holds_for_what_a_body_inflates_to_and_for_what_is_sent(bundle: Bundle) -> None:
    def body(size: int) -> bytes:
        return json.dumps(HELLO).encode().ljust(size)

    for served in serve(bundle, max_body_bytes=2000):
        assert compressed(served, gzip.compress(body(2000))).status_code == 200
        error = error_of(compressed(served, gzip.compress(body(2001))), 413)
        assert (error["code"], "at most 2000" in error["message"]) == ("body_too_large", True)
        stored = gzip.compress(body(1990), compresslevel=0)
        assert len(stored) > 2000
        assert compressed(served, stored).status_code == 413
        assert compressed(served, pieces(stored, 100)).status_code == 413


def test_a_bomb_is_stopped_while_it_inflates(served: Served) -> None:
    squeeze = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    bomb = b"".join(squeeze.compress(b" " * 2**20) for _ in range(64)) + squeeze.flush()
    assert len(bomb) < 100_000
    tracemalloc.start()
    error_of(compressed(served, bomb), 413)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * served.gateway.settings.max_body_bytes
