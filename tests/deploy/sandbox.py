"""Runs a command as in a container, with bubblewrap: own file system, user, network.

In:  a command, and folders by the path at which it sees them. Out: the command line that runs it.

The root file system has this machine's programs, read-only, and those folders. A build (`root`) sees all of
this machine, may make further top-level folders, has a /tmp and this machine's network; anything else has
none of these: its network is its own, or that of the process `network_of`.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

# Made anew for every sandbox.
OWN = {"proc", "dev", "tmp"}
# What programs are made of, all that a container sees of this machine. Its Python may lie elsewhere.
SYSTEM = {"bin", "etc", "lib", "lib32", "lib64", "sbin", "sys", "usr", Path(sys.base_prefix).parts[1]}


def machine_environment() -> dict[str, str]:
    """The environment of the base image: where its Python is."""
    return {"PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/"}


def package_index_environment() -> dict[str, str]:
    """How this machine reaches its package index.

    No option of pip that says what is installed is among it.
    """
    wanted = (
        "PIP_CERT",
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
        "PIP_FIND_LINKS",
        "PIP_DEFAULT_TIMEOUT",
        "HOME",
    )
    names = {name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("SSL_CERT")}
    return {name: os.environ[name] for name in {*wanted, *names} if name in os.environ}


def sandboxed(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    workdir: str,
    user: str,
    root: Path | None = None,
    writable: Mapping[str, Path] | None = None,
    readonly: Mapping[str, Path] | None = None,
    scratch: Iterable[str] = (),
    network_of: int | None = None,
) -> list[str]:
    """The bwrap command line. It leaves empty entries in `root`, which `top_level` names.

    `scratch`: tmpfs.
    """
    uid, _, gid = user.partition(":")
    folders: list[tuple[str, Path | None, str]] = [
        ("--bind", path, place) for place, path in (writable or {}).items()
    ]
    folders += [("--ro-bind", path, place) for place, path in (readonly or {}).items()]
    folders += [("--tmpfs", None, place) for place in scratch]
    network = [] if root or network_of is not None else ["--unshare-net"]
    closed = [] if root else ["--remount-ro", "/"]
    enter = [] if network_of is None else ["nsenter", "--target", str(network_of), "--net", "--"]
    return [
        *enter,
        *(
            "bwrap",
            "--unshare-user",
            "--uid",
            uid,
            "--gid",
            gid or uid,
            "--unshare-ipc",
            *network,
            "--die-with-parent",
        ),
        *(
            "--cap-drop",
            "ALL",
            "--clearenv",
            *(["--bind", str(root), "/", "--tmpfs", "/tmp"] if root else []),
        ),
        *(*_machine(top_level() if root else programs()), "--proc", "/proc", "--dev", "/dev"),
        # A folder comes before what is mounted in it.
        *(
            word
            for kind, path, place in sorted(folders, key=lambda item: item[2])
            for word in (kind, *([str(path)] if path else []), place)
        ),
        *(*closed, "--chdir", workdir),
        *(word for name, value in environment.items() for word in ("--setenv", name, value)),
        *command,
    ]


def _machine(entries: Iterable[Path]) -> list[str]:
    words: list[str] = []
    for entry in entries:
        if entry.is_symlink():
            words += ["--symlink", str(entry.readlink()), str(entry)]
        elif entry.name not in OWN:
            words += ["--ro-bind", str(entry), str(entry)]
    return words


def top_level() -> list[Path]:
    """This machine's folders."""
    return sorted(entry for entry in Path("/").iterdir() if entry.is_dir())


def programs() -> list[Path]:
    """Those of them that hold programs."""
    return [entry for entry in top_level() if entry.name in SYSTEM]
