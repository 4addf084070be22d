"""No process of an engine outlives the gateway, however that ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import alive, wait_until

# A stand-in for vLLM: a process that has started another one, which nobody would tell to end.
ENGINE = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}\\n")
time.sleep(float(sys.argv[2]))
"""
# A stand-in for the gateway: starts the launcher and waits.
GATEWAY = """
import os, subprocess, sys, time
launcher = [sys.executable, "-m", "preforch_service.engine.launcher", str(os.getpid())]
engine = subprocess.Popen([*launcher, sys.executable, "-c", *sys.argv[1:]])
print(engine.pid, flush=True)
engine.wait()
"""


@pytest.mark.parametrize("end", ["gateway killed", "launcher killed", "launcher terminated", "engine ended"])
def test_everything_ends(tmp_path: Path, end: str) -> None:
    pids = tmp_path / "pids"
    seconds = "1" if end == "engine ended" else "600"
    command = [sys.executable, "-c", GATEWAY, ENGINE, str(pids), seconds]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        launcher = int(gateway.stdout.readline())
        assert wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"))
        engine, grandchild = map(int, pids.read_text().split())
        assert os.getpgid(grandchild) == launcher
        if end == "gateway killed":
            gateway.kill()
        elif end == "launcher terminated":
            os.kill(launcher, signal.SIGTERM)
        elif end == "launcher killed":
            os.kill(launcher, signal.SIGKILL)
            # Then the gateway kills what is left of the group, as `Engine` does.
            assert wait_until(lambda: not alive(engine))
            os.killpg(launcher, signal.SIGKILL)
        assert wait_until(lambda: not any(map(alive, (launcher, engine, grandchild))))
