"""Runs an image (image.py) as `docker run --read-only --cap-drop ALL` does, in a network of its own.

In:  an image, the command's arguments, mounts.
Out: a `Container`, which runs commands inside and is stopped by its signal.
"""

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from image import Image
from sandbox import sandboxed

# Sends one request from inside: method, URL, headers and body are its arguments.
REQUEST = """
import json, sys, urllib.request
method, url, headers, body = sys.argv[1:]
request = urllib.request.Request(url, method=method, headers=json.loads(headers), data=body.encode() or None)
try:
    answer = urllib.request.urlopen(request, timeout=60)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, answer.read().decode()]))
"""


@dataclass
class Container:
    """A running container. `process` is its first process, `sandbox` what waits for it."""

    image: Image
    sandbox: subprocess.Popen[bytes]
    process: psutil.Process
    log: Path

    def execute(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """What `docker exec` does."""
        inside = [
            "nsenter",
            "--target",
            str(self.process.pid),
            "--user",
            "--preserve-credentials",
            "--mount",
            "--net",
        ]
        variables = [f"{name}={value}" for name, value in self.image.environment.items()]
        # env looks for the command on the image's path.
        words = [*inside, "--", "env", "-i", *variables, *command]
        return subprocess.run(words, capture_output=True, text=True, timeout=90, check=False)

    def request(
        self, method: str, url: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and body of an answer, asked for from inside."""
        sent = {"Content-Type": "application/json", **(headers or {})}
        text = "" if body is None else json.dumps(body)
        done = self.execute(["python", "-c", REQUEST, method, url, json.dumps(sent), text])
        assert done.returncode == 0, done.stderr
        status, answer = json.loads(done.stdout)
        return int(status), str(answer)

    def healthy(self, check: Sequence[str], *, seconds: float) -> bool:
        """Whether the health check passes in time."""
        deadline = time.monotonic() + seconds
        while self.execute(check).returncode:
            if time.monotonic() > deadline or self.sandbox.poll() is not None:
                return False
            time.sleep(0.3)
        return True

    def stop(self, *, seconds: float) -> int:
        """`docker stop`: the image's signal, then the exit code.

        Raises TimeoutExpired where Docker would kill.
        """
        self.process.send_signal(signal.Signals[self.image.stopsignal])
        return self.sandbox.wait(seconds)

    def said(self) -> str:
        """The container's log."""
        return self.log.read_text(encoding="utf-8")


@contextmanager
def running(
    image: Image,
    arguments: Sequence[str],
    *,
    mounts: Mapping[str, Path],
    log: Path,
    writable: Mapping[str, Path] | None = None,
    scratch: Sequence[str] = (),
    network_of: Container | None = None,
) -> Iterator[Container]:
    """A container from start to end. `mounts` are read-only, `scratch` are folders in memory."""
    command = sandboxed(
        [*image.entrypoint, *arguments],
        environment=image.environment,
        workdir=image.workdir,
        user=image.user,
        readonly=_folders(image, mounts),
        writable=writable,
        scratch=scratch,
        network_of=network_of.process.pid if network_of else None,
    )
    with log.open("wb") as output:
        sandbox = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield Container(image, sandbox, _first_process(sandbox, log), log)
    finally:
        sandbox.kill()
        sandbox.wait()


def _folders(image: Image, mounts: Mapping[str, Path]) -> dict[str, Path]:
    own = {f"/{folder.name}": folder for folder in image.files.iterdir()}
    for place, path in mounts.items():
        if f"/{Path(place).parts[1]}" in own:
            # An engine makes the place of a mount in the image, before that becomes read-only.
            image.at(place).parent.mkdir(parents=True, exist_ok=True)
            image.at(place).mkdir(exist_ok=True) if path.is_dir() else image.at(place).touch()
    return own | dict(mounts)


def _first_process(sandbox: subprocess.Popen[bytes], log: Path) -> psutil.Process:
    """The program in the sandbox, once it is that and no longer bubblewrap."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and sandbox.poll() is None:
        for child in psutil.Process(sandbox.pid).children():
            if child.name() != "bwrap":
                return child
        time.sleep(0.02)
    raise RuntimeError(f"the container did not start: {log.read_text(encoding='utf-8')}")
