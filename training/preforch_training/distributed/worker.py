"""A rank above 0: waits for jobs of rank 0, runs them, and ends with it.

In:  its place in the environment; as the program `python -m preforch_training.distributed.worker PARENT` also
     the process id of rank 0, whose child it is.
Out: an exit status. What it and its libraries print goes where its stderr goes.
"""

import os
import signal
import sys
import traceback

from preforch_models.child_process import die_with_parent
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, not exported

from preforch_training.distributed.config import Config
from preforch_training.distributed.group import Place, follow, joined, launched_place


def main(parent: int) -> int:
    """A child of rank 0; the exit status."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        return 1  # it died before this process was ready
    # Ctrl-C reaches the whole process group; what becomes of this process is for rank 0 to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    place = launched_place()
    assert place is not None, "rank 0 says where each child stands"
    store = TCPStore(place.address, place.port, place.size, is_master=False)
    return run(place, store)


def run(place: Place, store: TCPStore | None) -> int:
    """Follow rank 0 to the end. `store`: None where a launcher started all ranks."""
    # Rank 0 sends its settings with every job.
    with joined(place, Config(), store=store):
        try:
            follow()
        except BaseException:
            traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            # No clean end: that would wait for ranks that wait for this one.
            os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
