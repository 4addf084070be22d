"""The command as a process."""

import subprocess
import sys


def preforch(
    *arguments: str, stdin: str = "", blocked: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the command as a process, with packages that cannot be imported."""
    block = f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))"
    code = f"{block}; from preforch_cli.main import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
