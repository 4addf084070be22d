"""Runs the engine in a session of its own, so that nothing of it outlives the gateway.

In:  `python -m preforch_service.engine.launcher PARENT_PID COMMAND...`. Out: the command runs; when the
     parent dies (also by SIGKILL), when SIGTERM has had its time, or when the command ends, every process of
     the session is killed.

vLLM starts processes of its own, which do not notice that their parent was killed. The kernel tells only a
direct child of the gateway (PR_SET_PDEATHSIG), so this process stays between the two and kills the whole
process group.
"""

import os
import signal
import subprocess
import sys
from types import FrameType

from preforch_models.child_process import die_with_parent

GRACE_SECONDS = 10.0


def kill_group(*_: object) -> None:
    """Kill every process of this group, this one included."""
    os.killpg(0, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """Start the command and stay until it, or the parent, is gone."""
    parent, command = int(arguments[0]), arguments[1:]
    os.setsid()
    signal.signal(signal.SIGUSR1, kill_group)
    die_with_parent(signal.SIGUSR1)
    if os.getppid() != parent:
        return
    child = subprocess.Popen(command, preexec_fn=lambda: die_with_parent(signal.SIGKILL))

    def stop(_number: int, _frame: FrameType | None) -> None:
        child.terminate()
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    signal.signal(signal.SIGALRM, kill_group)
    signal.signal(signal.SIGTERM, stop)
    code = child.wait()
    print(f"engine exited with code {code}", file=sys.stderr, flush=True)
    kill_group()


if __name__ == "__main__":
    main(sys.argv[1:])
