"""Writes docs/licences.md: `python tests/deploy/licences.py > docs/licences.md`, as `make licences` does.

In:  requirements.lock and what the installed packages say of themselves (read by pip-licenses).
Out: Markdown: every locked package with its licence and what it is needed for; those with copyleft first.

Versions are left out: the lock has them, and a licence rarely changes with one.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
COPYLEFT = re.compile(r"GPL|GNU|Mozilla|MPL|EUPL|CDDL|Eclipse", re.IGNORECASE)
# Metadata names none; this is what their licence files say.
FROM_THEIR_FILES = {"oss-harmony": "Apache-2.0", "promql-parser": "MIT", "setuptools": "MIT"}
# The first that needs a package is named.
EXTRAS = ("client", "service", "hub", "training", "tracking", "ray", "vllm-cpu", "demo", "dev", "deploy")
HEAD = """# Licences of dependencies

Every package of requirements.lock, with the licence that its metadata names. Made by `make licences`; a test
says when it is out of date. *Needed for* is the first extra that needs it. The image `gateway` holds those of
`service`, and of `client` what `service` needs too. This is a list for people, to be read before a release; a
bill of materials for scanners, with versions, comes with an image: `docker build --sbom=true`.

The package fastapi-offline carries files of Swagger UI (Apache-2.0) and ReDoc (MIT) beside its own MIT code.

NVIDIA's libraries, which the images for GPUs hold too, are proprietary: NVIDIA's own terms come with each of
them.

## Copyleft

None of these is part of this project's own packages; they are installed beside it, unchanged. Images hold
those of `client`, `service`, `training`, `tracking` and `vllm-cpu` at most, never those of `dev` and
`deploy`.

"""
TABLE = "| package | licence | needed for |\n|---|---|---|\n"


def locked_names() -> list[str]:
    """Packages of the lock."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line.partition("==")[0] for line in lines if "==" in line and not line.startswith((" ", "#"))]


def needed(extra: str) -> set[str]:
    """Everything that an extra of ours leads to."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requires("preference-orchestrator") or []]
    waiting = [each for each in waiting if each.marker is None or each.marker.evaluate({"extra": extra})]
    while waiting:
        name = canonicalize_name(waiting[0].name)
        extras = waiting.pop(0).extras
        if name in found and not extras:
            continue
        found.add(name)
        try:
            theirs = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        for each in theirs:
            wanted = each.marker is None or any(each.marker.evaluate({"extra": one}) for one in {"", *extras})
            if wanted and canonicalize_name(each.name) not in found:
                waiting.append(each)
    return found


def licences(names: list[str]) -> dict[str, str]:
    """Licences by package."""
    command = [
        sys.executable,
        "-m",
        "piplicenses",
        "--from=mixed",
        "--format=json",
        "--with-system",
        "--packages",
        *names,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {
        canonicalize_name(row["Name"]): " ".join(row["License"].split()) for row in json.loads(done.stdout)
    }
    files = {canonicalize_name(name): text for name, text in FROM_THEIR_FILES.items()}
    found |= {name: text for name, text in files.items() if found.get(name) == "UNKNOWN"}
    missing = [name for name in names if canonicalize_name(name) not in found]
    if missing:
        raise ValueError(
            f"not installed, so their licence is unknown: {missing}; run `make test-deploy` first"
        )
    # Some packages put the whole text into the field for its name.
    unknown = [name for name, text in found.items() if text == "UNKNOWN"]
    if unknown:
        raise ValueError(
            f"no licence in the metadata of {unknown}; read their licence files, add to FROM_THEIR_FILES"
        )
    return {name: text if len(text) < 80 else f"{text[:60]}..." for name, text in sorted(found.items())}


def document() -> str:
    """The whole file."""
    wanted = {extra: needed(extra) for extra in EXTRAS}
    rows: tuple[list[str], list[str]] = ([], [])
    for name, licence in licences(locked_names()).items():
        use = next((extra for extra in EXTRAS if name in wanted[extra]), "-")
        rows[not COPYLEFT.search(licence)].append(f"| {name} | {licence.replace('|', '/')} | {use} |\n")
    return HEAD + TABLE + "".join(rows[0]) + "\n## All others\n\n" + TABLE + "".join(rows[1])


if __name__ == "__main__":
    print(document(), end="")
