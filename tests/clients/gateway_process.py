"""`preforch serve BUNDLE --weights-only` as a process that can be killed and started again at its address."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class GatewayProcess:
    """A real gateway without an engine, on one port."""

    def __init__(self, bundle: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            port, metrics = (str(free.getsockname()[1]) for free in (one, two))
        ports = ("--port", port, "--metrics-port", metrics)
        self._command = [
            sys.executable,
            "-m",
            "preforch_service",
            str(bundle),
            "--weights-only",
            *ports,
            *options,
        ]
        self.url = f"http://127.0.0.1:{port}"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("ready at ")

    def kill(self) -> None:
        """SIGKILL: requests in flight get no answer."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def gateway_process(bundle: Path, *options: str) -> Iterator[GatewayProcess]:
    """A running one, killed at the end."""
    gateway = GatewayProcess(bundle, *options)
    try:
        yield gateway
    finally:
        gateway.kill()
