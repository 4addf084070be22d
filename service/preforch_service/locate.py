"""Finds bundle and policy in a run folder, whose `run.json` says which policy is served."""

import re
from pathlib import Path

from preforch_models.manifest import MANIFEST, ArtifactError, digest, read_manifest
from preforch_models.policy_card import CARD_FILE
from preforch_models.run_folder import RUN_FILE, read_run_info

_ROUND = re.compile(r"round-(\d+)\Z")


def find_bundle(path: Path) -> Path:
    """The bundle of a run, or the path itself when it is a bundle. Raises ArtifactError for an older run."""
    if not path.is_dir():
        raise ArtifactError(f"{path}: no such folder; a run or a bundle is needed")
    if not (path / "bundle").is_dir():
        return path
    read_run_info(path)
    return path / "bundle"


def rounds(run: Path) -> dict[str, list[Path]]:
    """Finished rounds of every policy of a run, by its name, oldest first. `policy/base` is not one."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for card in run.glob(f"policy/*/round-*/{CARD_FILE}"):
        folder = card.parent
        match = _ROUND.match(folder.name)
        if match and folder.parent.name != "base" and (folder / MANIFEST).is_file():
            found.setdefault(folder.parent.name, []).append((int(match.group(1)), folder))
    return {name: [folder for _, folder in sorted(folders)] for name, folders in sorted(found.items())}


def find_policy(run: Path, name: str | None = None) -> Path:
    """The newest round of a policy of a run, by default of the one that `run.json` serves.

    Raises ArtifactError where there is none, and for a run of another format.
    """
    info = read_run_info(run)
    if info is None:
        raise ArtifactError(
            f"{run}: no {RUN_FILE} in it, so it is not a run; train one, or use --weights-only"
        )
    found = rounds(run)
    if not found:
        raise ArtifactError(f"{run}: no policy/NAME/round-N in it; train a policy, or use --weights-only")
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


def check_previous(run: Path, folder: Path) -> None:
    """Raise ArtifactError for a round that was not made from the one before it, round-0 from `policy/base`.

    That happens when training is stopped half-way through making them anew. Where the one before is gone, as
    in a copy of the newest round alone, there is nothing to compare.
    """
    number = int(folder.name.removeprefix("round-"))
    previous = folder.with_name(f"round-{number - 1}") if number else run / "policy" / "base"
    if not (previous / MANIFEST).is_file():
        return
    if read_manifest(folder).inputs.get("previous") != digest(read_manifest(previous).files):
        raise ArtifactError(
            f"{folder} is stale: made from another {previous.name}; train again, or name it with --policy"
        )
