"""A child is told when its parent is gone, however that ended."""

import signal
import subprocess
import sys

import pytest
from preforch_models.child_process import die_with_parent

# Ends by itself after a while: a test that fails leaves nothing behind.
CHILD = """
import signal, sys, time
from preforch_models.child_process import die_with_parent

def end(number, frame):
    print("told", flush=True)
    sys.exit()

signal.signal(signal.SIGUSR1, end)
die_with_parent(signal.SIGUSR1)
print("ready", flush=True)
time.sleep(20)
"""
PARENT = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]).wait()"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_gets_its_signal_when_its_parent_is_gone(end: signal.Signals) -> None:
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.send_signal(end)
        # Up to the end of the child, which holds the pipe as well.
        assert parent.stdout.read() == "told\n"


def test_a_signal_that_the_kernel_does_not_know_is_an_error() -> None:
    with pytest.raises(OSError, match="PR_SET_PDEATHSIG"):
        die_with_parent(9999)
