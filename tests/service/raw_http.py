"""HTTP as bytes on a socket, for what clients of HTTP do not do by themselves."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit


@contextmanager
def connection(url: str) -> Iterator[socket.socket]:
    """To a gateway at this URL."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as sock:
        yield sock


def raw_answer(url: str, *pieces: bytes) -> tuple[int, dict[str, Any]]:
    """Status and JSON of the first answer to bytes sent as they are."""
    with connection(url) as sock:
        for piece in pieces:
            sock.sendall(piece)
        return read_answer(sock)


def read_answer(sock: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and JSON of the next answer."""
    with sock.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = dict(line.lower().split(b": ", 1) for line in iter(file.readline, b"\r\n"))
        return status, json.loads(file.read(int(headers[b"content-length"])))


HEAD = b"POST /weights HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"prompt": "x"}'


def everything(sock: socket.socket) -> bytes:
    """All that comes until the server closes; sending nothing more."""
    return b"".join(iter(lambda: sock.recv(65536), b""))
