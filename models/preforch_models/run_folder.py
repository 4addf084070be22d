"""The run folder as training leaves it and the gateway reads it.

`run.json` at its top says by which layout the folder was made and which of its policies is served.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError

from preforch_models.files import write_text
from preforch_models.manifest import MANIFEST, ArtifactError, digest, read_manifest
from preforch_models.objectives import Record, explain
from preforch_models.policy_card import CARD_FILE

RUN_FILE = "run.json"
RUN_FORMAT = 2
_ROUND = re.compile(r"round-(\d+)\Z")
_ARTIFACTS = (
    "data",
    "reward/*",
    "scores",
    "orchestrator",
    "policy/*",
    "policy/*/*",
    "bundle",
    "study",
    "report",
)
"""Where a run has artifacts, whatever its format."""


class RunInfo(Record):
    """`format_version`: layout of the folder.

    `serve`: the name of the policy to serve, None where there is none.
    """

    format_version: int = RUN_FORMAT
    serve: str | None = None


class _Format(BaseModel):
    """What is read first: another format may have other keys."""

    format_version: int


def write_run_info(folder: Path, info: RunInfo) -> None:
    """Write `run.json`, whole or not at all."""
    write_text(folder / RUN_FILE, info.model_dump_json(indent=2) + "\n")


def read_run_info(folder: Path) -> RunInfo | None:
    """What `run.json` says; None for a folder without a run's artifacts.

    Raises ArtifactError for a run of another format.
    """
    file = folder / RUN_FILE
    if not file.is_file():
        if any(next(folder.glob(f"{place}/{MANIFEST}"), None) for place in _ARTIFACTS):
            raise ArtifactError(_other_format(folder, 1))
        return None
    try:
        version = _Format.model_validate_json(file.read_bytes()).format_version
        if version != RUN_FORMAT:
            raise ArtifactError(_other_format(folder, version))
        return RunInfo.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ArtifactError(f"{file}: {explain(error)}") from error


def rounds(run: Path) -> dict[str, list[Path]]:
    """Finished rounds of every policy of a run, by its name, oldest first. `policy/base` is not one."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for card in run.glob(f"policy/*/round-*/{CARD_FILE}"):
        folder = card.parent
        match = _ROUND.match(folder.name)
        if match and folder.parent.name != "base" and (folder / MANIFEST).is_file():
            found.setdefault(folder.parent.name, []).append((int(match.group(1)), folder))
    return {name: [folder for _, folder in sorted(folders)] for name, folders in sorted(found.items())}


def check_previous(run: Path, folder: Path) -> None:
    """Raise ArtifactError for a round that was not made from what the run holds: the round before it; round-0
    from `policy/base` or a round of another policy, or, as a mean, from runs that were.

    That happens when training is stopped half-way through making them anew. Where the base, or the round
    before, is gone, as in a copy of the newest round alone, there is nothing to compare; nor is there for a
    policy that was made from nothing of the run (`preforch card`).
    """
    number = int(folder.name.removeprefix("round-"))
    if number:
        _check_input(folder, "previous", [folder.with_name(f"round-{number - 1}")])
        return
    starts = [run / "policy" / "base", *sorted(run.glob("policy/*/round-*"))]
    if not (starts[0] / MANIFEST).is_file():
        return
    inputs = read_manifest(folder).inputs
    if not inputs:
        return
    runs = [name for name in inputs if name.startswith("run-")]
    for name in runs:
        _check_input(folder, name, [folder.with_name(name)])
    for made in [folder.with_name(name) for name in runs] or [folder]:
        if (made / MANIFEST).is_file():
            _check_input(made, "previous", [start for start in starts if start != folder])


def find_policy(run: Path, name: str | None = None) -> Path:
    """The newest round of a policy of a run, by default of the one that `run.json` serves.

    Raises ArtifactError where there is none, where it is stale, and for a run of another format.
    """
    info = read_run_info(run)
    if info is None:
        raise ArtifactError(
            f"{run}: no {RUN_FILE} in it, so it is not a run; train one (serve: or use --weights-only)"
        )
    found = rounds(run)
    if not found:
        raise ArtifactError(
            f"{run}: no policy/NAME/round-N in it; train a policy (serve: or use --weights-only)"
        )
    chosen = name or info.serve
    if chosen is None:
        raise ArtifactError(
            f"{run / RUN_FILE}: names no policy to serve; choose with --policy-name: {list(found)}"
        )
    if chosen not in found:
        raise ArtifactError(
            f"{run}: no finished round of policy {chosen!r}; choose with --policy-name: {list(found)}"
        )
    for folder in found[chosen]:
        check_previous(run, folder)
    return found[chosen][-1]


def _check_input(folder: Path, name: str, candidates: Sequence[Path]) -> None:
    """Raise ArtifactError unless an input is one of the candidates that are there; no word where none is."""
    there = [path for path in candidates if (path / MANIFEST).is_file()]
    wanted = read_manifest(folder).inputs.get(name)
    if there and wanted not in {digest(read_manifest(path).files) for path in there}:
        what = there[0].name if len(candidates) == 1 else "base or policy than the run has"
        raise ArtifactError(
            f"{folder} is stale: made from another {what}; train again, or name this very folder "
            "(serve: --policy, push: --artifact)"
        )


def _other_format(folder: Path, version: int) -> str:
    if version > RUN_FORMAT:
        return f"{folder}: this run has format {version}, which this program is too old for; upgrade it"
    return (
        f"{folder}: this run has format {version}, this version of the program reads format {RUN_FORMAT}; "
        "delete the folder or choose another run.folder, and train again"
    )
