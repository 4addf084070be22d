"""Finds bundle and policy in a run folder."""

import re
from pathlib import Path

from preforch_models.manifest import MANIFEST, ArtifactError, digest, read_manifest
from preforch_models.policy_card import CARD_FILE

_ROUND = re.compile(r"round-(\d+)\Z")


def find_bundle(path: Path) -> Path:
    """The bundle of a run, or the path itself when it is a bundle."""
    if not path.is_dir():
        raise ArtifactError(f"{path}: no such folder; a run or a bundle is needed")
    return path / "bundle" if (path / "bundle").is_dir() else path


def rounds(run: Path) -> dict[str, list[Path]]:
    """Finished rounds of every policy of a run, oldest first. `policy/base` is not one."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for card in run.glob(f"policy/*/round-*/{CARD_FILE}"):
        folder = card.parent
        match = _ROUND.match(folder.name)
        if match and folder.parent.name != "base" and (folder / MANIFEST).is_file():
            found.setdefault(folder.parent.name, []).append((int(match.group(1)), folder))
    return {name: [folder for _, folder in sorted(folders)] for name, folders in sorted(found.items())}


def find_policy(run: Path) -> Path:
    """The newest round of the only policy of a run. Raises ArtifactError when there is none, or several."""
    found = rounds(run)
    if not found:
        raise ArtifactError(
            f"{run}: no policy/*/round-*/{CARD_FILE} in it; train a policy, or use --weights-only"
        )
    if len(found) > 1:
        raise ArtifactError(
            f"{run}: holds several policies, choose with --policy: {[str(f[-1]) for f in found.values()]}"
        )
    (folders,) = found.values()
    for folder in folders:
        check_previous(run, folder)
    return folders[-1]


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
            f"{folder} is stale: made from another {previous.name}; run training again or name it with --policy"
        )
