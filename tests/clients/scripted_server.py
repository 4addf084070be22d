"""A server that plays a script of faults: what it answers to each request is given as bytes, sound or not."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

WEIGHED = {"weights": {"helpful": 0.2, "harmless": 0.8}, "source": "orchestrator", "bundle": "abc"}


def answer(status: str = "200 OK", body: object = None, **headers: str) -> bytes:
    """A whole answer with a JSON body (default: one of /weights); `Retry_After` is the header Retry-After."""
    content = json.dumps(WEIGHED if body is None else body).encode()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    fields = {"Content-Type": "application/json", "Content-Length": str(len(content)), **given}
    return head(status, fields) + content


def head(status: str, headers: dict[str, str]) -> bytes:
    """The first lines of an answer. The connection ends with it."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


@dataclass
class Scripted:
    """Where it listens, and the bodies it got."""

    url: str
    bodies: list[bytes] = field(default_factory=list)


@contextmanager
def scripted_server(*script: bytes) -> Iterator[Scripted]:
    """Answers each request with the next bytes of the script, the last ones again and again, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen = Scripted(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=_play, args=(listener, script, seen.bodies))
        thread.start()
        try:
            yield seen
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _play(listener: socket.socket, script: tuple[bytes, ...], bodies: list[bytes]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            bodies.append(_body(connection))
            connection.sendall(script[min(len(bodies), len(script)) - 1])


def _body(connection: socket.socket) -> bytes:
    """The body of one request, whose length is announced."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    lines, _, body = received.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in lines.split(b"\r\n") if b"content-length" in line.lower()]
    length = int(lengths[0]) if lengths else 0
    while len(body) < length:
        body += connection.recv(65536)
    return body
