"""What the benchmarks of the service are made of: load generator, server processes, figures over rounds."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from load import Plan, load_generator
from processes import alive, wait_until
from rounds import mean, ratio
from servers import Server, ServerFailed, family, free_port, running
from texts import NewPrompts


class Stream(BaseHTTPRequestHandler):
    """/ok answers two events; anything else is missing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if self.path == "/ok" else 404)
        self.send_header("X-Preference-Source", "user")
        self.end_headers()
        self.wfile.write(b'data: {"n": 1}\n\ndata: {"usage": {"completion_tokens":7}}\n\n')

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stream) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_the_load_generator_counts_what_comes() -> None:
    with answering() as url, load_generator() as load:
        result = load(Plan(url=f"{url}/ok", bodies=({}, {}, {}), clients=2))
    assert (result.events, result.tokens, result.sources) == (6, 21, {"user": 3})
    assert len(result.first) == len(result.whole) == 3
    assert all(
        0 < first <= whole <= result.seconds for first, whole in zip(result.first, result.whole, strict=True)
    )


def test_an_error_is_fatal_and_not_a_fast_answer(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        answering() as url,
        load_generator() as load,
        pytest.raises(RuntimeError, match="ended with exit code 1"),
    ):
        load(Plan(url=f"{url}/missing", bodies=({},), clients=1))
    assert "/missing answered 404" in capfd.readouterr().err


def test_a_server_that_ends_is_shown_with_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with (
        pytest.raises(ServerFailed, match="no such model"),
        running("broken", command, port=free_port(), folder=tmp_path),
    ):
        pass


def test_a_server_is_measured_with_the_processes_below_it_and_nothing_is_left(tmp_path: Path) -> None:
    port = free_port()
    busy = "while True: pass"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {busy!r}])\n"
    parent += f"import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port={port})"
    with running("server", [sys.executable, "-c", parent], port=port, folder=tmp_path, health="/") as server:
        assert server.pid is not None
        below = family(server.pid)
        assert len(below) >= 3
        before = server.cpu()
        time.sleep(0.3)
        assert server.cpu() > before
    # The kernel takes a moment after SIGKILL.
    assert wait_until(lambda: not any(map(alive, below)))


def test_a_server_of_somebody_else_has_no_cpu_time() -> None:
    assert np.isnan(Server("there", "http://127.0.0.1:1", None).cpu())


def test_figures_over_rounds() -> None:
    assert ratio(np.array([2.0, 4.0, 8.0]), np.array([1.0, 2.0, 4.0])) == "2.00 [2.00, 2.00]"
    # Mean 2, standard deviation 1, t quantile 4.303 for 2 degrees of freedom.
    assert mean(np.array([1.0, 2.0, 3.0])) == "2.00 [-0.48, 4.48]"


def test_new_prompts_are_never_alike_and_the_same_for_a_seed() -> None:
    one, other = NewPrompts(3), NewPrompts(3)
    drawn = one.draw(300) + one.draw(300)
    assert len(set(drawn)) == 600
    assert drawn == other.draw(600)


def test_the_proxy_is_a_process_like_the_others() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "proxy.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True)
    assert "--kind {aiohttp-uvloop,aiohttp,httpx,httpx-uvloop}" in done.stdout
